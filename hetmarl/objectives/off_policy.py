"""What off-policy losses share: a joint critic of n-step targets, and actors that climb it."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor, nn
from torchrl.objectives import LossModule

from hetmarl.networks.actors import Sample
from hetmarl.networks.body import HIDDEN, read_memory
from hetmarl.networks.critics import JointQ
from hetmarl.networks.distributions import NoiseLike
from hetmarl.networks.packed import around_one, as_one
from hetmarl.networks.policy import TeamPolicy
from hetmarl.objectives.masked import masked_mean
from hetmarl.objectives.reduce import Reduce, identity


class JointQLoss(LossModule):
    """A team that learns from replay: L_Q for the joint critic, L_π for one agent at a time.

    Critic, on n-step transitions that took k steps, over its one or two values:

        y  = R + (1 − terminated)·γᵏ·V̄(s′)
        L_Q = Σ_j mean (Q_j(s, a) − y)²

    A subclass says what the value V̄ of the next state is and what an actor descends. Unlike
    TorchRL's losses the critic sees the joint action, and an agent's loss takes the others' actions
    as arguments, so that an engine can go through the agents in order. The networks stay ordinary
    modules: the loss is not functional and has no vmap.

    Reads (names by ``set_keys``): ``(group, observation) [*B, n_g, O_g]``, ``(group, action)`` in
    the environment's layout, optional ``(group, action_mask) [*B, n_g, K_g]``, ``(group, alive)
    [*B, n_g, 1]`` and ``state [*B, S]``, the same under ``"next"`` for the bootstrap (all but the
    actions), ``("next", reward) [*B, 1]`` the n-step return, ``("next", terminated) [*B, 1]``,
    ``steps_to_next_obs [*B, 1]`` or ``[*B]``, the steps k taken (missing: 1), and optional
    ``priority_weight [*B, 1]``, a weight of each transition in L_Q. Written by
    ``hetmarl.data.Replay``, and by TorchRL's ``MultiStep``.

    Actors with a memory learn from slices in time, ``*B`` = ``B, T``, of
    ``Replay.sample_sequences``: they run over a slice from ``("hidden", <agent>) [B, T, H]`` at its
    start, anew wherever ``is_init [B, T, 1]``; the action after a transition is chosen with what
    the networks of the target remember there. Steps with ``valid [B, T, 1]`` False do not count.
    ``burn_in`` brings the memories up to date first.

    Args:
        policy: the team's actors.
        critic: the joint critic; its target copy is made here.
        gamma: discount γ per step.
        reduce: averages a tensor over the processes in place (see ``hetmarl.objectives.reduce``).
    """

    @dataclass
    class _AcceptedKeys:
        observation: str = "observation"
        action: str = "action"
        action_mask: str = "action_mask"
        alive: str = "alive"
        state: str = "state"
        reward: str = "reward"
        terminated: str = "terminated"
        steps: str = "steps_to_next_obs"
        priority_weight: str = "priority_weight"
        td_error: str = "td_error"

    tensor_keys: _AcceptedKeys

    def __init__(
        self,
        policy: TeamPolicy,
        critic: JointQ,
        *,
        gamma: float = 0.99,
        reduce: Reduce = identity,
    ) -> None:
        super().__init__()
        self.spec = policy.team
        self.policy = policy
        self.critic = critic
        self.target_critic = copy.deepcopy(critic).requires_grad_(False)
        self.gamma = gamma
        self.reduce = reduce

    @property
    def functional(self) -> bool:
        """Whether parameters are held apart from the modules: here they are not."""
        return False

    @property
    def in_keys(self) -> list[Any]:
        keys, groups = self.tensor_keys, self.spec.groups
        root = [(g, k) for g in groups for k in (keys.observation, keys.action)]
        following = [("next", g, keys.observation) for g in groups]
        state = [keys.state, ("next", keys.state)] if self.spec.state_dim is not None else []
        return [*root, *following, *state, ("next", keys.reward), ("next", keys.terminated)]

    @property
    def out_keys(self) -> list[str]:
        return ["loss_qvalue", "loss_actor", "q_mean"]

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """No value estimator: the n-step target is this class's own."""

    @property
    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Networks that follow others slowly: (target, followed)."""
        return [(self.target_critic, self.critic)]

    # ------------------------------------------------------------------ reading the batch
    def state(self, data: TensorDictBase) -> Tensor:
        """What the critic sees, ``[*B, S]``."""
        keys = self.tensor_keys
        return self.spec.critic_input(data, state=keys.state, observation=keys.observation)

    def joint_action(self, data: TensorDictBase) -> list[Tensor]:
        """The replayed actions as the critic reads them, in team order, each ``[*B, W_i]``."""
        actions = self.spec.joint_action(data, key=self.tensor_keys.action)
        pairs = zip(self.spec.agents, actions, strict=True)
        return [agent.action.encode(action) for agent, action in pairs]

    def alive(self, data: TensorDictBase, agent: int) -> Tensor | None:
        """``[*B, 1]``, None where nobody dies."""
        return self.spec.alive(data, agent, key=self.tensor_keys.alive)

    def seen(
        self, data: TensorDictBase, agent: int, memory_of: str = HIDDEN
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """What the agent's network reads: observation ``[*B, O]``, and legal choices.

        And where it has a memory, where that goes on (``Memory``).
        """
        observation = self.spec.observation(data, agent, key=self.tensor_keys.observation)
        mask = self.action_mask(data, agent)
        if agent not in self.policy.recurrent:
            return observation, (mask,)
        root = memory_of if memory_of in data.keys() else HIDDEN  # the stored ones, so far
        return observation, (mask, read_memory(data, self.spec.names[agent], root))

    def taken(self, data: TensorDictBase) -> Tensor:
        """The steps k of each transition, ``[*B, 1]``."""
        steps = data.get(self.tensor_keys.steps, None)
        if steps is None:
            return torch.ones(*data.batch_size, 1, dtype=torch.long, device=data.device)
        return steps.view(*data.batch_size, 1)  # TorchRL's MultiStep has [*B]

    def action_mask(self, data: TensorDictBase, agent: int) -> Tensor | None:
        """The agent's legal choices ``[*B, ΣK_d]``, None where all are."""
        return self.spec.action_mask(data, agent, key=self.tensor_keys.action_mask)

    def sample(
        self, data: TensorDictBase, agent: int, noise: NoiseLike = torch.randn_like
    ) -> Sample:
        """The agent's action ``[*B, W_i]`` by its policy as it is now, with gradient."""
        return self.samples(data, [agent], noise)[0]

    def samples(
        self, data: TensorDictBase, agents: Sequence[int], noise: NoiseLike = torch.randn_like
    ) -> list[Sample]:
        """``sample`` of each of ``agents``: those who share a network in one pass through it.

        Noise is drawn agent by agent, for those who share one after another.
        """

        def draw(actor: Any, observation: Tensor, noise: NoiseLike, *beside: Any) -> Sample:
            sample: Sample = actor.sample(observation, noise, *beside)
            return sample

        return self.ask(self.policy.actors, data, agents, draw, noise)

    def ask(
        self,
        actors: nn.ModuleList,
        data: TensorDictBase,
        agents: Sequence[int],
        what: Callable[..., Sample],
        noise: NoiseLike,
        memory_of: str = HIDDEN,
    ) -> list[Sample]:
        """What each of ``agents`` does; those of a group around the same networks in one pass.

        Args:
            actors: the team's, or their targets.
            data: ``[*B]``.
            agents: positions in the team.
            what: ``what(actor, observation, noise, *beside)``, ``beside`` as in ``seen``; several
                are asked as one actor, with an axis of agents in front.
            noise: drawn agent by agent.
            memory_of: see ``seen``.
        """
        found: dict[int, Sample] = {}
        for members in self._alike(actors, agents):
            seen = [self.seen(data, i, memory_of) for i in members]
            if len(members) == 1:
                observation, beside = seen[0]
                found[members[0]] = what(actors[members[0]], observation, noise, *beside)
                continue
            masks = [mask for _, (mask,) in seen if mask is not None]
            action, log_prob = what(
                as_one([actors[i] for i in members], data.batch_dims),
                torch.stack([observation for observation, _ in seen]),
                lambda like: torch.stack([noise(x) for x in like]),
                torch.stack(masks) if masks else None,
            )
            each = [None] * len(members) if log_prob is None else log_prob.unbind()
            found.update(zip(members, map(Sample, action.unbind(), each), strict=True))
        return [found[i] for i in agents]

    def _alike(self, actors: nn.ModuleList, agents: Sequence[int]) -> list[list[int]]:
        return around_one(actors, self.spec, agents)

    # ------------------------------------------------------------------ memories
    @property
    def acting_next(self) -> tuple[str, nn.ModuleList]:
        """The networks that choose the action after a transition, and where their memories are."""
        return HIDDEN, self.policy.actors

    @torch.no_grad()
    def burn_in(self, data: TensorDictBase, steps: int) -> TensorDictBase:
        """Slices ``[B, steps + T]`` without their first steps, ``[B, T]``.

        The memories that they begin with are those that the present networks have after the steps
        left out; the stored ones are of the networks that acted (R2D2; Kapturowski et al. 2019).
        """
        before, rest = data[:, :steps], data[:, steps:]
        for where, actors in dict([(HIDDEN, self.policy.actors), self.acting_next]).items():
            for agent in self.policy.recurrent:
                name = self.spec.names[agent]
                hidden = data.get((HIDDEN, name))[:, 0]
                if steps:
                    observation, (_, memory) = self.seen(before, agent)
                    _, hidden = actors[agent].output(observation, memory)  # type: ignore[operator]
                rest.set((where, name), hidden.unsqueeze(1).expand(*rest.shape, -1))
        return rest

    @torch.no_grad()
    def following(self, data: TensorDictBase) -> TensorDictBase:
        """``"next"``, of slices in time ``[B, T]`` as ``[B·T]``, each with its memories."""
        following = data.get("next")
        if not self.policy.recurrent:
            return following
        where, actors = self.acting_next
        following = following.flatten(0, 1)
        step = torch.arange(data.shape[1], device=data.device)[:, None]
        last = step + self.taken(data) - 1  # of each transition [B, T, 1]
        for agent in self.policy.recurrent:
            observation, beside = self.seen(data, agent, where)
            states = actors[agent].states(observation, beside[1])  # type: ignore[operator]
            after = states.gather(1, last.expand(*last.shape[:2], states.shape[-1]))
            following.set((where, self.spec.names[agent]), after.flatten(0, 1))
        return following

    # ------------------------------------------------------------------ the equations
    @abstractmethod
    def next_value(self, following: TensorDictBase, noise: NoiseLike) -> Tensor:
        """V̄ of the next states, ``[*B, 1]``; ``following`` is the batch's ``"next"``."""

    @abstractmethod
    def actor(
        self,
        data: TensorDictBase,
        agent: int,
        joint_action: Sequence[Tensor],
        log_prob: Tensor | None = None,
        value: Tensor | None = None,
    ) -> Tensor:
        """L_π of one agent (scalar); its own entry of ``joint_action`` carries the gradient.

        Args:
            data: the batch ``[*B]``.
            agent: whose.
            joint_action: in team order, each ``[*B, W_j]``.
            log_prob: of its own action, ``[*B, 1]``.
            value: ``climbed(data, joint_action)`` with its gradient, where that is known.
        """

    def climbs(self, agent: int) -> bool:
        """Whether the agent's loss follows the gradient of ``climbed`` by its action."""
        return False

    def climbed(self, data: TensorDictBase, joint_action: Sequence[Tensor]) -> Tensor:
        """The value that actors climb, ``[*B, 1]``: the least of the critic's."""
        return least(self.critic(self.state(data), joint_action))

    def actors(
        self,
        data: TensorDictBase,
        agents: Sequence[int],
        joint_action: Sequence[Tensor],
        samples: Sequence[Sample],
        *,
        present: bool,
    ) -> list[Tensor]:
        """L_π of each of ``agents`` (scalars), the other actions as given.

        Where they climb the critic their sum descends the loss of their joint policy: the gradient
        by one action is the same whether or not the others carry theirs.

        Args:
            data: the batch ``[*B]``.
            agents: positions in the team.
            joint_action: in team order, each ``[*B, W_j]``.
            samples: the team's, with gradient.
            present: ``joint_action`` holds the samples of ``agents``, so that one pass of the
                critic gives all gradients.
        """
        climbing = [i for i in agents if self.climbs(i)] if present else []
        values: dict[int, Tensor] = {}
        if len(climbing) > 1:
            at = {i: samples[i].action.detach().requires_grad_() for i in climbing}
            q = self.climbed(data, [at.get(i, action) for i, action in enumerate(joint_action)])
            slopes = torch.autograd.grad(q.sum(), list(at.values()))
            for (i, action), slope in zip(at.items(), slopes, strict=True):
                step = samples[i].action - action.detach()  # 0, with gradient
                values[i] = q.detach() + (slope * step).sum(-1, keepdim=True)
        losses = []
        for i in agents:
            joint = [*joint_action]
            joint[i] = samples[i].action
            known = {"value": values[i]} if i in values else {}
            losses.append(self.actor(data, i, joint, samples[i].log_prob, **known))
        return losses

    @torch.no_grad()
    def target(self, data: TensorDictBase, noise: NoiseLike = torch.randn_like) -> Tensor:
        """The n-step target y, ``[*B, 1]``."""
        keys, following = self.tensor_keys, data.get("next")
        value = self.next_value(self.following(data), noise).view(*data.batch_size, 1)
        discount = self.gamma ** self.taken(data).to(value.dtype)
        continues = (~following.get(keys.terminated)).to(value.dtype)
        return following.get(keys.reward) + continues * discount * value

    def qvalue(
        self, data: TensorDictBase, noise: NoiseLike = torch.randn_like
    ) -> tuple[Tensor, Tensor]:
        """L_Q (scalar), and the mean of all values (scalar, detached).

        Writes ``td_error [*B, 1]``, the mean of |Q_j − y|, to ``data``, as TorchRL's losses do for
        prioritised replay.
        """
        y = self.target(data, noise)
        values = self.critic(self.state(data), self.joint_action(data))
        weight, valid = data.get(self.tensor_keys.priority_weight, None), data.get("valid", None)
        squares = [(value - y).square() for value in values]
        if weight is not None:
            squares = [weight * square for square in squares]
        loss = torch.stack([masked_mean(square, valid, self.reduce) for square in squares]).sum()
        stacked = torch.stack(values).detach()
        data.set(self.tensor_keys.td_error, (stacked - y).abs().mean(0))
        return loss, masked_mean(stacked.mean(0), valid, self.reduce)

    @torch.no_grad()
    def candidates(
        self, data: TensorDictBase, agent: int, joint_action: Sequence[Tensor], choices: Tensor
    ) -> Tensor:
        """Q(s, a⁻ⁱ, a) of each of an agent's choices a, the others' actions as given.

        Args:
            data: ``[*B]``.
            agent: whose choices; its own entry of ``joint_action`` does not count.
            joint_action: in team order, each ``[*B, W_j]``.
            choices: one-hot ``[C, W_i]``.

        Returns:
            ``[*B, C]``, the least of the critic's values.
        """
        state, critic = self.state(data), self.critic
        if type(critic).forward is JointQ.forward:
            return least(critic.candidates(state, joint_action, agent, choices))
        # a critic of somebody's own: every choice as a row of its own
        rows, count = state.shape[:-1].numel(), len(choices)
        repeated = [
            x.reshape(rows, -1).repeat_interleave(count, dim=0) for x in (state, *joint_action)
        ]
        repeated[1 + agent] = choices.repeat(rows, 1)
        values = least(critic(repeated[0], repeated[1:]))
        return values.reshape(*state.shape[:-1], count)

    def mean(self, value: Tensor, data: TensorDictBase, agent: int) -> Tensor:
        """Mean of ``value [*B, 1]`` over the samples in which the agent lives (scalar)."""
        alive, valid = self.alive(data, agent), data.get("valid", None)
        counts = valid if alive is None else alive if valid is None else alive & valid
        return masked_mean(value, counts, self.reduce)

    def actors_and_critic(self, data: TensorDictBase) -> tuple[TensorDict, list[Sample]]:
        """``loss_qvalue``, ``loss_actor`` summed over the agents, ``q_mean``; and the samples.

        Every actor's loss is against the others' current policies.
        """
        team = range(self.spec.num_agents)
        samples = self.samples(data, team)
        loss_q, q_mean = self.qvalue(data)
        actions = [sample.action.detach() for sample in samples]
        with frozen(self.critic):
            loss_actor = torch.stack(self.actors(data, team, actions, samples, present=True)).sum()
        losses = {"loss_qvalue": loss_q, "loss_actor": loss_actor, "q_mean": q_mean}
        return TensorDict(losses), samples

    # ------------------------------------------------------------------ TorchRL's contract
    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """All losses at once, every actor against the others' *current* policies.

        For use in other TorchRL loops. The sequential update, in which each agent sees its
        predecessors' new policies, is ``hetmarl.engines.OffPolicyEngine``'s.

        Args:
            tensordict: batch ``[*B]``, keys as in the class's description.

        Returns:
            Scalars ``loss_qvalue``, ``loss_actor`` (sum over agents), and detached ``q_mean``.
        """
        return self.actors_and_critic(tensordict)[0]


def least(values: Sequence[Tensor]) -> Tensor:
    """The smallest of a critic's values, each ``[*B, 1]``: guards against overestimation."""
    return reduce(torch.minimum, values)


def log_probs(samples: Sequence[Sample]) -> list[Tensor]:
    """Those of random policies' samples, each ``[*B, 1]``; deterministic ones have none."""
    return [sample.log_prob for sample in samples if sample.log_prob is not None]


class frozen:
    """Computes no gradient into a module's parameters; gradients flow through it to its inputs."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]

    def __enter__(self) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(True)
