"""The losses of on-policy mirror learning: one agent's objective, and the critic's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor
from torchrl.objectives import LossModule

from hetmarl.networks.body import HIDDEN, Memory
from hetmarl.networks.critics import LocalValues, StateValue
from hetmarl.networks.distributions import ActionDistribution, Joint
from hetmarl.networks.policy import SAMPLE, TeamPolicy
from hetmarl.objectives.drifts import Drift, NoDrift, PolicyChange
from hetmarl.objectives.masked import masked_mean
from hetmarl.objectives.reduce import Reduce, identity
from hetmarl.objectives.value_norm import ValueNorm
from hetmarl.objectives.values import advantages, standardise, value_loss, values_and_next


@dataclass
class AgentBatch:
    """What one agent's update reads; batch ``[N]``, or ``[N, L]`` for a recurrent actor.

    Args:
        observation: ``[*B, *O]``.
        action: what was drawn, ``[*B, D]``.
        advantage: M ``[*B, 1]``.
        old_parameters: of the policy that drew it ``[*B, P]``.
        old_log_prob: ``[*B, 1]``.
        action_mask: legal choices ``[*B, ΣK]``; None: all.
        alive: ``[*B, 1]``; None: all.
        hidden: recurrent states before each step ``[*B, H]``.
        is_init: first steps of episodes ``[*B, 1]``.
    """

    observation: Tensor
    action: Tensor
    advantage: Tensor
    old_parameters: Tensor
    old_log_prob: Tensor
    action_mask: Tensor | None = None
    alive: Tensor | None = None
    hidden: Tensor | None = None
    is_init: Tensor | None = None

    def map(self, function: Any) -> AgentBatch:
        """``function`` of every tensor."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return replace(self, **{k: function(v) for k, v in values if v is not None})

    @property
    def memory(self) -> Memory | None:
        """Where a recurrent actor goes on."""
        if self.hidden is None or self.is_init is None:
            return None
        hidden = self.hidden if self.is_init.ndim == 2 else self.hidden[:, 0]
        return Memory(hidden, self.is_init)


class Objective(NamedTuple):
    """Means over the living samples of one agent's (or several agents') change, all scalars.

    Args:
        loss: −(E[r·M] − E[D]) − entropy_coef·entropy, to be descended.
        surrogate: E[r·M].
        drift: E[D].
        entropy: of the new policy, in nats.
        change: what they were computed from, one per agent or one for a joint update.
    """

    loss: Tensor
    surrogate: Tensor
    drift: Tensor
    entropy: Tensor
    change: list[PolicyChange]


class MirrorLoss(LossModule):
    """On-policy mirror learning of a team: importance-weighted, with any drift.

    One agent, its predecessors in the order updated before:

        L_π = −E[r·M] + E[D] − c·E[H(π)],   M = Â·∏_{predecessors j} rʲ

    Critic (in normalised units where ``value_norm``):

        L_V = E max(ℓ(G − V), ℓ(G − clip(V, V_old ± value_clip)))

    with E over living samples. HAPPO has D = ``ClipDrift``, HAA2C and HATRPO none, HAMDPO
    ``KLDrift``; with the factor left at 1, MAPPO and MAA2C. (Zhong et al. 2024, arXiv 2304.09870,
    equation 16 and algorithm 1.)

    Unlike ``torchrl.objectives.ClipPPOLoss`` it knows several agents, each with its own networks
    and spaces, weighs advantages by ``factor``, and the old policies are whole distributions, so
    that divergences are exact. The networks stay ordinary modules: not functional, no vmap.

    Reads (names by ``set_keys``): ``(group, observation)``, ``(group, action)`` or for Gaussian
    actors ``(group, sample)``, optional ``(group, action_mask)`` and ``(group, alive)``; written by
    ``prepare``: ``(group, advantage) [*B, n_g, 1]``, ``(group, old_parameters) [*B, n_g, P]``,
    ``(group, old_log_prob) [*B, n_g, 1]``, ``value [*B, V]``, ``value_target [*B, V]``; set by
    an engine during its update: ``factor [*B, 1]``. Recurrent networks read their stored states and
    ``is_init`` besides. ``in_keys`` are those that every batch has.

    Args:
        policy: the team's actors.
        critic: ``StateValue`` or ``LocalValues``.
        drift: D.
        gamma, gae_lambda: discount and trace decay per step.
        entropy_coef: c, 0 to .05.
        value_clip: bound on a value's change, in the critic's units; None: none.
        huber_delta: where the value loss turns linear; None: half the square.
        value_norm: normalise value targets by running statistics.
        reduce: averages a tensor over the processes in place.
    """

    @dataclass
    class _AcceptedKeys:
        observation: str = "observation"
        action: str = "action"
        sample: str = SAMPLE
        action_mask: str = "action_mask"
        alive: str = "alive"
        advantage: str = "advantage"
        old_parameters: str = "old_parameters"
        old_log_prob: str = "old_log_prob"
        value: str = "value"
        value_target: str = "value_target"
        factor: str = "factor"

    tensor_keys: _AcceptedKeys

    def __init__(
        self,
        policy: TeamPolicy,
        critic: StateValue | LocalValues,
        drift: Drift | None = None,
        *,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        entropy_coef: float = 0.01,
        value_clip: float | None = 0.2,
        huber_delta: float | None = 10.0,
        value_norm: bool = True,
        reduce: Reduce = identity,
    ) -> None:
        super().__init__()
        self.spec = policy.team
        self.policy = policy
        self.critic = critic
        self.drift = drift or NoDrift()
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.entropy_coef = entropy_coef
        self.value_clip, self.huber_delta = value_clip, huber_delta
        self.value_norm = ValueNorm(critic.num_values) if value_norm else None
        self.reduce = reduce

    @property
    def functional(self) -> bool:
        """Whether parameters are held apart from the modules: here they are not."""
        return False

    @property
    def in_keys(self) -> list[Any]:
        keys, policy = self.tensor_keys, self.policy
        found: list[Any] = []
        for group in self.spec.groups:
            read = [keys.observation, self._action_key(group), keys.advantage]
            read += [keys.old_parameters, keys.old_log_prob]
            found += [(group, key) for key in read]
        if self.spec.state_dim is not None:
            found.append("state")
        memories = [self.spec.names[i] for i in sorted(policy.recurrent)] + self.critic.memories
        if memories:
            found += [*((HIDDEN, name) for name in memories), "is_init"]
        return [*found, keys.value, keys.value_target]

    @property
    def out_keys(self) -> list[str]:
        return ["loss_objective", "loss_critic", "entropy", "kl"]

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """No value estimator object: ``prepare`` estimates. The critic reads observations."""
        self.critic.observation_key = self.tensor_keys.observation

    # ------------------------------------------------------------------ before the update
    @torch.no_grad()
    def prepare(self, data: TensorDictBase) -> TensorDictBase:
        """Adds to a rollout ``[E, T]`` what the update compares with; the policies as they are.

        Advantages are standardised per agent over its living samples, once, before any factor.
        """
        keys, spec = self.tensor_keys, self.spec
        value, following, output = values_and_next(data, self.critic, self.value_norm)
        alive = self._alive_values(data.get("next"))
        advantage, target = advantages(
            data, value, following, self.gamma, self.gae_lambda, None if alive is None else ~alive
        )
        data.set(keys.value, output)
        data.set(keys.value_target, target)
        wanted = (keys.advantage, keys.old_parameters, keys.old_log_prob)
        found: dict[str, list[Tensor]] = {key: [] for key in wanted}
        for i in range(spec.num_agents):
            own = advantage[..., [i if self.critic.num_values > 1 else 0]]
            found[keys.advantage].append(standardise(own, self.alive(data, i), self.reduce))
            parameters = self.parameters_of(data, i)
            found[keys.old_parameters].append(parameters)
            found[keys.old_log_prob].append(
                self.distribution(i, parameters).log_prob(self.action(data, i))
            )
        for group, members in spec.groups.items():
            for key, values in found.items():
                data.set((group, key), torch.stack([values[i] for i in members], dim=-2))
        return data

    # ------------------------------------------------------------------ reading
    def alive(self, data: TensorDictBase, agent: int) -> Tensor | None:
        """``[*B, 1]``, None where nobody dies."""
        return self.spec.alive(data, agent, key=self.tensor_keys.alive)

    def action(self, data: TensorDictBase, agent: int) -> Tensor:
        """What the agent drew ``[*B, D]``, before clipping."""
        return self.spec.action(data, agent, key=self._action_key(self.spec.agents[agent].group))

    def _action_key(self, group: str) -> str:
        keys = self.tensor_keys
        return keys.sample if group in self.policy.clipped else keys.action

    def parameters_of(self, data: TensorDictBase, agent: int) -> Tensor:
        """The agent's policy as it is now, ``[*B, P]``."""
        keys, policy = self.tensor_keys, self.policy
        observation = self.spec.observation(data, agent, key=keys.observation)
        mask = self.spec.action_mask(data, agent, key=keys.action_mask)
        return policy.actors[agent](observation, mask, policy.memory(data, agent))[0]

    def distribution(self, agent: int, parameters: Tensor) -> ActionDistribution:
        """The agent's policy with these parameters ``[*B, P]``."""
        return self.policy.actors[agent].distribution(parameters)  # type: ignore[operator]

    def read(self, data: TensorDictBase, agent: int) -> AgentBatch:
        """The agent's part of a batch, its advantage weighted by the factor."""
        keys, spec = self.tensor_keys, self.spec
        own = spec.agents[agent]

        def get(key: str) -> Tensor:
            return data.get((own.group, key)).select(data.batch_dims, own.index)

        advantage = get(keys.advantage)
        factor = data.get(keys.factor, None)
        batch = AgentBatch(
            spec.observation(data, agent, key=keys.observation),
            self.action(data, agent),
            advantage if factor is None else advantage * factor,
            get(keys.old_parameters),
            get(keys.old_log_prob),
            spec.action_mask(data, agent, key=keys.action_mask),
            self.alive(data, agent),
        )
        if agent in self.policy.recurrent:
            batch.hidden, batch.is_init = data.get((HIDDEN, own.name)), data.get("is_init")
        return batch

    # ------------------------------------------------------------------ the equations
    def change(self, agent: int, batch: AgentBatch) -> PolicyChange:
        """The agent's new policy, with gradient, beside its old one."""
        actor: Any = self.policy.actors[agent]
        parameters, _ = actor(batch.observation, batch.action_mask, batch.memory)
        new, old = actor.distribution(parameters), actor.distribution(batch.old_parameters)
        log_ratio = new.log_prob(batch.action) - batch.old_log_prob
        if batch.alive is not None:  # the ratio of a dead agent is exactly 1
            log_ratio = torch.where(batch.alive, log_ratio, 0.0)
        return PolicyChange(new, old, log_ratio, batch.advantage, batch.alive)

    def joint_change(self, changes: Sequence[PolicyChange]) -> PolicyChange:
        """Agents that share parameters, as one: the product of their living ratios.

        Its advantage is the mean of the living ones': each is standardised over its agent's life.
        """
        masks, each = [c.alive for c in changes], torch.stack([c.advantage for c in changes])
        alive, advantage = None, each.mean(0)
        if any(mask is not None for mask in masks):
            ones = torch.ones_like(advantage, dtype=torch.bool)
            living = torch.stack([ones if mask is None else mask for mask in masks])
            alive = living.any(0)
            advantage = (each * living).sum(0) / living.sum(0).clamp(min=1)
        return PolicyChange(
            Joint([c.new for c in changes], masks),
            Joint([c.old for c in changes], masks),
            torch.stack([c.log_ratio for c in changes]).sum(0),
            advantage,
            alive,
        )

    def objective(self, changes: Sequence[PolicyChange]) -> Objective:
        """One update's loss: of a single agent, or of several that share parameters.

        Several changes are one sample each: means go over all of them together.
        """
        ratio_m = [c.ratio * c.advantage for c in changes]
        drift = self.mean([self.drift(c) for c in changes], changes)
        surrogate = self.mean(ratio_m, changes)
        entropy = self.mean([c.new.entropy() for c in changes], changes)
        loss = drift - surrogate - self.entropy_coef * entropy
        return Objective(loss, surrogate, drift, entropy, list(changes))

    def mean_kl(self, changes: Sequence[PolicyChange]) -> Tensor:
        """Mean KL(old ‖ new) in nats (scalar), as ``mean``: ``reduce`` it before deciding on it."""
        return self.mean([c.old.kl(c.new) for c in changes], changes)

    def mean(self, values: Sequence[Tensor], changes: Sequence[PolicyChange]) -> Tensor:
        """Mean over the living samples of all changes (scalar).

        Of several processes each gets its share, of which ``reduce`` makes the mean over all.
        """
        alive = None
        if any(c.alive is not None for c in changes):
            every = torch.ones_like(values[0], dtype=torch.bool)
            alive = torch.cat([every if c.alive is None else c.alive for c in changes])
        return masked_mean(torch.cat(list(values)), alive, self.reduce)

    def value(self, data: TensorDictBase) -> Tensor:
        """L_V (scalar); takes the batch's targets into the running statistics first."""
        keys = self.tensor_keys
        old, target = data.get(keys.value), data.get(keys.value_target)
        alive = self._alive_values(data)
        if self.value_norm is not None:
            flat = None if alive is None else alive.flatten(0, -2)
            self.value_norm.update(target.flatten(0, -2), flat, self.reduce)
            target = self.value_norm.normalise(target)
        return value_loss(
            self.critic(data),
            old,
            target,
            alive,
            clip=self.value_clip,
            huber_delta=self.huber_delta,
            reduce=self.reduce,
        )

    def value_mean(self, data: TensorDictBase) -> Tensor:
        """Mean value target over the living (scalar), in units of the return."""
        target = data.get(self.tensor_keys.value_target)
        return masked_mean(target, self._alive_values(data), self.reduce)

    def _alive_values(self, data: TensorDictBase) -> Tensor | None:
        """Which values count, ``[*B, V]``: an agent's own while it lives, the team's always."""
        if self.critic.num_values == 1:
            return None
        alive = [self.alive(data, i) for i in range(self.spec.num_agents)]
        if all(a is None for a in alive):
            return None
        every = torch.ones(*data.batch_size, 1, dtype=torch.bool, device=data.device)
        return torch.cat([every if a is None else a for a in alive], dim=-1)

    # ------------------------------------------------------------------ TorchRL's contract
    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Everybody's objective at once, and the critic's, for use in other TorchRL loops.

        The sequential update, in which each agent's advantage is weighted by its predecessors' new
        ratios, is ``hetmarl.engines.OnPolicyEngine``'s.

        Args:
            tensordict: batch ``[N]`` of a rollout that ``prepare`` has seen.

        Returns:
            ``loss_objective`` (sum over agents) and ``loss_critic``, scalars, and detached
            ``entropy`` (of the joint policy, in nats) and ``kl`` (mean over agents).
        """
        losses, entropies, kls = [], [], []
        for agent in range(self.spec.num_agents):
            objective = self.objective([self.change(agent, self.read(tensordict, agent))])
            losses.append(objective.loss)
            entropies.append(objective.entropy.detach())
            kls.append(self.mean_kl(objective.change).detach())
        return TensorDict(
            {
                "loss_objective": torch.stack(losses).sum(),
                "loss_critic": self.value(tensordict),
                "entropy": torch.stack(entropies).sum(),
                "kl": torch.stack(kls).mean(),
            }
        )
