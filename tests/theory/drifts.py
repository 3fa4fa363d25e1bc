"""Drifts beside ours: valid ones, and for each condition one that breaks it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hetmarl.networks.distributions import Choices
from hetmarl.objectives import PolicyChange


@dataclass
class Tsallis:
    """The Tsallis divergence of order q, in a form of which every sample is at least 0."""

    q: float = 2.0
    weight: float = 1.0

    def __call__(self, change: PolicyChange) -> Tensor:
        q, ratio = self.q, change.ratio
        return self.weight * (ratio**q - 1 - q * (ratio - 1)) / (q - 1)


@dataclass
class TotalVariation:
    """Σ|π − π_old|/2 to a power, of choices: 1 has a kink at the old policy, 2 has none."""

    power: int = 2
    weight: float = 1.0

    def __call__(self, change: PolicyChange) -> Tensor:
        assert isinstance(change.new, Choices) and isinstance(change.old, Choices)
        pairs = zip(change.new.components, change.old.components, strict=True)
        distances = [(p.probs - q.probs).abs().sum(-1, keepdim=True) / 2 for p, q in pairs]
        return self.weight * torch.stack(distances).sum(0) ** self.power


def negative(change: PolicyChange) -> Tensor:
    """Rewards leaving the old policy."""
    return -0.1 * change.new.kl(change.old)


def sloped(change: PolicyChange) -> Tensor:
    """A fee on one action, whatever the old policy: E[D] falls in one direction."""
    assert isinstance(change.new, Choices) and isinstance(change.old, Choices)
    pairs = zip(change.new.components, change.old.components, strict=True)
    return torch.stack([p.probs[..., :1] - q.probs[..., :1] for p, q in pairs]).sum(0)
