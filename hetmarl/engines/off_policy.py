"""How a team is updated from replay: the critic, then one agent, or one set, after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hetmarl.engines.randomness import UpdateRandomness
from hetmarl.engines.step import GradientStep
from hetmarl.networks.actors import Sample
from hetmarl.networks.distributions import NoiseLike
from hetmarl.networks.policy import TeamPolicy
from hetmarl.objectives.off_policy import frozen, log_probs
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError

Update = Callable[[Sequence[int], Sequence[Tensor]], None]
"""``update(unit, joint_action)`` moves the parameters of a unit's agents and no others. Each member
i descends its loss at ``joint_action`` with ``samples[i].action`` in its place."""


def sequential_update(
    order: Sequence[Sequence[int]],
    samples: Sequence[Sample],
    update: Update,
    resample: Callable[[Sequence[int]], Sequence[Tensor]],
) -> None:
    """Updates units one after another, each against its already updated predecessors.

    Agent iₘ sees a^{i₁:ₘ₋₁} from the *new* policies of its predecessors, its own action with
    gradient, and a^{iₘ₊₁:ₙ} from the current policies of those to come: the advantage
    decomposition's order (Kuba et al. 2022, arXiv 2109.11251, lemma 1; algorithms HADDPG, HATD3,
    HASAC). Agents that share parameters move together: to each the others are as they were.

    Args:
        order: the units' permutation; a unit is an agent, or those who share parameters.
        samples: every agent's action ``[B, W_i]``, with gradient, drawn before any update.
        update: of a unit.
        resample: ``resample(unit)`` draws its agents' actions again, from the updated policies.
    """
    joint = [sample.action.detach() for sample in samples]
    for place, unit in enumerate(order, start=1):
        update(unit, joint)
        if place < len(order):  # nobody follows the last
            with torch.no_grad():
                for agent, action in zip(unit, resample(unit), strict=True):
                    joint[agent] = action


def simultaneous_update(
    units: Sequence[Sequence[int]], replayed: Sequence[Tensor], update: Update
) -> None:
    """Updates every unit against what the others did when the data was collected.

    (MADDPG; Lowe et al. 2017, arXiv 1706.02275, equation 5.)

    Args:
        units: agents, or those who share parameters.
        replayed: the joint action in the batch, each ``[B, W_i]``.
        update: of a unit.
    """
    for unit in units:
        update(unit, replayed)


class OffPolicyLoss(Protocol):
    """What the engine needs of a loss; ``hetmarl.objectives.JointQLoss`` says what it means."""

    spec: TeamSpec
    policy: TeamPolicy
    critic: nn.Module

    @property
    def targets(self) -> Sequence[tuple[nn.Module, nn.Module]]: ...
    def qvalue(self, data: TensorDictBase, noise: NoiseLike) -> tuple[Tensor, Tensor]: ...
    def joint_action(self, data: TensorDictBase) -> list[Tensor]: ...
    def samples(
        self, data: TensorDictBase, agents: Sequence[int], noise: NoiseLike
    ) -> list[Sample]: ...
    def actors(
        self,
        data: TensorDictBase,
        agents: Sequence[int],
        joint_action: Sequence[Tensor],
        samples: Sequence[Sample],
        *,
        present: bool,
    ) -> list[Tensor]: ...
    def mean(self, value: Tensor, data: TensorDictBase, agent: int) -> Tensor: ...


class SoftLoss(OffPolicyLoss, Protocol):
    """What it needs besides to adapt temperatures."""

    def temperature(self, data: TensorDictBase, log_probs: Sequence[Tensor]) -> Tensor: ...


class OffPolicyEngine:
    """One gradient step of everybody: critic, actors in order, temperatures, targets.

    Args:
        loss: the algorithm's losses.
        critic_step: descends the critic's loss.
        actor_steps: one per unit of ``loss.policy.units``, in that order.
        temperature_step: descends the temperatures' loss; None: there are none, or they are fixed.
        polyak: share of the networks that their targets take over per step, typically .005.
        sequential: agents see their updated predecessors; otherwise the replayed actions of all.
    """

    def __init__(
        self,
        loss: OffPolicyLoss,
        critic_step: GradientStep,
        actor_steps: Sequence[GradientStep],
        temperature_step: GradientStep | None = None,
        polyak: float = 0.005,
        sequential: bool = True,
    ) -> None:
        self.loss = loss
        self.critic_step = critic_step
        self.units = loss.policy.units
        if len(self.units) != len(actor_steps):
            raise ConfigError(
                f"{len(actor_steps)} actor_steps for {len(self.units)} units of agents: expected "
                "one per set of shared parameters, in the order of policy.units."
            )
        self.actor_steps = actor_steps
        self.temperature_step = temperature_step
        self.sequential = sequential
        pairs = [[list(m.parameters()) for m in pair] for pair in loss.targets]
        self._targets = [p for target, _ in pairs for p in target]
        self._followed = [p for _, followed in pairs for p in followed]
        self._move_targets = get_ema_multi_avg_fn(1 - polyak)

    def update(
        self, data: TensorDictBase, randomness: UpdateRandomness, *, actors: bool = True
    ) -> dict[str, Tensor]:
        """One gradient step from a replay batch ``[B]``.

        Args:
            data: the batch.
            randomness: of the order and the noise.
            actors: move actors, temperatures and targets too, which some algorithms do less often
                than the critic.

        Returns:
            Detached scalars in the order of time: ``loss_qvalue``, ``q_mean``,
            ``grad_norm_qvalue``, then per agent, as they were updated, ``loss_actor/<name>``,
            ``grad_norm/<name>`` and, where policies are random, ``entropy/<name>``.
        """
        loss, noise = self.loss, randomness.noise
        loss_q, q_mean = loss.qvalue(data, noise)
        metrics = {"loss_qvalue": loss_q.detach(), "q_mean": q_mean}
        metrics["grad_norm_qvalue"] = self.critic_step(loss_q)
        if actors:
            metrics |= self._update_actors(data, randomness)
            with torch.no_grad():
                self._move_targets(self._targets, self._followed, 0)  # type: ignore[arg-type]
        return metrics

    def _update_actors(
        self, data: TensorDictBase, randomness: UpdateRandomness
    ) -> dict[str, Tensor]:
        loss, noise, metrics = self.loss, randomness.noise, {}
        samples = loss.samples(data, range(loss.spec.num_agents), noise)

        def update_actors(unit: Sequence[int], joint_action: Sequence[Tensor]) -> None:
            found = self.move_unit(data, unit, joint_action, samples, randomness)
            for quantity, values in found.items():
                for agent, value in zip(unit, values, strict=True):
                    metrics[f"{quantity}/{loss.spec.names[agent]}"] = value
            for agent in unit:
                if (log_prob := samples[agent].log_prob) is not None:
                    name = loss.spec.names[agent]
                    metrics[f"entropy/{name}"] = -loss.mean(log_prob.detach(), data, agent)

        with frozen(loss.critic):
            if self.sequential:
                order = [self.units[k] for k in randomness.order(len(self.units))]
                sequential_update(
                    order,
                    samples,
                    update_actors,
                    lambda unit: [s.action for s in loss.samples(data, unit, noise)],
                )
            else:
                simultaneous_update(self.units, loss.joint_action(data), update_actors)
        if self.temperature_step is not None:
            soft = cast(SoftLoss, loss)
            self.temperature_step(soft.temperature(data, log_probs(samples)))
        return metrics

    def move_unit(
        self,
        data: TensorDictBase,
        unit: Sequence[int],
        joint_action: Sequence[Tensor],
        samples: Sequence[Sample],
        randomness: UpdateRandomness,
    ) -> dict[str, list[Tensor]]:
        """One step of one unit at its turn.

        Returns:
            Detached scalars of each of its agents, in the order of time.
        """
        losses = self.losses(data, unit, joint_action, samples)
        norm = self.step_of(unit)(sum(losses[1:], losses[0]))
        return {"loss_actor": [x.detach() for x in losses], "grad_norm": [norm] * len(unit)}

    def losses(
        self,
        data: TensorDictBase,
        unit: Sequence[int],
        joint_action: Sequence[Tensor],
        samples: Sequence[Sample],
    ) -> list[Tensor]:
        """L_π of each of a unit's agents (scalars), the other actions as given."""
        return self.loss.actors(data, unit, joint_action, samples, present=self.sequential)

    def step_of(self, unit: Sequence[int]) -> GradientStep:
        """What moves a unit's parameters."""
        return self.actor_steps[self.units.index(list(unit))]
