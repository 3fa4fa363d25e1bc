"""The off-policy update with a drift and a neighbourhood."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from hetmarl.engines.off_policy import OffPolicyEngine
from hetmarl.engines.randomness import UpdateRandomness
from hetmarl.networks.actors import Sample
from hetmarl.networks.policy import unit_parameters
from hetmarl.objectives.drifts import NoDrift
from hetmarl.objectives.mehaml import MEHAMLLoss


class Projection:
    """Pulls parameters back towards old ones until a distance is within a radius.

    θ ← θ_old + c·(θ − θ_old) with the first c that serves: 1, then each time √(radius/distance) of
    the one before, since divergences grow with the square of the step, but at most ``decay`` of it;
    0, which always serves, after ``tries``.

    Args:
        parameters: θ, an agent's, or those of agents who share them.
        old_parameters: θ_old, laid out alike.
        radius: of the neighbourhood.
        tries: shortened steps before it gives up.
        decay: the least shortening, in (0, 1).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        old_parameters: Iterable[nn.Parameter],
        radius: float,
        tries: int = 10,
        decay: float = 0.9,
    ) -> None:
        self.parameters, self.old_parameters = list(parameters), list(old_parameters)
        self.radius, self.tries, self.decay = radius, tries, decay

    @torch.no_grad()
    def __call__(self, distance: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Projects.

        Args:
            distance: of the parameters as they are (scalar), the same in all processes.

        Returns:
            Scalars: ``distance`` afterwards, and ``step_fraction``, c. A distance that is NaN is
            returned as it is, for what watches over that, and the parameters stay.
        """
        now, fraction = distance(), 1.0
        ends = [p.clone() for p in self.parameters] if now > self.radius else []
        for tried in range(1, self.tries + 1):
            if not now > self.radius:
                break
            shorter = min(self.decay, float(self.radius / now) ** 0.5)
            fraction = 0.0 if tried == self.tries else fraction * shorter
            self._put(ends, fraction)
            now = distance()
        return {"distance": now, "step_fraction": now.new_tensor(fraction)}

    def _put(self, ends: Sequence[Tensor], fraction: float) -> None:
        for parameter, old, end in zip(self.parameters, self.old_parameters, ends, strict=True):
            # exactly the old one at 0, even from an infinite end
            parameter.copy_(old.lerp(end, fraction) if fraction > 0 else old)
        torch.clear_autocast_cache()  # else autocast goes on with casts of the other weights


class SoftMirrorEngine(OffPolicyEngine):
    """``OffPolicyEngine`` whose agents pay a drift and stay in a neighbourhood.

    At its turn an agent descends its loss plus the mean drift, then is projected back into the
    neighbourhood, measured on the batch; its successors see what it is after that. Both are
    relative to the loss's old policies. Agents that share parameters do so together, until
    the furthest of them is inside. Metrics per agent besides: ``drift``, unless it is
    ``NoDrift``, and with a neighbourhood ``distance`` and ``step_fraction``, see ``Projection``.

    Arguments are ``OffPolicyEngine``'s.
    """

    loss: MEHAMLLoss  # type: ignore[assignment]

    def move_unit(
        self,
        data: TensorDictBase,
        unit: Sequence[int],
        joint_action: Sequence[Tensor],
        samples: Sequence[Sample],
        randomness: UpdateRandomness,
    ) -> dict[str, list[Tensor]]:
        loss, found = self.loss, {}
        old = [loss.old(data, agent, randomness.side_noise) for agent in unit]
        losses = self.losses(data, unit, joint_action, samples)
        if not isinstance(loss.drift, NoDrift):
            drifts = [loss.drift_cost(data, i, o) for i, o in zip(unit, old, strict=True)]
            found["drift"] = [drift.detach() for drift in drifts]
            losses = [cost + drift for cost, drift in zip(losses, drifts, strict=True)]
        found["loss_actor"] = [cost.detach() for cost in losses]
        found["grad_norm"] = [self.step_of(unit)(sum(losses[1:], losses[0]))] * len(unit)
        if loss.neighbourhood is not None:

            def distance() -> Tensor:
                each = [loss.distance(data, i, o) for i, o in zip(unit, old, strict=True)]
                return torch.stack(each).amax()

            project = Projection(
                unit_parameters(loss.policy.actors, unit),
                unit_parameters(loss.old_actors, unit),
                loss.neighbourhood.radius,
            )
            found |= {name: [value] * len(unit) for name, value in project(distance).items()}
        return found
