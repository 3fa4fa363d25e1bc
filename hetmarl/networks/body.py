"""From an observation to features: convolutions, hidden layers, memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from hetmarl.networks.config import ACTIVATIONS, OnPolicyNetworkConfig
from hetmarl.networks.linear import Linear
from hetmarl.networks.recurrence import Recurrence

HIDDEN = "hidden"
"""``("hidden", <network>) [*B, H]``: a recurrent network's state before the step."""


class Memory(NamedTuple):
    """What a recurrent network remembers where its input begins.

    Args:
        hidden: state before the first step ``[N, H]``.
        is_init: first steps of episodes ``[N, 1]`` or ``[N, T, 1]``; the state is zero there.
    """

    hidden: Tensor
    is_init: Tensor


def read_memory(data: TensorDictBase, name: str) -> Memory | None:
    """Where a recurrent network goes on, from ``data [N]`` or the first steps of ``[N, T]``.

    None where ``("hidden", name)`` is missing: from zero, as at the start.
    """
    hidden = data.get((HIDDEN, name), None)
    if hidden is None:
        return None
    is_init = data.get("is_init", None)
    if is_init is None:
        is_init = torch.zeros(*data.batch_size, 1, dtype=torch.bool, device=hidden.device)
    return Memory(hidden if data.batch_dims == 1 else hidden[:, 0], is_init)


class Body(nn.Module):
    """Observation ``[*B, *O]`` to features ``[*B, F]``.

    Images ``[C, H, W]`` go through convolutions first, everything through hidden layers, and last,
    if there is one, through a recurrent layer: then ``*B`` is ``N`` or ``N, T``.

    Args:
        shape: of the observation.
        config: sizes.
        last_activation: after the last hidden layer; None: as elsewhere.
    """

    def __init__(
        self,
        shape: Sequence[int],
        config: OnPolicyNetworkConfig,
        last_activation: str | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.convolutions = convolutions(self.shape, config) if len(self.shape) == 3 else None
        inputs = torch.Size(self.shape).numel()
        if self.convolutions is not None:
            with torch.no_grad():
                inputs = self.convolutions(torch.zeros(1, *self.shape)).numel()
        self.layers = hidden_layers(inputs, config, last_activation)
        self.out_features = config.hidden_sizes[-1]
        self.memory: Recurrence | None = None
        if config.memory != "none":
            self.memory = Recurrence(
                config.memory, self.out_features, config.memory_size, config.memory_layers
            )
            self.out_features = config.memory_size
            if config.orthogonal:
                self.memory.make_orthogonal()
            self.norm = nn.LayerNorm(config.memory_size) if config.layer_norm else nn.Identity()

    @property
    def hidden_size(self) -> int:
        """Numbers H of the recurrent state; 0 without one."""
        return 0 if self.memory is None else self.memory.state_size

    def forward(
        self, observation: Tensor, memory: Memory | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Features, and the recurrent state after the last step ``[N, H]`` if there is one.

        A recurrent body without ``memory`` starts from zero.
        """
        batch = observation.shape[: observation.ndim - len(self.shape)]
        x = observation
        if self.convolutions is not None:
            x = self.convolutions(x.reshape(-1, *self.shape)).reshape(*batch, -1)
        elif len(self.shape) > 1:
            x = x.flatten(len(batch))
        x = self.layers(x)
        if self.memory is None:
            return x, None
        if memory is None:
            hidden = x.new_zeros(batch[0], self.hidden_size)
            memory = Memory(hidden, torch.zeros(*batch, 1, dtype=torch.bool, device=x.device))
        step = len(batch) == 1
        if step:
            x, memory = x.unsqueeze(1), Memory(memory.hidden, memory.is_init.unsqueeze(1))
        x, hidden = self.memory(x, memory.hidden, memory.is_init)
        x = self.norm(x)
        return (x.squeeze(1) if step else x), hidden


def hidden_layers(
    inputs: int, config: OnPolicyNetworkConfig, last_activation: str | None = None
) -> nn.Sequential:
    """Linear, activation, …, with the norms and initial weights that ``config`` asks for."""
    layers: list[nn.Module] = [nn.LayerNorm(inputs)] if config.layer_norm else []
    for depth, size in enumerate(config.hidden_sizes, start=1):
        last = depth == len(config.hidden_sizes)
        name = last_activation if last and last_activation is not None else config.activation
        linear = Linear(inputs, size)
        if config.orthogonal:
            make_orthogonal(linear, _gain(name))
        layers += [linear, ACTIVATIONS[name]()]
        if config.layer_norm:
            layers.append(nn.LayerNorm(size))
        inputs = size
    return nn.Sequential(*layers)


def make_orthogonal(layer: nn.Module, gain: float) -> None:
    """Orthogonal weights of the given scale and zero biases (Saxe et al. 2014, arXiv 1312.6120)."""
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def output_layer(inputs: int, outputs: int, config: OnPolicyNetworkConfig, gain: float) -> Linear:
    """The linear layer at a network's end."""
    layer = Linear(inputs, outputs)
    if config.orthogonal:
        make_orthogonal(layer, gain)
    return layer


def _gain(activation: str) -> float:
    known = ("relu", "tanh", "selu", "leaky_relu")
    return nn.init.calculate_gain(activation) if activation in known else 2**0.5  # type: ignore[arg-type]


def convolutions(shape: Sequence[int], config: OnPolicyNetworkConfig) -> nn.Sequential:
    """3×3 convolutions of stride 2 over images ``[C, H, W]``."""
    layers: list[nn.Module] = []
    channels = shape[0]
    for size in config.channels:
        layer = nn.Conv2d(channels, size, kernel_size=3, stride=2, padding=1)
        if config.orthogonal:
            make_orthogonal(layer, _gain(config.activation))
        layers += [layer, ACTIVATIONS[config.activation]()]
        channels = size
    return nn.Sequential(*layers)
