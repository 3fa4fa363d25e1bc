"""Deterministic actors, which explore and are smoothed by noise on what they do."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hetmarl.networks.actors import GumbelActor, Sample, SquashedActor
from hetmarl.networks.body import Memory
from hetmarl.networks.config import DeterministicNetworkConfig
from hetmarl.networks.distributions import NoiseLike
from hetmarl_envs.contract import AgentSpec


class DeterministicActor(SquashedActor):
    """π(o) = c + h·tanh(u(o)), with centre c and half-width h of each action dimension.

    It explores by π(o) + σ·h·ε with ε ~ N(0, 1), σ = ``exploration_noise``, cut off at the bounds
    (Fujimoto et al. 2018, arXiv 1802.09477).
    """

    def __init__(self, agent: AgentSpec, config: DeterministicNetworkConfig) -> None:
        super().__init__(agent, config, agent.action.dim)
        self.exploration_noise = config.exploration_noise

    def forward(self, observation: Tensor, memory: Memory | None = None) -> Tensor:
        """Observation ``[*B, O]`` to action ``[*B, A]``."""
        return self._squash(self.output(observation, memory)[0])

    def sample(
        self,
        observation: Tensor,
        noise: NoiseLike = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Sample:
        """π(o) with gradient ``[*B, A]``; draws no noise."""
        return Sample(self(observation, memory))

    def act(
        self,
        observation: Tensor,
        noise: NoiseLike | None = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """An exploring action ``[*B, A]`` (without noise π(o)), and the recurrent state."""
        output, hidden = self.output(observation, memory)
        action = self._squash(output)
        if noise is None:
            return action, hidden
        return self._add(action, self.exploration_noise * noise(action)), hidden

    def smoothed(
        self,
        observation: Tensor,
        noise: NoiseLike,
        scale: float,
        clip: float,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """π(o) + h·clip(scale·ε, ±clip) within the bounds, ``[*B, A]``; scale 0: π(o)."""
        action = self(observation, memory)
        if scale == 0:
            return action
        return self._add(action, (scale * noise(action)).clamp(-clip, clip))

    def _add(self, action: Tensor, noise: Tensor) -> Tensor:
        """``noise`` is in half widths."""
        low, high = self.centre - self.half_width, self.centre + self.half_width
        return (action + self.half_width * noise).clamp(low, high)


class DeterministicChoiceActor(GumbelActor):
    """Choices for deterministic policy gradients: π(o) = argmax of the logits, per component.

    An argmax has no gradient, so the policy is improved, and explores, at Gumbel draws around it,
    whose straight-through gradient is that of the softmax (``GumbelActor``; MADDPG, Lowe et al.
    2017, arXiv 1706.02275, relaxes choices by Gumbel-softmax too).
    """

    def sample(
        self,
        observation: Tensor,
        noise: NoiseLike = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Sample:
        """One-hot draws with gradients ``[*B, ΣK_d]``; no log-probability."""
        return Sample(super().sample(observation, noise, action_mask, memory).action)

    def smoothed(
        self,
        observation: Tensor,
        noise: NoiseLike,
        scale: float,
        clip: float,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """One-hot draws ``[*B, ΣK_d]``; scale 0: the argmax.

        A choice has no neighbourhood to be averaged over as a real number has. What stands in for
        it are the choices that the policy nearly makes, in proportion: one Gumbel draw.
        """
        choice, _ = self.act(observation, None if scale == 0 else noise, action_mask, memory)
        parts = zip(choice.unbind(-1), self.choices, strict=True)
        hot = torch.cat([one_hot(part, count) for part, count in parts], -1)
        return hot.to(self.like)


def make_deterministic_actor(
    agent: AgentSpec, config: DeterministicNetworkConfig
) -> DeterministicActor | DeterministicChoiceActor:
    """The deterministic actor for an agent's action space."""
    kind = DeterministicActor if agent.action.kind == "continuous" else DeterministicChoiceActor
    return kind(agent, config)
