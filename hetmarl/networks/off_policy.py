"""What off-policy actors are made of: a plain network, or one with a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hetmarl.networks.body import Memory
from hetmarl.networks.config import ACTIVATIONS, NetworkConfig
from hetmarl.networks.entities import (
    EntityEncoder,
    EntityHead,
    EntityMLP,
    listed,
    places,
    put,
)
from hetmarl.networks.linear import Linear
from hetmarl.networks.mlp import mlp
from hetmarl.networks.recurrence import Recurrence
from hetmarl_envs.contract import AgentSpec
from hetmarl_envs.entities import Entities
from hetmarl_envs.errors import ConfigError


class RecurrentLayers(nn.Module):
    """Hidden layers, then a recurrent one.

    Args:
        inputs: width O of the input.
        sizes: of the hidden layers; none: the recurrent one reads the input.
        config: kind and size of the memory, and the activation.
        last_activation: after the last hidden layer, if another.
    """

    def __init__(
        self,
        inputs: int,
        sizes: Sequence[int],
        config: NetworkConfig,
        last_activation: str | None = None,
    ) -> None:
        super().__init__()
        self.layers: nn.Module = nn.Identity()
        if sizes:
            last = ACTIVATIONS[last_activation or config.activation]()
            *before, inputs_of_memory = sizes
            net = mlp(inputs, inputs_of_memory, before, config.activation)
            self.layers, inputs = nn.Sequential(net, last), inputs_of_memory
        self.memory = Recurrence(config.memory, inputs, config.memory_size, config.memory_layers)

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Tensor]:
        """Features ``[*B, size]`` and the state after the last step ``[N, H]``.

        Args:
            x: ``[N, O]``, one step, or ``[N, T, O]``.
            memory: where it goes on; None: from zero.
        """
        hidden, is_init = memory or self._zero(x)
        if x.ndim == 2:
            features = self.layers(x).unsqueeze(1)
            features, hidden = self.memory(features, hidden, is_init.unsqueeze(1))
            return features.squeeze(1), hidden
        return self.memory(self._through_time(x), hidden, is_init)

    def states(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """The state after every step, ``[N, T, H]``, of ``x [N, T, O]``."""
        return self.memory.states(self._through_time(x), *(memory or self._zero(x)))

    def _through_time(self, x: Tensor) -> Tensor:
        """The hidden layers' output: for matrices, which have the faster products."""
        return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _zero(self, x: Tensor) -> Memory:
        is_init = torch.zeros(*x.shape[:-1], 1, dtype=torch.bool, device=x.device)
        return Memory(x.new_zeros(len(x), self.memory.state_size), is_init)


class RecurrentMLP(RecurrentLayers):
    """``RecurrentLayers`` with a linear output."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        config: NetworkConfig,
        last_activation: str | None = None,
    ) -> None:
        super().__init__(inputs, config.hidden_sizes, config, last_activation)
        self.head = Linear(config.memory_size, outputs)

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Tensor]:
        """Outputs ``[*B, outputs]`` and the state after the last step ``[N, H]``."""
        features, hidden = super().forward(x, memory)
        return self.head(features), hidden


class RecurrentEntityMLP(RecurrentLayers):
    """``EntityMLP`` with a recurrent layer after the hidden ones."""

    def __init__(
        self, inputs: int, outputs: int, config: NetworkConfig, blocks: Sequence[Entities]
    ) -> None:
        encoder = EntityEncoder(inputs, blocks, config)
        last = config.actor_last_activation
        super().__init__(encoder.out_features, config.hidden_sizes, config, last)
        self.encoder = encoder
        self.head = EntityHead(config.memory_size, outputs, blocks, config)

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Tensor]:
        """Outputs ``[*B, P′]`` and the state after the last step ``[N, H]``."""
        read, things = self.encoder(x)
        features, hidden = super().forward(read, memory)
        return self.head(features, things), hidden

    def states(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        return super().states(self.encoder(x)[0], memory)


class OffPolicyActor(nn.Module):
    """An actor on a plain network ``net``, or on ``RecurrentLayers``.

    With a memory ``*B`` is ``N``, one step, or ``N, T``, and ``Memory`` says where it goes on.

    Args:
        agent: its spaces.
        config: sizes.
        outputs: numbers P that it takes from its network.
    """

    net: nn.Module
    suffix: Tensor
    places: Tensor

    def __init__(self, agent: AgentSpec, config: NetworkConfig, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = vector_length(agent), outputs
        blocks = listed([agent], config)
        scores = any(block.choices for block in blocks)
        own = places(blocks, outputs) if scores else torch.zeros(0, dtype=torch.long)
        self.register_buffer("places", own, persistent=False)
        self.use(self.networks(self.inputs, outputs, config, blocks), torch.zeros(0))

    @staticmethod
    def networks(
        inputs: int, outputs: int, config: NetworkConfig, blocks: Sequence[Entities] = ()
    ) -> dict[str, nn.Module]:
        """What holds its parameters, by attribute, for observations ``[*B, inputs]``.

        ``blocks`` of them list entities.
        """
        return {"net": actor_net(inputs, outputs, config, blocks)}

    def use(self, networks: Mapping[str, nn.Module], suffix: Tensor) -> None:
        """Works with these, perhaps those of other agents too, from now on.

        Args:
            networks: of ``networks``, for P outputs or more.
            suffix: constants behind every observation ``[X]``: zeros up to the longest one of those
                who share the networks, then which of them it is.
        """
        for name, network in networks.items():
            setattr(self, name, network)
        self.register_buffer("suffix", suffix, persistent=False)

    @property
    def like(self) -> Tensor:
        """Of the weights' dtype and device."""
        return next(self.parameters())

    @property
    def hidden_size(self) -> int:
        """Numbers H of the recurrent state; 0 without one."""
        return self.net.memory.state_size if isinstance(self.net, RecurrentLayers) else 0

    def output(
        self, observation: Tensor, memory: Memory | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What the network makes of ``[*B, O]``, and its state after the last step ``[N, H]``."""
        # out of autocast's dtype: in bfloat16 what follows would have two or three digits
        x, dtype = self._read(observation), self.like.dtype
        if isinstance(self.net, RecurrentLayers):
            output, hidden = self.net(x, memory)
            return self.own(output.to(dtype)), hidden
        return self.own(self.net(x).to(dtype)), None

    def states(self, observation: Tensor, memory: Memory | None = None) -> Tensor:
        """The recurrent state after every step, ``[N, T, H]``, of observations ``[N, T, O]``."""
        assert isinstance(self.net, RecurrentLayers)
        return self.net.states(self._read(observation), memory)

    def own(self, output: Tensor) -> Tensor:
        """What is this agent's of outputs ``[*B, P or more]``."""
        if self.places.numel():
            return put(output, self.places, self.outputs)
        return output[..., : self.outputs]

    def _read(self, observation: Tensor) -> Tensor:
        """What the network reads, on the weights' device and in their dtype."""
        x = observation.to(self.like)
        if not self.suffix.numel():
            return x
        return torch.cat([x, self.suffix.to(x).expand(*x.shape[:-1], -1)], dim=-1)


def actor_net(
    inputs: int, outputs: int, config: NetworkConfig, blocks: Sequence[Entities]
) -> nn.Module:
    """An actor's network as ``config`` wants it."""
    if blocks:
        recurrent = config.memory != "none"
        return (RecurrentEntityMLP if recurrent else EntityMLP)(inputs, outputs, config, blocks)
    if config.memory != "none":
        return RecurrentMLP(inputs, outputs, config, config.actor_last_activation)
    sizes, activation = config.hidden_sizes, config.activation
    return mlp(inputs, outputs, sizes, activation, config.actor_last_activation)


def vector_length(agent: AgentSpec) -> int:
    """The length of the agent's observation, which an MLP reads."""
    if len(agent.observation_shape) != 1:
        raise ConfigError(
            f"agent '{agent.name}' observes {list(agent.observation_shape)}, expected a vector "
            "[O]. Flatten it in the environment (torchrl.envs.FlattenObservation)."
        )
    return agent.observation_shape[0]
