"""A team's policy for acting in few environments: equal agents' networks as one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn import functional as F

from hetmarl.networks.actors import ChoiceActor, GaussianActor, GumbelActor, SquashedGaussianActor
from hetmarl.networks.body import Body
from hetmarl.networks.config import ACTIVATIONS
from hetmarl.networks.deterministic import DeterministicActor, DeterministicChoiceActor
from hetmarl.networks.distributions import NoiseLike
from hetmarl.networks.linear import Linear
from hetmarl.networks.mlp import MLP
from hetmarl.networks.network import Network
from hetmarl.networks.off_policy import OffPolicyActor
from hetmarl.networks.policy import TeamPolicy
from hetmarl_envs.contract import AgentSpec, TeamSpec

PACKED = (
    *(ChoiceActor, GaussianActor, GumbelActor, SquashedGaussianActor),
    *(DeterministicActor, DeterministicChoiceActor),
)
"""Actors whose own tensors may have axes in front."""

MOST_ENVS = 256
"""On a CPU; with more, a product of one agent keeps it as busy (``docs/explanation/speed.md``)."""


def for_acting(policy: TeamPolicy, num_envs: int) -> TeamPolicy | PackedPolicy:
    """The faster form of ``policy`` for steps of ``num_envs`` environments.

    A snapshot: what is learned later it does not know. The choice follows from the configuration
    alone, because both forms' actions differ in the last bits and a resumed run must not.
    """
    pays = num_envs <= MOST_ENVS or any(p.device.type != "cpu" for p in policy.parameters())
    if type(policy) is not TeamPolicy or not pays:
        return policy
    packed = PackedPolicy(policy)
    return packed if packed.packs else policy


class PackedPolicy:
    """Acts as a ``TeamPolicy`` does, with copies of its parameters, stacked by agents.

    Agents are packed together whose actors are of the same kind and, but for what they observe, of
    the same sizes: each of their layers is one batched product. Others of one group that share
    their network go through it in one pass. Those with a memory or with modules of their own, and
    whoever is left, act one by one, as in the ``TeamPolicy``.
    For equal noise the actions equal the ``TeamPolicy``'s up to rounding; it is asked for once for
    all agents of a pack, ``[n, N, A]``. Hooks on the actors are not called.

    Args:
        policy: whose parameters are copied as they are now.
    """

    @torch.no_grad()
    def __init__(self, policy: TeamPolicy) -> None:
        self.policy = policy
        alike: dict[Any, list[int]] = {}
        for i, (actor, agent) in enumerate(zip(policy.actors, policy.team.agents, strict=True)):
            kind = _kind(actor, agent)
            if kind is not None:
                alike.setdefault(kind, []).append(i)
        sets = [members for members in alike.values() if len(members) > 1]
        left = sorted(set(range(policy.team.num_agents)).difference(*sets))
        by_network = around_one(policy.actors, policy.team, left)
        self.packs = [_Pack(policy, members) for members in sets]
        self.packs += [_Shared(policy, members) for members in by_network if len(members) > 1]
        self.alone = [members[0] for members in by_network if len(members) == 1]
        """Positions of the agents that are in no pack."""

    @torch.no_grad()
    def __call__(self, data: TensorDictBase) -> TensorDictBase:
        """As ``TeamPolicy.forward``, for ``data [N]``."""
        samples = {i: self.policy.decide(data, i) for i in self.alone}
        observations, masks = self._read(data, "observation"), self._read(data, "action_mask")
        for pack in self.packs:
            samples.update(pack(observations, masks, self.policy.explores()))
        return self.policy.write(data, [samples[i] for i in range(len(samples))])

    def _read(self, data: TensorDictBase, key: str) -> dict[int, Tensor]:
        """What stands under ``(group, key)``, by the agents' positions."""
        found: dict[int, Tensor] = {}
        for group, members in self.policy.team.groups.items():
            stored = data.get((group, key), None)
            if stored is not None:
                found.update(zip(members, stored.unbind(data.batch_dims), strict=True))
        return found


class _Pack:
    """Several agents as one actor, whose tensors have an axis of agents in front."""

    def __init__(self, policy: TeamPolicy, members: Sequence[int]) -> None:
        agents = policy.team.agents
        blocks = {i: _blocks(policy.actors[i].net) for i in members}
        suffixes = {i: _suffix(policy.actors[i]) for i in members}
        by_size: dict[Any, list[int]] = {}
        for i in members:
            sizes = agents[i].observation_shape, suffixes[i].shape
            by_size.setdefault(sizes, []).append(i)
        self.first = [(same, _Layer([blocks[i][0] for i in same])) for same in by_size.values()]
        """The first layer, once for every size of what it reads."""
        self.suffixes = [
            torch.stack([suffixes[i] for i in same]).unsqueeze(1) for same, _ in self.first
        ]
        """Behind the observations of each, ``[n, 1, X]``."""
        self.members = [i for same, _ in self.first for i in same]
        layers = zip(*(blocks[i][1:] for i in self.members), strict=True)
        actors = [policy.actors[i] for i in self.members]
        self.actor = as_one(actors, suffix=False)
        self.actor.net = _Layers(*map(_Layer, layers))

    def __call__(
        self, observations: dict[int, Tensor], masks: dict[int, Tensor], noise: NoiseLike | None
    ) -> Iterable[tuple[int, Tensor]]:
        """Positions and actions ``[N, D]`` before clipping."""
        x = self._input(observations)
        action, _ = self.actor.act(x, noise, self._mask(masks, x))
        given = observations[self.members[0]]
        action = action.to(given.device, given.dtype if action.is_floating_point() else None)
        return zip(self.members, action.unbind(), strict=True)

    def _input(self, observations: dict[int, Tensor]) -> Tensor:
        """What the actor reads: the first layer's output ``[n, N, F]``."""
        seen = [torch.stack([observations[i] for i in same]) for same, _ in self.first]
        parts = []
        for x, suffix, (_, layer) in zip(seen, self.suffixes, self.first, strict=True):
            x = x.to(layer.weight)
            if suffix.shape[-1]:
                x = torch.cat([x, suffix.to(x).expand(*x.shape[:-1], -1)], dim=-1)
            parts.append(layer(x))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _mask(self, masks: dict[int, Tensor], x: Tensor) -> Tensor | None:
        """Legal choices ``[n, N, ΣK_d]``; of agents without a mask: all."""
        given = [masks[i] for i in self.members if i in masks]
        if not given or not hasattr(self.actor, "choices"):
            return None
        free = torch.ones_like(given[0])
        return torch.stack([masks.get(i, free) for i in self.members]).to(x.device, torch.bool)


class _Shared(_Pack):
    """Agents around one network as one actor."""

    def __init__(self, policy: TeamPolicy, members: Sequence[int]) -> None:
        self.members = list(members)
        actors: list[Any] = [policy.actors[i] for i in members]
        one = as_one(actors)
        if isinstance(one.net, Network):
            one.net = as_one([actor.net for actor in actors])
        self.actor = copy.deepcopy(one)

    def _input(self, observations: dict[int, Tensor]) -> Tensor:
        return torch.stack([observations[i] for i in self.members])


class _Block(NamedTuple):
    """A linear layer, the norm before and the activation after it."""

    norm: nn.LayerNorm | None
    linear: nn.Linear
    activation: nn.Module | None


class _Layer(nn.Module):
    """The same block of n agents: ``[n, N, inputs]`` to ``[n, N, outputs]``."""

    def __init__(self, blocks: Sequence[_Block]) -> None:
        super().__init__()
        weight = torch.stack([block.linear.weight for block in blocks])
        bias = torch.stack([block.linear.bias for block in blocks]).unsqueeze(1)
        norms = [block.norm for block in blocks if block.norm is not None]
        self.epsilon = norms[0].eps if norms else None
        if norms:
            # W(γ·x + β) + b = (W·γ)x + (Wβ + b): so the norm's own weights cost nothing
            bias += torch.stack([norm.bias for norm in norms]).unsqueeze(1) @ weight.mT
            weight *= torch.stack([norm.weight for norm in norms]).unsqueeze(1)
        self.weight, self.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
        self.activation = blocks[0].activation

    def forward(self, x: Tensor) -> Tensor:
        if self.epsilon is not None:
            x = F.layer_norm(x, x.shape[-1:], eps=self.epsilon)
        x = torch.baddbmm(self.bias, x, self.weight.mT)
        return x if self.activation is None else self.activation(x)


class _Layers(nn.Sequential):
    """In place of an actor's ``net``; of a memory, where it is asked for one, there is none."""

    def forward(self, x: Tensor, *memory: None) -> Any:
        for layer in self:
            x = layer(x)
        return (x, None) if memory else x


def as_one(actors: Sequence[Any], batch_dims: int = 1, *, suffix: bool = True) -> Any:
    """Actors as one: the first, with everybody's own tensors ``[D]`` as ``[n, 1, …, 1, D]``.

    It reads observations ``[n, *B, O]`` through the first one's networks, which are not copied.

    Args:
        actors: of one class of ``PACKED``, without a memory, their own tensors of equal sizes.
        batch_dims: axes of ``*B``.
        suffix: it puts off-policy actors' constants behind what it reads; False: they are there.
    """
    first, one, ones = actors[0], copy.copy(actors[0]), [1] * batch_dims
    one._parameters, one._buffers, one._modules = {}, {}, dict(first._modules)
    for name, own in [*first.named_parameters(recurse=False), *first.named_buffers(recurse=False)]:
        if name == "suffix" and not suffix:
            one._buffers[name] = own.new_zeros(0)
            continue
        stacked = torch.stack([getattr(actor, name) for actor in actors])
        one._buffers[name] = stacked.view(len(actors), *ones, *own.shape)
    return one


def around_one(
    actors: Sequence[Any] | nn.ModuleList, spec: TeamSpec, agents: Iterable[int]
) -> list[list[int]]:
    """``agents`` by group and networks; those with a memory, or other actors, each alone.

    Those of a set can be asked ``as_one``.

    Args:
        actors: the team's, or their targets.
        spec: the team.
        agents: positions in it.
    """
    found: dict[Any, list[int]] = {}
    for i in agents:
        actor: Any = actors[i]
        place: Any = i
        if type(actor) in PACKED and not actor.hidden_size:
            holder = actor.net if isinstance(actor.net, Network) else actor
            parts = (id(part) for part in holder.children())
            place = (spec.agents[i].group, type(actor), *parts)
        found.setdefault(place, []).append(i)
    return list(found.values())


def _blocks(net: Any) -> list[_Block]:
    """A network as a sequence of linear layers; none: it is more than that."""
    layers: list[Any] = []
    if type(net) is MLP:
        layers = list(net)
    elif type(net) is Network and type(net.body) is Body:
        layers = [*net.body.layers, net.head] if net.body.memory is None else []
    blocks: list[_Block] = []
    norm = None
    for layer in layers:
        if type(layer) is nn.LayerNorm and norm is None and layer.bias is not None:
            norm = layer
        elif type(layer) is Linear and layer.bias is not None:
            blocks.append(_Block(norm, layer, None))
            norm = None
        elif type(layer) in ACTIVATIONS.values() and blocks and norm is None:
            blocks[-1] = blocks[-1]._replace(activation=layer)
        else:
            return []
    return blocks


def _suffix(actor: Any) -> Tensor:
    """Constants behind the observation ``[X]``, where networks are shared."""
    return actor.suffix if isinstance(actor, OffPolicyActor) else actor.net.suffix


def _kind(actor: Any, agent: AgentSpec) -> Any:
    """What the agents of a pack have in common; None: it is in none."""
    blocks = _blocks(actor.net) if type(actor) in PACKED else []
    if not blocks or len(agent.observation_shape) != 1:
        return None
    outputs = (actor if isinstance(actor, OffPolicyActor) else actor.net).outputs
    if blocks[-1].linear.out_features != outputs:  # the others are of those who share the network
        return None
    sizes = [(b.linear.out_features, b.norm and b.norm.eps, str(b.activation)) for b in blocks]
    own = [value for value in vars(actor).values() if isinstance(value, float)]  # such as std_scale
    dtype, action = blocks[0].linear.weight.dtype, agent.action
    return type(actor), dtype, action.width, action.choices, tuple(sizes), tuple(own)
