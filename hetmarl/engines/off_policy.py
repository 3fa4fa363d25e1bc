"""How a team is updated from replay: the critic, then one agent after another."""

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
from hetmarl.objectives.off_policy import frozen, log_probs
from hetmarl_envs.contract import TeamSpec


def sequential_update(
    order: Sequence[int],
    samples: Sequence[Sample],
    update: Callable[[int, Sequence[Tensor]], None],
    resample: Callable[[int], Tensor],
) -> None:
    """Updates agents one after another, each against its already updated predecessors.

    Agent iₘ sees a^{i₁:ₘ₋₁} from the *new* policies of its predecessors, its own action with
    gradient, and a^{iₘ₊₁:ₙ} from the current policies of those to come: the advantage
    decomposition's order (Kuba et al. 2022, arXiv 2109.11251, lemma 1; algorithms HADDPG, HATD3,
    HASAC).

    Args:
        order: the agents' permutation.
        samples: every agent's action ``[B, W_i]``, with gradient, drawn before any update.
        update: ``update(agent, joint_action)`` moves that agent's parameters alone.
        resample: ``resample(agent)`` draws its action again, from the updated policy.
    """
    joint = [sample.action.detach() for sample in samples]
    for agent in order:
        joint[agent] = samples[agent].action
        update(agent, joint)
        if agent != order[-1]:  # nobody follows the last
            with torch.no_grad():
                joint[agent] = resample(agent)


def simultaneous_update(
    samples: Sequence[Sample],
    replayed: Sequence[Tensor],
    update: Callable[[int, Sequence[Tensor]], None],
) -> None:
    """Updates every agent against what the others did when the data was collected.

    (MADDPG; Lowe et al. 2017, arXiv 1706.02275, equation 5.)

    Args:
        samples: every agent's action ``[B, W_i]``, with gradient.
        replayed: the joint action in the batch, each ``[B, W_i]``.
        update: ``update(agent, joint_action)`` moves that agent's parameters alone.
    """
    for agent, sample in enumerate(samples):
        update(agent, [*replayed[:agent], sample.action, *replayed[agent + 1 :]])


class OffPolicyLoss(Protocol):
    """What the engine needs of a loss; ``hetmarl.objectives.JointQLoss`` says what it means."""

    spec: TeamSpec
    critic: nn.Module

    @property
    def targets(self) -> Sequence[tuple[nn.Module, nn.Module]]: ...
    def qvalue(self, data: TensorDictBase, noise: NoiseLike) -> tuple[Tensor, Tensor]: ...
    def joint_action(self, data: TensorDictBase) -> list[Tensor]: ...
    def sample(self, data: TensorDictBase, agent: int, noise: NoiseLike) -> Sample: ...
    def actor(
        self,
        data: TensorDictBase,
        agent: int,
        joint_action: Sequence[Tensor],
        log_prob: Tensor | None,
    ) -> Tensor: ...
    def mean(self, value: Tensor, data: TensorDictBase, agent: int) -> Tensor: ...


class SoftLoss(OffPolicyLoss, Protocol):
    """What it needs besides to adapt temperatures."""

    def temperature(self, data: TensorDictBase, log_probs: Sequence[Tensor]) -> Tensor: ...


class OffPolicyEngine:
    """One gradient step of everybody: critic, actors in order, temperatures, targets.

    Args:
        loss: the algorithm's losses.
        critic_step: descends the critic's loss.
        actor_steps: one per agent, in team order.
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
        samples = [loss.sample(data, i, noise) for i in range(len(self.actor_steps))]

        def update_actor(agent: int, joint_action: Sequence[Tensor]) -> None:
            name, log_prob = loss.spec.names[agent], samples[agent].log_prob
            found = self.move_actor(data, agent, joint_action, log_prob, randomness)
            metrics.update({f"{quantity}/{name}": value for quantity, value in found.items()})
            if log_prob is not None:
                metrics[f"entropy/{name}"] = -loss.mean(log_prob.detach(), data, agent)

        with frozen(loss.critic):
            if self.sequential:
                sequential_update(
                    randomness.order(len(samples)),
                    samples,
                    update_actor,
                    lambda agent: loss.sample(data, agent, noise).action,
                )
            else:
                simultaneous_update(samples, loss.joint_action(data), update_actor)
        if self.temperature_step is not None:
            soft = cast(SoftLoss, loss)
            self.temperature_step(soft.temperature(data, log_probs(samples)))
        return metrics

    def move_actor(
        self,
        data: TensorDictBase,
        agent: int,
        joint_action: Sequence[Tensor],
        log_prob: Tensor | None,
        randomness: UpdateRandomness,
    ) -> dict[str, Tensor]:
        """One step of one agent at its turn; returns detached scalars in the order of time."""
        loss_actor = self.loss.actor(data, agent, joint_action, log_prob)
        grad_norm = self.actor_steps[agent](loss_actor)
        return {"loss_actor": loss_actor.detach(), "grad_norm": grad_norm}
