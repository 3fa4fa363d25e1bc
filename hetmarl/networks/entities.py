"""Networks that take things of a kind alike, wherever in the observation they stand.

Battles list the units in sight in a fixed order that means nothing, and choices that are each about
one of them. Here all units of a block go through the same layer, the mean and the maximum over them
are read by the hidden layers, and a choice about one of them is scored by what that one is: to list
the enemies in another order changes the order of the choices and nothing else (permutation
invariance and equivariance; Hao et al. 2023, arXiv 2203.05285).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hetmarl.networks.body import Body, Memory, hidden_layers, make_orthogonal, output_layer
from hetmarl.networks.config import ACTIVATIONS, NetworkConfig, OnPolicyNetworkConfig
from hetmarl.networks.linear import Linear
from hetmarl.networks.mlp import mlp
from hetmarl.networks.network import Network, agent_ids
from hetmarl_envs.contract import AgentSpec
from hetmarl_envs.entities import Entities
from hetmarl_envs.errors import ConfigError


class EntityEncoder(nn.Module):
    """A vector ``[*B, O]`` to what hidden layers read ``[*B, F]``, and to its entities' features.

    Args:
        inputs: O.
        blocks: which of its numbers speak of entities.
        config: sizes; entities have E = ``entity_size`` features.
    """

    plain: Tensor

    def __init__(self, inputs: int, blocks: Sequence[Entities], config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("plain", unlisted(inputs, blocks), persistent=False)
        self.blocks = tuple(blocks)
        size = config.entity_size
        self.layers = nn.ModuleList(one_layer(b.width, size, config) for b in blocks)
        self.out_features = len(self.plain) + 2 * size * len(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What hidden layers read, and the features of each block's entities ``[*B, n, E]``."""
        pairs = zip(self.layers, self.blocks, strict=True)
        things = [layer(block.rows(x)) for layer, block in pairs]
        return torch.cat([x[..., self.plain], *map(pooled, things)], dim=-1), things


class EntityScores(nn.Module):
    """How much an agent with features f wants each entity e: w·h(A·e + B·f).

    h is the activation, and the norm if there is one.
    """

    def __init__(self, features: int, config: NetworkConfig, gain: float) -> None:
        super().__init__()
        size = config.entity_size
        self.of_entity, *after = one_layer(size, size, config)
        self.of_agent = one_layer(features, size, config)[0]
        self.after = nn.Sequential(*after)
        if isinstance(config, OnPolicyNetworkConfig):
            self.score = output_layer(size, 1, config, gain)
        else:
            self.score = Linear(size, 1)

    def forward(self, features: Tensor, things: Tensor) -> Tensor:
        """``[*B, n]`` from the agent's features ``[*B, F]`` and the entities' ``[*B, n, E]``."""
        both = self.of_entity(things) + self.of_agent(features).unsqueeze(-2)
        return self.score(self.after(both)).squeeze(-1)


class EntityHead(Linear):
    """A network's last layer: outputs about nothing, then those about each block's entities.

    Args:
        features: F of the agent.
        outputs: P, the number of all of the agent's choices.
        blocks: the encoder's; those with choices are scored.
        config: sizes.
        gain: scale of orthogonal output weights.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        blocks: Sequence[Entities],
        config: NetworkConfig,
        gain: float = 1.0,
    ) -> None:
        super().__init__(features, outputs - len(about(blocks)))
        if isinstance(config, OnPolicyNetworkConfig) and config.orthogonal:
            make_orthogonal(self, gain)
        self.scored = [k for k, block in enumerate(blocks) if block.choices]
        self.scores = nn.ModuleList(EntityScores(features, config, gain) for _ in self.scored)

    # not a plain layer's signature: a ``Network`` needs the weight, and reads this head's entities
    def forward(self, features: Tensor, things: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """``[*B, P′]`` from the agent's features ``[*B, F]`` and its entities' ``[*B, n, E]``."""
        pairs = zip(self.scores, self.scored, strict=True)
        found = [score(features, things[k]) for score, k in pairs]
        return torch.cat([super().forward(features), *found], dim=-1)


class EntityNetwork(Network):
    """Observation ``[*B, O]`` to outputs ``[*B, P]``, those about entities by what each of them is.

    Args:
        encoder: of the observation.
        body: on what the encoder puts out.
        head: an ``EntityHead``.
        places: which output each of the head's adds to, see ``places``.
        suffix: constants beside the observation: which agent it is, where several share.
        outputs: P.
    """

    places: Tensor

    def __init__(
        self,
        encoder: EntityEncoder,
        body: Body,
        head: EntityHead,
        places: Tensor,
        suffix: Tensor,
        outputs: int,
    ) -> None:
        super().__init__(body, head, suffix, outputs)
        self.encoder = encoder
        self.register_buffer("places", places, persistent=False)

    def forward(
        self, observation: Tensor, memory: Memory | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs, and the recurrent state after the last step ``[N, H]`` if there is one."""
        read, things = self.encoder(observation.to(self.head.weight))
        features, hidden = self.body(read, memory, self.suffix)
        return put(self.head(features, things).to(self.dtype), self.places, self.outputs), hidden


class EntityMLP(nn.Module):
    """Observation and constants ``[*B, O + X]`` to an ``EntityHead``'s outputs, off policy."""

    def __init__(
        self, inputs: int, outputs: int, config: NetworkConfig, blocks: Sequence[Entities]
    ) -> None:
        super().__init__()
        *before, width = config.hidden_sizes
        last = ACTIVATIONS[config.actor_last_activation or config.activation]()
        self.encoder = EntityEncoder(inputs, blocks, config)
        net = mlp(self.encoder.out_features, width, before, config.activation)
        self.layers = nn.Sequential(net, last)
        self.head = EntityHead(width, outputs, blocks, config)

    def forward(self, x: Tensor) -> Tensor:
        read, things = self.encoder(x)
        found: Tensor = self.head(self.layers(read), things)
        return found


# ---------------------------------------------------------------------- agents
def listed(agents: Sequence[AgentSpec], config: NetworkConfig) -> tuple[Entities, ...]:
    """The blocks that networks of ``agents``, who share them, read as entities; none unless asked.

    Raises:
        ConfigError: there are none, or they are not the same for all.
    """
    if not config.entities:
        return ()
    first = agents[0]
    if not first.entities or any(_layout(agent) != _layout(first) for agent in agents):
        seen = "; ".join(f"{agent.name}: {_layout(agent)}" for agent in agents)
        raise ConfigError(
            "network.entities=true: expected observations that list entities, in the same way and "
            "with as many choices for those who share parameters, given (choices, how many of them "
            "are about entities, [name, start, count, width, whether choices are about them]) "
            f"{seen}. Environments say where by an attribute 'entities', as those of smacv2/… and "
            "smax/… do."
        )
    return first.entities


def places(blocks: Sequence[Entities], outputs: int) -> Tensor:
    """Which of an agent's ``outputs`` each output of an ``EntityHead`` adds to.

    Where a choice is about several, to attack the enemy or for a medivac to heal the friend of that
    number, it is the sum of their scores.
    """
    listed = about(blocks)
    each = [choice for block in blocks for choice in block.choices]
    return torch.tensor([i for i in range(outputs) if i not in listed] + each, dtype=torch.long)


def put(found: Tensor, places: Tensor, outputs: int) -> Tensor:
    """An ``EntityHead``'s outputs ``[*B, P′]`` in their places, ``[*B, outputs]``."""
    zero = found.new_zeros(*found.shape[:-1], outputs)
    return zero.scatter_add(-1, places.expand_as(found), found)


def make_entity_networks(
    agents: Sequence[AgentSpec],
    config: OnPolicyNetworkConfig,
    outputs: Sequence[int],
    gain: float,
    last_activation: str | None = None,
) -> list[Network]:
    """As ``make_networks``, for agents whose observations list entities in the same way.

    Raises:
        ConfigError: see ``listed``.
    """
    blocks, width = listed(agents, config), outputs[0]
    acts = width == agents[0].action.width  # and is not the value of IPPO's critic
    if not acts:
        blocks = tuple(replace(block, choices=()) for block in blocks)
    encoder = EntityEncoder(agents[0].observation_shape[0], blocks, config)
    ids = agent_ids(len(agents), config)
    body = Body((encoder.out_features,), config, last_activation, extra=ids.shape[1])
    head = EntityHead(body.out_features, width, blocks, config, gain)
    return [
        EntityNetwork(
            encoder, body, head, places(agent.entities if acts else (), width), suffix, width
        )
        for agent, suffix in zip(agents, ids, strict=True)
    ]


# ---------------------------------------------------------------------- parts
def one_layer(inputs: int, size: int, config: NetworkConfig) -> nn.Sequential:
    """Linear, activation, norm, without a norm of what is read: how near and how strong counts."""
    if not isinstance(config, OnPolicyNetworkConfig):
        return nn.Sequential(Linear(inputs, size), ACTIVATIONS[config.activation]())
    layers = list(hidden_layers(inputs, replace(config, hidden_sizes=[size], agents={}, critic={})))
    return nn.Sequential(*layers[1:] if config.layer_norm else layers)


def pooled(things: Tensor) -> Tensor:
    """Mean and maximum over things ``[*B, n, E]``, ``[*B, 2E]``."""
    return torch.cat([things.mean(-2), things.amax(-2)], dim=-1)


def unlisted(size: int, blocks: Sequence[Entities]) -> Tensor:
    """Places of the numbers of a vector of ``size`` that are in no block."""
    taken = {i for block in blocks for i in range(block.start, block.stop)}
    return torch.tensor([i for i in range(size) if i not in taken], dtype=torch.long)


def about(blocks: Sequence[Entities]) -> set[int]:
    """Choices that are about an entity."""
    return {choice for block in blocks for choice in block.choices}


def _layout(agent: AgentSpec) -> tuple[int, int, list[tuple[str, int, int, int, bool]]]:
    blocks = [(b.name, b.start, b.count, b.width, bool(b.choices)) for b in agent.entities]
    return agent.action.width, len(about(agent.entities)), blocks
