"""Multilayer perceptrons and their configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from hetmarl.networks.linear import Linear
from hetmarl_envs.errors import ConfigError, did_you_mean

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}


@dataclass
class NetworkConfig:
    """Sizes of the actor and critic networks; defaults are HARL's for off-policy learning."""

    hidden_sizes: list[int] = field(default_factory=lambda: [256, 256])
    """Units of each hidden layer, typically 64 to 512."""
    activation: str = "relu"
    """Between layers: relu, tanh, elu, selu, gelu, silu or leaky_relu."""
    actor_last_activation: str = "tanh"
    """After the actor's last hidden layer; the reference bounds it with tanh (HARL)."""

    def __post_init__(self) -> None:
        self.hidden_sizes = [int(size) for size in self.hidden_sizes]
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ConfigError(
                f"network.hidden_sizes={self.hidden_sizes}: expected at least one size, each 1 or "
                "more, such as [256, 256]."
            )
        for name in ("activation", "actor_last_activation"):
            value = getattr(self, name)
            if value not in ACTIVATIONS:
                raise ConfigError(
                    f"network.{name}='{value}' is unknown.{did_you_mean(value, ACTIVATIONS)} "
                    f"Choose one of {', '.join(ACTIVATIONS)}."
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for checkpoints."""
        return asdict(self)


def mlp(
    inputs: int,
    outputs: int,
    hidden_sizes: list[int],
    activation: str,
    last_activation: str | None = None,
) -> nn.Sequential:
    """``inputs → hidden_sizes → outputs``, an activation after every hidden layer.

    Args:
        inputs: width of the input ``[B, inputs]``.
        outputs: width of the linear output ``[B, outputs]``.
        hidden_sizes: widths of the hidden layers.
        activation: name in ``ACTIVATIONS``.
        last_activation: the one after the last hidden layer, if another.
    """
    layers: list[nn.Module] = []
    for depth, size in enumerate(hidden_sizes, start=1):
        last = depth == len(hidden_sizes)
        name = last_activation if last and last_activation is not None else activation
        layers += [Linear(inputs, size), ACTIVATIONS[name]()]
        inputs = size
    return nn.Sequential(*layers, Linear(inputs, outputs))
