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
from hetmarl_envs.errors import ContractError

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


def read_memory(data: TensorDictBase, name: str, root: str = HIDDEN) -> Memory | None:
    """Where a recurrent network goes on, from ``data [N]`` or the first steps of ``[N, T]``.

    None where ``(root, name)`` is missing: from zero, as at the start.

    Raises:
        ContractError: it is missing where no episode begins.
    """
    hidden = data.get((root, name), None)
    is_init = data.get("is_init", None)
    if hidden is None:
        if is_init is not None and not is_init.all():
            raise ContractError(
                f"there is no ('{root}', '{name}') in the middle of an episode: what the "
                "recurrent network remembers was not carried on. Append the transforms InitTracker "
                "and policy.make_tensordict_primer() to the environment."
            )
        return None
    if is_init is None:
        is_init = torch.zeros(*data.batch_size, 1, dtype=torch.bool, device=hidden.device)
    return Memory(hidden if data.batch_dims == 1 else hidden[:, 0], is_init)


def start_memory(data: TensorDictBase, name: str, size: int, dtype: torch.dtype) -> None:
    """Writes the recurrent state that ``data [*B]`` begins with: zero, ``[*B, size]``."""
    data.set((HIDDEN, name), torch.zeros(*data.batch_size, size, dtype=dtype, device=data.device))


class Body(nn.Module):
    """Observation ``[*B, *O]`` to features ``[*B, F]``.

    Images ``[C, H, W]`` go through convolutions first, everything through hidden layers, and last,
    if there is one, through a recurrent layer: then ``*B`` is ``N`` or ``N, T``.

    Args:
        shape: of the observation.
        config: sizes.
        last_activation: after the last hidden layer; None: as elsewhere.
        extra: numbers X that the hidden layers read besides the observation.
    """

    def __init__(
        self,
        shape: Sequence[int],
        config: OnPolicyNetworkConfig,
        last_activation: str | None = None,
        extra: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, inputs = make_encoder(shape, config)
        self.layers = hidden_layers(inputs + extra, config, last_activation)
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
        self, observation: Tensor, memory: Memory | None = None, extra: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Features, and the recurrent state after the last step ``[N, H]`` if there is one.

        A recurrent body without ``memory`` starts from zero. ``extra [X]`` is the same everywhere.
        """
        x = self.encoder(observation)
        if extra is not None and extra.numel():
            x = torch.cat([x, extra.to(x).expand(*x.shape[:-1], -1)], dim=-1)
        x = self.layers(x)
        if self.memory is None:
            return x, None
        batch = x.shape[:-1]
        if memory is None:
            hidden = x.new_zeros(batch[0], self.hidden_size)
            memory = Memory(hidden, torch.zeros(*batch, 1, dtype=torch.bool))
        hidden, is_init = memory.hidden.to(x), memory.is_init.to(x.device)
        if len(batch) == 1:  # one step
            x, hidden = self.memory(x.unsqueeze(1), hidden, is_init.unsqueeze(1))
            return self.norm(x.squeeze(1)), hidden
        x, hidden = self.memory(x, hidden, is_init)
        return self.norm(x), hidden


class Convolutions(nn.Module):
    """3×3 convolutions of stride 2: images ``[*B, C, H, W]`` to vectors ``[*B, F]``."""

    def __init__(self, shape: Sequence[int], config: OnPolicyNetworkConfig) -> None:
        super().__init__()
        self.shape = tuple(shape)
        layers: list[nn.Module] = []
        channels = shape[0]
        for size in config.channels:
            layer = nn.Conv2d(channels, size, kernel_size=3, stride=2, padding=1)
            if config.orthogonal:
                make_orthogonal(layer, _gain(config.activation))
            layers += [layer, ACTIVATIONS[config.activation]()]
            channels = size
        self.net = nn.Sequential(*layers)
        with torch.no_grad():
            self.out_features = self.net(torch.zeros(1, *shape)).numel()

    def forward(self, images: Tensor) -> Tensor:
        seen = self.net(images.reshape(-1, *self.shape))
        return seen.reshape(*images.shape[:-3], self.out_features)


def make_encoder(shape: Sequence[int], config: OnPolicyNetworkConfig) -> tuple[nn.Module, int]:
    """What makes a vector of an observation ``[*B, *shape]``, and that vector's length."""
    if len(shape) != 3:
        return nn.Flatten(-len(shape)), torch.Size(shape).numel()
    net = Convolutions(shape, config)
    return net, net.out_features


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
