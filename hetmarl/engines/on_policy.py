"""How a team is updated from a rollout: one agent after another, or all at once; critic last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor

from hetmarl.engines.randomness import UpdateRandomness, check_minibatches
from hetmarl.engines.step import GradientStep
from hetmarl.engines.trust_region import TrustRegionStep
from hetmarl.objectives.drifts import Neighbourhood, PolicyChange
from hetmarl.objectives.mirror import AgentBatch, MirrorLoss
from hetmarl.objectives.reduce import Reduce
from hetmarl_envs.errors import ConfigError


class Changes(Protocol):
    """The new policies of a unit's agents, beside the old ones."""

    def __call__(self, batches: Sequence[AgentBatch] | None = None) -> list[PolicyChange]:
        """One per agent, or one of a joint agent.

        Args:
            batches: parts of the unit's; recurrent policies go on from the states stored with them,
                which are those of the old policy. None: the whole rollout, through which recurrent
                policies go from its beginning.
        """
        ...


class UnitUpdate(Protocol):
    """Optimises the parameters of one unit: an agent, or several that share theirs."""

    def __call__(
        self,
        loss: MirrorLoss,
        batches: Sequence[AgentBatch],
        changes: Changes,
        randomness: UpdateRandomness,
    ) -> dict[str, Tensor]:
        """Moves the unit's parameters; returns detached scalars to log."""
        ...


def anybody_alive(batches: Sequence[AgentBatch], reduce: Reduce) -> bool:
    """Whether any sample, of all processes, is that of a living agent.

    Where none is there is nothing to learn from, and optimisers would move by momentum alone.
    """
    alive = [batch.alive for batch in batches if batch.alive is not None]
    if len(alive) < len(batches):
        return True
    count = torch.stack([a.sum() for a in alive]).sum().double()
    return bool(reduce(count) > 0)


class GradientEpochs:
    """Several passes of gradient steps over minibatches: U is everything.

    A minibatch in which nobody lives is passed over.

    Args:
        step: descends a loss in the unit's parameters.
        epochs: passes, 1 to 15.
        minibatches: parts of each pass, 1 to 40.
    """

    def __init__(self, step: GradientStep, epochs: int, minibatches: int) -> None:
        self.step, self.epochs, self.minibatches = step, epochs, minibatches

    def __call__(
        self,
        loss: MirrorLoss,
        batches: Sequence[AgentBatch],
        changes: Changes,
        randomness: UpdateRandomness,
    ) -> dict[str, Tensor]:
        count = len(batches[0].observation)
        history = []
        for _ in range(self.epochs):
            for rows in randomness.minibatches(count, self.minibatches):
                chosen = list(batches)
                if rows is not None:
                    chosen = [batch.map(lambda x, rows=rows: x[rows]) for batch in batches]
                    if not anybody_alive(chosen, loss.reduce):
                        continue
                found = loss.objective(changes(chosen))
                norm = self.step(found.loss)
                values = [found.loss, norm, found.drift, found.entropy]
                history.append(torch.stack([value.detach() for value in values]))
        names = ("loss_actor", "grad_norm", "drift", "entropy")
        return dict(zip(names, torch.stack(history).mean(0), strict=True))


class TrustRegionUpdate:
    """One step to the edge of a neighbourhood, on the whole rollout.

    Recurrent policies are differentiated on chunks. What a step gains and how far it goes is
    measured through the whole rollout, as chunks begin with the states of the old policy.

    Args:
        step: the search.
        neighbourhood: whose distance it keeps below its radius.
    """

    def __init__(self, step: TrustRegionStep, neighbourhood: Neighbourhood) -> None:
        self.step, self.neighbourhood = step, neighbourhood

    def __call__(
        self,
        loss: MirrorLoss,
        batches: Sequence[AgentBatch],
        changes: Changes,
        randomness: UpdateRandomness,
    ) -> dict[str, Tensor]:
        seen: list[dict[str, Tensor]] = []

        def evaluate(given: Sequence[AgentBatch] | None) -> tuple[Tensor, Tensor]:
            found = changes(given)
            objective = loss.objective(found)
            values = {"loss_actor": objective.loss, "entropy": objective.entropy}
            seen.append({name: value.detach() for name, value in values.items()})
            distance = loss.mean([self.neighbourhood.distance(c) for c in found], found)
            return objective.surrogate - objective.drift, distance

        # fused recurrent kernels of a GPU have no second derivative
        with torch.backends.cudnn.flags(enabled=False):
            taken = self.step(lambda: evaluate(batches), lambda: evaluate(None))
        # of the policy that it leaves behind: where no step was accepted, the one before
        moved = taken["step_fraction"] > 0
        left = {name: torch.where(moved, seen[-1][name], seen[0][name]) for name in seen[0]}
        return left | taken


class OnPolicyEngine:
    """One iteration of everybody: prepare, actors in order, critic.

    Sequentially, in a fresh random order, and after each agent the factor M takes in its ratio on
    the whole rollout; or simultaneously, with everybody's advantage as it is.

    Args:
        loss: the algorithm's losses.
        updates: one per unit of ``loss.policy.units``, in that order.
        critic_step: descends the critic's loss.
        critic_epochs, critic_minibatches: its passes and their parts.
        sequential: one after another, each against its updated predecessors.
        chunk_length: steps through which recurrent networks are differentiated, from stored states.
        fixed_order: team order instead of a random one; an ablation.
    """

    def __init__(
        self,
        loss: MirrorLoss,
        updates: Sequence[UnitUpdate],
        critic_step: GradientStep,
        *,
        critic_epochs: int = 5,
        critic_minibatches: int = 1,
        sequential: bool = True,
        chunk_length: int = 10,
        fixed_order: bool = False,
    ) -> None:
        self.loss, self.updates, self.critic_step = loss, list(updates), critic_step
        self.critic_epochs, self.critic_minibatches = critic_epochs, critic_minibatches
        self.sequential, self.chunk_length = sequential, chunk_length
        self.fixed_order = fixed_order
        self.units = loss.policy.units
        if len(self.units) != len(self.updates):
            raise ConfigError(
                f"{len(self.updates)} updates for {len(self.units)} units of agents: expected one "
                "per set of shared parameters."
            )

    def update(self, data: TensorDictBase, randomness: UpdateRandomness) -> dict[str, Tensor]:
        """One iteration from a rollout ``[E, T]``.

        Returns:
            Detached scalars, in the order in which they came about: ``value_mean``, per agent
            ``<quantity>/<name>`` for what its update reports, kl and ratio_deviation,
            ``loss_critic``, ``grad_norm_critic``.
        """
        loss, names = self.loss, self.loss.spec.names
        self._check_length(data.shape[1])
        loss.prepare(data)
        metrics = {"value_mean": loss.value_mean(data)}
        factor = torch.ones_like(data.get(("next", "reward")))
        order = list(range(len(self.units)))
        if self.sequential and not self.fixed_order:
            order = randomness.order(len(self.units))
        for position in order:
            members = self.units[position]
            if self.sequential:
                data.set(loss.tensor_keys.factor, factor)
            whole = [loss.read(data, i) for i in members]
            chunked = any(i in loss.policy.recurrent for i in members)
            batches = [batch.map(lambda x, c=chunked: self._items(x, c)) for batch in whole]
            changes_of = self._changes(members, whole if chunked else batches)
            reported = {}
            if anybody_alive(whole, loss.reduce):
                reported = self.updates[position](loss, batches, changes_of, randomness)
            with torch.no_grad():
                changes = [loss.change(i, b) for i, b in zip(members, whole, strict=True)]
                if self.sequential:
                    for change in changes:
                        factor = factor * change.ratio
            for i, change in zip(members, changes, strict=True):
                own = {"kl": loss.mean_kl([change]), "ratio_deviation": self._deviation(change)}
                metrics |= {f"{k}/{names[i]}": v for k, v in (reported | own).items()}
        data.pop(loss.tensor_keys.factor, None)
        return metrics | self._update_critic(data, randomness)

    # ------------------------------------------------------------------ parts
    def _changes(self, members: Sequence[int], whole: Sequence[AgentBatch]) -> Changes:
        loss = self.loss

        def changes(batches: Sequence[AgentBatch] | None = None) -> list[PolicyChange]:
            given = whole if batches is None else batches
            found = [loss.change(i, b) for i, b in zip(members, given, strict=True)]
            joint = self.sequential and len(found) > 1
            return [loss.joint_change(found)] if joint else found

        return changes

    def _update_critic(
        self, data: TensorDictBase, randomness: UpdateRandomness
    ) -> dict[str, Tensor]:
        loss, keys = self.loss, self.loss.tensor_keys
        recurrent = loss.critic.recurrent
        wanted: list[Any] = [keys.value, keys.value_target, "state", "is_init", "hidden"]
        wanted += [(g, k) for g in loss.spec.groups for k in (keys.observation, keys.alive)]
        batch = data.select(*wanted, strict=False)
        length = self.chunk_length
        batch = batch.reshape(-1, length) if recurrent else batch.reshape(-1)
        history = []
        for _ in range(self.critic_epochs):
            for rows in randomness.minibatches(len(batch), self.critic_minibatches):
                loss_critic = loss.value(batch if rows is None else batch[rows])
                norm = self.critic_step(loss_critic)
                history.append(torch.stack([loss_critic.detach(), norm]))
        return dict(
            zip(("loss_critic", "grad_norm_critic"), torch.stack(history).mean(0), strict=True)
        )

    def _items(self, x: Tensor, chunked: bool) -> Tensor:
        """``[E, T, …]`` as what minibatches are made of: frames, or chunks ``[N, L, …]``."""
        if chunked:
            return x.reshape(-1, self.chunk_length, *x.shape[2:])
        return x.flatten(0, 1)

    def check_rollout(self, num_envs: int, steps: int) -> None:
        """Refuses rollouts ``[num_envs, steps]`` that could not be learned from.

        Raises:
            ConfigError: they do not split into chunks or minibatches, and what to set.
        """
        self._check_length(steps)
        policy, critic = self.loss.policy, self.loss.critic
        parts = [(bool(critic.recurrent), self.critic_minibatches)]
        for members, update in zip(self.units, self.updates, strict=True):
            chunked = any(i in policy.recurrent for i in members)
            parts.append((chunked, getattr(update, "minibatches", 1)))
        for chunked, minibatches in parts:
            length = self.chunk_length if chunked else 1
            check_minibatches(num_envs * (steps // length), minibatches)

    def _check_length(self, steps: int) -> None:
        recurrent = self.loss.policy.recurrent or self.loss.critic.recurrent
        if recurrent and steps % self.chunk_length:
            raise ConfigError(
                f"a rollout has {steps} steps and algo.chunk_length={self.chunk_length} "
                "does not divide it. Set data.rollout_steps to a multiple of algo.chunk_length."
            )

    def _deviation(self, change: PolicyChange) -> Tensor:
        """Mean |r − 1| over the living."""
        return self.loss.mean([(change.ratio - 1).abs()], [change])
