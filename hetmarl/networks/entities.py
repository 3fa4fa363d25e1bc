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

from hetmarl.networks.body import Body, Memory, hidden_layers, output_layer
from hetmarl.networks.config import OnPolicyNetworkConfig
from hetmarl.networks.network import Network
from hetmarl_envs.contract import AgentSpec
from hetmarl_envs.entities import Entities
from hetmarl_envs.errors import ConfigError


class EntityEncoder(nn.Module):
    """A vector ``[*B, O]`` to what hidden layers read ``[*B, F]``, and to its entities' features.

    Args:
        size: O.
        blocks: which of its numbers speak of entities.
        config: sizes; entities have half as many features E as the first hidden layer.
    """

    plain: Tensor

    def __init__(
        self, size: int, blocks: Sequence[Entities], config: OnPolicyNetworkConfig
    ) -> None:
        super().__init__()
        taken = {i for block in blocks for i in range(block.start, block.stop)}
        plain = torch.tensor([i for i in range(size) if i not in taken], dtype=torch.long)
        self.register_buffer("plain", plain, persistent=False)
        self.blocks = tuple(blocks)
        self.features = max(config.hidden_sizes[0] // 2, 1)
        widths = [block.width for block in blocks]
        self.layers = nn.ModuleList(_one_layer(width, self.features, config) for width in widths)
        self.out_features = len(plain) + 2 * self.features * len(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What hidden layers read, and the features of each block's entities ``[*B, n, E]``."""
        things = []
        for block, layer in zip(self.blocks, self.layers, strict=True):
            rows = x[..., block.start : block.stop].unflatten(-1, (block.count, block.width))
            things.append(layer(rows))
        pooled = [pool for thing in things for pool in (thing.mean(-2), thing.amax(-2))]
        return torch.cat([x[..., self.plain], *pooled], dim=-1), things


class EntityScores(nn.Module):
    """How much an agent with features ``[*B, F]`` wants each of the entities ``[*B, n, E]``.

    w·h(A·entity + B·features), h the activation, and the norm if there is one.
    """

    def __init__(self, features: int, entities: int, config: OnPolicyNetworkConfig, gain: float):
        super().__init__()
        self.of_entity, *after = _one_layer(entities, entities, config)
        self.of_agent = _one_layer(features, entities, config)[0]
        self.after = nn.Sequential(*after)
        self.score = output_layer(entities, 1, config, gain)

    def forward(self, features: Tensor, entities: Tensor) -> Tensor:
        """Scores ``[*B, n]``."""
        both = self.of_entity(entities) + self.of_agent(features).unsqueeze(-2)
        return self.score(self.after(both)).squeeze(-1)


class EntityNetwork(Network):
    """Observation ``[*B, O]`` to outputs ``[*B, P]``, those about entities by what each of them is.

    An output is the sum of the scores of all that it is about: to attack the enemy or, for a
    medivac, to heal the friend of that number.

    Args:
        encoder: of the observation.
        body: on what the encoder puts out.
        head: the outputs that are about no entity.
        scores: of the blocks with choices, in their order.
        agent: whose; its blocks say which choice is about which entity.
        suffix: constants beside the observation: which agent it is, where several share.
        outputs: P.
    """

    places: Tensor

    def __init__(
        self,
        encoder: EntityEncoder,
        body: Body,
        head: nn.Linear,
        scores: nn.ModuleList,
        agent: AgentSpec,
        suffix: Tensor,
        outputs: int,
    ) -> None:
        super().__init__(body, head, suffix, outputs)
        self.encoder, self.scores = encoder, scores
        self.scored = [k for k, b in enumerate(agent.entities) if len(scores) and b.choices]
        about = [choice for k in self.scored for choice in agent.entities[k].choices]
        # those that are about nothing come first
        places = [i for i in range(outputs) if i not in about] + about
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(
        self, observation: Tensor, memory: Memory | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs, and the recurrent state after the last step ``[N, H]`` if there is one."""
        read, things = self.encoder(observation.to(self.head.weight))
        features, hidden = self.body(read, memory, self.suffix)
        pairs = zip(self.scores, self.scored, strict=True)
        scores = [score(features, things[k]) for score, k in pairs]
        found = torch.cat([self.head(features), *scores], dim=-1).to(self.dtype)
        zero = found.new_zeros(*found.shape[:-1], self.outputs)
        return zero.scatter_add(-1, self.places.expand_as(found), found), hidden


def make_entity_networks(
    agents: Sequence[AgentSpec],
    config: OnPolicyNetworkConfig,
    outputs: Sequence[int],
    gain: float,
    last_activation: str | None = None,
) -> list[Network]:
    """As ``make_networks``, for agents whose observations list entities in the same blocks.

    Raises:
        ConfigError: there are no entities, or agents that share see other ones.
    """
    first, width = agents[0], outputs[0]
    if not first.entities or any(_seen(agent) != _seen(first) for agent in agents):
        seen = "; ".join(f"{agent.name}: {_seen(agent)}" for agent in agents)
        raise ConfigError(
            f"network.entities=true: expected observations that list entities, in the same way for "
            f"those who share parameters, given (name, start, count, width) {seen}. Environments "
            "say where by an attribute 'entities', as those of smacv2/… and smax/… do."
        )
    encoder = EntityEncoder(first.observation_shape[0], first.entities, config)
    ids = torch.eye(len(agents)) if config.agent_id and len(agents) > 1 else torch.zeros(1, 0)
    body = Body((encoder.out_features,), config, last_activation, extra=ids.shape[1])
    acts = first.action.kind == "discrete" and width == first.action.width
    chosen = [block.choices for block in first.entities if acts and block.choices]
    about = {choice for choices in chosen for choice in choices}
    head = output_layer(body.out_features, width - len(about), config, gain)
    scores = nn.ModuleList(
        EntityScores(body.out_features, encoder.features, config, gain) for _ in chosen
    )
    own = ids.expand(len(agents), -1)
    return [
        EntityNetwork(encoder, body, head, scores, agent, suffix, width)
        for agent, suffix in zip(agents, own, strict=True)
    ]


def _seen(agent: AgentSpec) -> list[tuple[str, int, int, int]]:
    return [(block.name, block.start, block.count, block.width) for block in agent.entities]


def _one_layer(inputs: int, size: int, config: OnPolicyNetworkConfig) -> nn.Sequential:
    """Linear, activation, norm, without a norm of what is read: how near and how strong counts."""
    layers = list(hidden_layers(inputs, replace(config, hidden_sizes=[size], agents={}, critic={})))
    return nn.Sequential(*layers[1:] if config.layer_norm else layers)
