"""One agent's network, whose parameters may be those of others too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hetmarl.networks.body import Body, Memory, output_layer
from hetmarl.networks.config import OnPolicyNetworkConfig
from hetmarl_envs.contract import AgentSpec
from hetmarl_envs.errors import ConfigError


class Network(nn.Module):
    """Observation ``[*B, *O]`` to outputs ``[*B, P]``.

    Args:
        body: reads the observation and ``suffix``.
        head: on the body's features, with P outputs or more.
        suffix: constants beside the observation ``[X]``: zeros up to the longest observation of
            those who share the body, then which of them it is.
        outputs: P; the first of the head's are taken.
    """

    suffix: Tensor

    def __init__(self, body: Body, head: nn.Linear, suffix: Tensor, outputs: int) -> None:
        super().__init__()
        self.body, self.head, self.outputs = body, head, outputs
        self.register_buffer("suffix", suffix, persistent=False)

    @property
    def hidden_size(self) -> int:
        """Numbers H of the recurrent state; 0 without one."""
        return self.body.hidden_size

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights, and of what it puts out, under autocast too."""
        return self.head.weight.dtype

    def forward(
        self, observation: Tensor, memory: Memory | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs, and the recurrent state after the last step ``[N, H]`` if there is one.

        On the observation's device and in its dtype or not: it is moved to the weights'.
        """
        features, hidden = self.body(observation.to(self.head.weight), memory, self.suffix)
        return self.head(features).to(self.dtype)[..., : self.outputs], hidden


def make_networks(
    agents: Sequence[AgentSpec],
    config: OnPolicyNetworkConfig,
    outputs: Sequence[int],
    gain: float,
    last_activation: str | None = None,
) -> list[Network]:
    """Networks of agents that share all their parameters; of a single one: simply its network.

    Where the agents' spaces differ, observations are filled up with zeros and surplus outputs
    ignored, here and nowhere in the data.

    Args:
        agents: who share.
        config: sizes, and whether each reads which of them it is.
        outputs: P of each agent.
        gain: scale of the head's orthogonal weights.
        last_activation: after the last hidden layer; None: as elsewhere.

    Raises:
        ConfigError: observations of unequal shapes that are not all vectors.
    """
    if config.entities:
        from hetmarl.networks.entities import make_entity_networks  # whose networks are these too

        return make_entity_networks(agents, config, outputs, gain, last_activation)
    shapes = {agent.observation_shape for agent in agents}
    if len(shapes) > 1 and any(len(shape) != 1 for shape in shapes):
        raise ConfigError(
            f"network.sharing: {', '.join(a.name for a in agents)} observe "
            f"{', '.join(str(list(shape)) for shape in sorted(shapes))}. Expected equal shapes, or "
            "vectors of any lengths."
        )
    longest = max(shapes, key=lambda shape: torch.Size(shape).numel())
    ids = agent_ids(len(agents), config)
    body = Body(longest, config, last_activation, extra=ids.shape[1])
    head = output_layer(body.out_features, max(outputs), config, gain)
    networks = []
    for agent, own, width in zip(agents, ids, outputs, strict=True):
        fill = torch.Size(longest).numel() - torch.Size(agent.observation_shape).numel()
        suffix = torch.cat([torch.zeros(fill), own])
        networks.append(Network(body, head, suffix, width))
    return networks


def agent_ids(count: int, config: OnPolicyNetworkConfig) -> Tensor:
    """What tells each of those who share a network which of them it works for, ``[count, X]``."""
    return torch.eye(count) if config.agent_id and count > 1 else torch.zeros(count, 0)
