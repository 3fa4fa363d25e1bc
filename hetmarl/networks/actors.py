"""Per-agent actors: ordinary modules, one per agent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hetmarl.networks.mlp import NetworkConfig, mlp
from hetmarl_envs.contract import AgentSpec
from hetmarl_envs.errors import ConfigError

NoiseLike = Callable[[Tensor], Tensor]
"""Standard normal noise of the shape, dtype and device of its argument."""


class Sample(NamedTuple):
    """An action ``[*B, A]`` in the environment's units and its log-probability ``[*B, 1]``."""

    action: Tensor
    log_prob: Tensor


class SquashedGaussianActor(nn.Module):
    """A Gaussian squashed by tanh into the bounds of the action space.

    u ~ N(μ(o), σ(o)²),  a = c + h·tanh(u), with centre c and half-width h of each dimension, and
    log π(a|o) = Σ_d [log N(u_d; μ_d, σ_d) − log h_d − log(1 − tanh²(u_d))]
    (Haarnoja et al. 2018, arXiv 1801.01290, appendix C, here with each dimension's own bounds).

    The reference squashes by ``high[0]`` alone; asymmetric or unequal bounds are exact here.
    """

    centre: Tensor
    half_width: Tensor
    LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0

    def __init__(self, agent: AgentSpec, config: NetworkConfig) -> None:
        super().__init__()
        if len(agent.observation_shape) != 1:
            raise ConfigError(
                f"agent '{agent.name}' observes {list(agent.observation_shape)}, expected a vector "
                "[O]. Flatten it in the environment (torchrl.envs.FlattenObservation)."
            )
        low, high = torch.tensor(agent.action.low), torch.tensor(agent.action.high)
        if not torch.isfinite(high - low).all() or (high <= low).any():
            raise ConfigError(
                f"agent '{agent.name}': a squashed Gaussian needs finite action bounds with "
                f"low < high, given low={agent.action.low}, high={agent.action.high}."
            )
        self.net = mlp(
            agent.observation_shape[0],
            2 * agent.action.dim,
            config.hidden_sizes,
            config.activation,
            config.actor_last_activation,
        )
        centre = (high + low) / 2
        half_width = torch.minimum(high - centre, centre - low)
        # rounded, centre ± half_width can pass a bound by the last bit
        while (over := (centre + half_width > high) | (centre - half_width < low)).any():
            half_width = torch.where(over, half_width.nextafter(0 * half_width), half_width)
        self.register_buffer("centre", centre)
        self.register_buffer("half_width", half_width)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Observation ``[*B, O]`` to mean and log standard deviation of u, each ``[*B, A]``."""
        # to the weights' device and dtype, and out of autocast's: in bfloat16 the logarithms below
        # would have two or three digits
        output = self.net(observation.to(self.centre)).to(self.centre.dtype)
        mean, log_std = output.chunk(2, dim=-1)
        return mean, log_std.clamp(self.LOG_STD_MIN, self.LOG_STD_MAX)

    def sample(self, observation: Tensor, noise: NoiseLike = torch.randn_like) -> Sample:
        """A reparametrised action and its log-probability, from observation ``[*B, O]``."""
        mean, log_std = self(observation)
        epsilon = noise(mean)
        u = mean + log_std.exp() * epsilon
        log_normal = -0.5 * epsilon.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 − tanh²(u)) = 2·(log 2 − u − softplus(−2u)), which no large u turns into log 0
        log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
        log_prob = (log_normal - log_slope - self.half_width.log()).sum(-1, keepdim=True)
        return Sample(self._squash(u), log_prob)

    def act(self, observation: Tensor, noise: NoiseLike = torch.randn_like) -> Tensor:
        """An action ``[*B, A]`` drawn from the policy, without its log-probability."""
        mean, log_std = self(observation)
        return self._squash(mean + log_std.exp() * noise(mean))

    def mode(self, observation: Tensor) -> Tensor:
        """The deterministic action ``c + h·tanh(μ)``, ``[*B, A]``."""
        return self._squash(self(observation)[0])

    def _squash(self, u: Tensor) -> Tensor:
        return self.centre + self.half_width * u.tanh()


def make_actor(agent: AgentSpec, config: NetworkConfig) -> SquashedGaussianActor:
    """The stochastic actor for an agent's action space.

    Raises:
        ConfigError: the kind of action space has no actor here.
    """
    if agent.action.kind != "continuous":
        raise ConfigError(
            f"agent '{agent.name}' has a {agent.action.kind} action space with "
            f"{list(agent.action.choices)} choices; expected a continuous one. Ask the environment "
            "for continuous actions if it offers them."
        )
    return SquashedGaussianActor(agent, config)
