"""Per-agent actors: ordinary modules, one per agent."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hetmarl.networks.body import Memory
from hetmarl.networks.config import NetworkConfig
from hetmarl.networks.distributions import (
    ActionDistribution,
    Choices,
    DiagonalGaussian,
    NoiseLike,
    gumbel,
    mask_logits,
)
from hetmarl.networks.network import Network
from hetmarl.networks.off_policy import OffPolicyActor
from hetmarl_envs.contract import AgentSpec
from hetmarl_envs.errors import ConfigError


class Sample(NamedTuple):
    """An action as a critic reads it ``[*B, W]``, and its log-probability ``[*B, 1]``.

    Real numbers in the environment's units, or one-hot vectors, one per component. Deterministic
    policies have no log-probability.
    """

    action: Tensor
    log_prob: Tensor | None = None


class SquashedActor(OffPolicyActor):
    """A network whose outputs tanh squashes into the bounds of the action space.

    a = c + h·tanh(u), with centre c and half-width h of each dimension.

    Args:
        agent: its spaces.
        config: sizes.
        outputs: numbers that the network puts out.
    """

    centre: Tensor
    half_width: Tensor

    def __init__(self, agent: AgentSpec, config: NetworkConfig, outputs: int) -> None:
        super().__init__(agent, config, outputs)
        low, high = torch.tensor(agent.action.low), torch.tensor(agent.action.high)
        if not torch.isfinite(high - low).all() or (high <= low).any():
            raise ConfigError(
                f"agent '{agent.name}': squashed actions need finite action bounds with "
                f"low < high, given low={agent.action.low}, high={agent.action.high}."
            )
        centre = (high + low) / 2
        half_width = torch.minimum(high - centre, centre - low)
        # rounded, centre ± half_width can pass a bound by the last bit
        while (over := (centre + half_width > high) | (centre - half_width < low)).any():
            half_width = torch.where(over, half_width.nextafter(0 * half_width), half_width)
        self.register_buffer("centre", centre)
        self.register_buffer("half_width", half_width)

    @property
    def like(self) -> Tensor:
        return self.centre  # there, too, where TorchRL has taken the parameters out

    def _squash(self, u: Tensor) -> Tensor:
        return self.centre + self.half_width * u.tanh()


class SquashedGaussianActor(SquashedActor):
    """A Gaussian squashed by tanh into the bounds of the action space.

    u ~ N(μ(o), σ(o)²),  a = c + h·tanh(u), with centre c and half-width h of each dimension, and
    log π(a|o) = Σ_d [log N(u_d; μ_d, σ_d) − log h_d − log(1 − tanh²(u_d))]
    (Haarnoja et al. 2018, arXiv 1801.01290, appendix C, here with each dimension's own bounds).

    The reference squashes by ``high[0]`` alone; asymmetric or unequal bounds are exact here.
    """

    LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0

    def __init__(self, agent: AgentSpec, config: NetworkConfig) -> None:
        super().__init__(agent, config, 2 * agent.action.dim)

    def forward(self, observation: Tensor, memory: Memory | None = None) -> tuple[Tensor, Tensor]:
        """Observation ``[*B, O]`` to mean and log standard deviation of u, each ``[*B, A]``."""
        return self._moments(self.output(observation, memory)[0])

    def own(self, output: Tensor) -> Tensor:
        if output.shape[-1] == self.outputs:
            return output
        # the means first, then the deviations, of those with the most dimensions too
        return torch.cat([x[..., : self.outputs // 2] for x in output.chunk(2, dim=-1)], dim=-1)

    def _moments(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = output.chunk(2, dim=-1)
        return mean, log_std.clamp(self.LOG_STD_MIN, self.LOG_STD_MAX)

    def sample(
        self,
        observation: Tensor,
        noise: NoiseLike = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Sample:
        """A reparametrised action and its log-probability, from observation ``[*B, O]``."""
        mean, log_std = self(observation, memory)
        epsilon = noise(mean)
        u = mean + log_std.exp() * epsilon
        log_normal = -0.5 * epsilon.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 − tanh²(u)) = 2·(log 2 − u − softplus(−2u)), which no large u turns into log 0
        log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
        log_prob = (log_normal - log_slope - self.half_width.log()).sum(-1, keepdim=True)
        return Sample(self._squash(u), log_prob)

    def act(
        self,
        observation: Tensor,
        noise: NoiseLike | None = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """An action ``[*B, A]`` without its log-probability, and the recurrent state ``[N, H]``.

        Without noise the mode c + h·tanh(μ). Masks belong to other actors.
        """
        output, hidden = self.output(observation, memory)
        mean, log_std = self._moments(output)
        u = mean if noise is None else mean + log_std.exp() * noise(mean)
        return self._squash(u), hidden

    def policy_at(
        self,
        observation: Tensor,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> ActionDistribution:
        """The distribution of u at observation ``[*B, O]``.

        Squashing is invertible: ratios and divergences of two policies are those of their u.
        """
        mean, log_std = self(observation, memory)
        return DiagonalGaussian(torch.cat([mean, log_std.exp()], dim=-1))


class Actor(nn.Module, ABC):
    """An on-policy actor: observation to the parameters of a distribution.

    Args:
        agent: its spaces.
        net: observation to ``agent.action.width`` outputs; may have parameters in common with those
            of other agents.
    """

    clips = False
    """Whether what is drawn may lie outside of the action bounds."""

    def __init__(self, agent: AgentSpec, net: Network) -> None:
        super().__init__()
        self.net = net

    @property
    def hidden_size(self) -> int:
        """Numbers H of the recurrent state; 0 without one."""
        return self.net.hidden_size

    def forward(
        self,
        observation: Tensor,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The distribution's parameters, and the recurrent state after the last step.

        Args:
            observation: ``[*B, *O]``; with a memory ``*B`` is ``N`` (one step) or ``N, T``.
            action_mask: legal choices ``[*B, ΣK_d]``; None: all.
            memory: where a recurrent actor goes on; None: from zero.

        Returns:
            ``[*B, P]`` for ``distribution``, and ``[N, H]`` or None.
        """
        output, hidden = self.net(observation, memory)
        return self.parametrise(output, action_mask), hidden

    @abstractmethod
    def parametrise(self, output: Tensor, action_mask: Tensor | None) -> Tensor:
        """The network's output ``[*B, outputs]`` as the distribution's parameters ``[*B, P]``."""

    @abstractmethod
    def distribution(self, parameters: Tensor) -> ActionDistribution:
        """The policy with these parameters ``[*B, P]``."""

    def act(
        self,
        observation: Tensor,
        noise: NoiseLike | None = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """An action ``[*B, D]`` (without noise the mode), and the recurrent state ``[N, H]``."""
        parameters, hidden = self(observation, action_mask, memory)
        policy = self.distribution(parameters)
        return (policy.mode() if noise is None else policy.sample(noise)), hidden


class GaussianActor(Actor):
    """A Gaussian with a mean of the observation and one σ per action dimension.

    a = c + h·u,  u ~ N(μ(o), σ²),  σ = std_scale·sigmoid(w),  c, h: centre and half width of the
    bounds (0 and 1 where they are infinite). Actions outside of the bounds are clipped on their way
    to the environment; the ratio is that of what was drawn.

    The reference draws in the environment's units; its tasks have bounds of ±1, where that is the
    same.

    Args:
        agent: its spaces.
        net: observation to ``D`` outputs.
        std: w ``[≥ D]``, of which it takes the first D.
        std_scale: the largest σ, in half widths.
    """

    clips = True
    centre: Tensor
    half_width: Tensor

    def __init__(
        self, agent: AgentSpec, net: Network, std: nn.Parameter, std_scale: float = 0.5
    ) -> None:
        super().__init__(agent, net)
        low, high = torch.tensor(agent.action.low), torch.tensor(agent.action.high)
        if (high <= low).any():
            raise ConfigError(
                f"agent '{agent.name}': expected action bounds with low < high, given "
                f"low={agent.action.low}, high={agent.action.high}. Leave out dimensions that "
                "cannot vary, or mend the environment's action spec."
            )
        bounded = (high - low).isfinite()
        self.register_buffer("centre", torch.where(bounded, (high + low) / 2, 0.0))
        self.register_buffer("half_width", torch.where(bounded, (high - low) / 2, 1.0))
        self.std, self.std_scale = std, std_scale

    def parametrise(self, output: Tensor, action_mask: Tensor | None) -> Tensor:
        std = self.half_width * self.std_scale * self.std[..., : output.shape[-1]].sigmoid()
        return torch.cat([self.centre + self.half_width * output, std.expand_as(output)], dim=-1)

    def distribution(self, parameters: Tensor) -> ActionDistribution:
        return DiagonalGaussian(parameters)


class ChoiceActor(Actor):
    """Independent choices among the legal ones, one per component of the action."""

    def __init__(self, agent: AgentSpec, net: Network) -> None:
        super().__init__(agent, net)
        self.choices = agent.action.choices

    def parametrise(self, output: Tensor, action_mask: Tensor | None) -> Tensor:
        return mask_logits(output, action_mask)

    def distribution(self, parameters: Tensor) -> ActionDistribution:
        return Choices(parameters, self.choices)


class GumbelActor(OffPolicyActor):
    """Choices whose draws carry a gradient: straight-through Gumbel-softmax.

    Each component's choice is y = one-hot(argmax_k (log p_k + g_k)) with Gumbel noise g, an exact
    draw. Backwards it is taken for softmax(log p + g) (Jang et al. 2017, arXiv 1611.01144, at
    temperature 1). Components of a multi-discrete action are independent; their log-probabilities
    add up. Illegal choices are never drawn.
    """

    def __init__(self, agent: AgentSpec, config: NetworkConfig) -> None:
        super().__init__(agent, config, agent.action.width)
        self.choices = list(agent.action.choices)

    def forward(
        self,
        observation: Tensor,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Observation ``[*B, O]`` to masked logits ``[*B, ΣK_d]``."""
        return mask_logits(self.output(observation, memory)[0], action_mask)

    def sample(
        self,
        observation: Tensor,
        noise: NoiseLike = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Sample:
        """One-hot choices ``[*B, ΣK_d]`` and their log-probability, both with gradients."""
        logits = self(observation, action_mask, memory)
        draws, log_prob = [], logits.new_zeros(*logits.shape[:-1], 1)
        parts = (x.split(self.choices, -1) for x in (logits, noise(logits)))
        for part, normal in zip(*parts, strict=True):
            log_p = part.log_softmax(-1)
            noisy = log_p + gumbel(normal)
            soft = noisy.softmax(-1)
            hard = torch.zeros_like(soft).scatter_(-1, noisy.argmax(-1, keepdim=True), 1.0)
            draw = hard + soft - soft.detach()
            draws.append(draw)
            # an illegal choice's −∞ would make 0·∞ of its gradient
            legal = log_p.masked_fill(hard + soft == 0, 0.0)
            log_prob = log_prob + (draw * legal).sum(-1, keepdim=True)
        return Sample(torch.cat(draws, -1), log_prob)

    def act(
        self,
        observation: Tensor,
        noise: NoiseLike | None = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The choices' indices ``[*B, D]`` (without noise the most probable ones), and the
        recurrent state ``[N, H]``."""
        output, hidden = self.output(observation, memory)
        policy = Choices(mask_logits(output, action_mask), self.choices)
        return (policy.mode() if noise is None else policy.sample(noise)), hidden

    def policy_at(
        self,
        observation: Tensor,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> ActionDistribution:
        """The distribution of the choices' indices at observation ``[*B, O]``."""
        return Choices(self(observation, action_mask, memory), self.choices)


def make_actor(agent: AgentSpec, config: NetworkConfig) -> SquashedGaussianActor | GumbelActor:
    """The stochastic off-policy actor for an agent's action space."""
    kind = SquashedGaussianActor if agent.action.kind == "continuous" else GumbelActor
    return kind(agent, config)
