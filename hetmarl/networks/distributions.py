"""Distributions of one agent's action, each described by one flat tensor of parameters.

A rollout's old policies are kept as these tensors ``[*B, P]``, so that ratios and divergences need
no second network. Built of ``torch.distributions``, whose closed forms of entropy and divergence
they use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, kl_divergence

NoiseLike = Callable[[Tensor], Tensor]
"""Standard normal noise of the shape, dtype and device of its argument."""


class ActionDistribution(Protocol):
    """What losses and drifts know of a policy at some observations ``[*B]``."""

    def sample(self, noise: NoiseLike) -> Tensor:
        """An action ``[*B, D]``."""
        ...

    def mode(self) -> Tensor:
        """The most probable action ``[*B, D]``."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Logarithm of the probability (density) of ``action [*B, D]``, ``[*B, 1]``."""
        ...

    def entropy(self) -> Tensor:
        """Entropy in nats, ``[*B, 1]``."""
        ...

    def kl(self, other: ActionDistribution) -> Tensor:
        """KL(self ‖ other) in nats, ``[*B, 1]``."""
        ...


class DiagonalGaussian:
    """Independent normal action dimensions; parameters ``[*B, 2·D]`` are means, then σ's."""

    def __init__(self, parameters: Tensor) -> None:
        self.mean, self.std = parameters.chunk(2, dim=-1)

    @cached_property
    def base(self) -> Independent[Normal]:
        """Made when it is asked for: it takes longer than a draw."""
        normal = Normal(self.mean, self.std, validate_args=False)
        return Independent(normal, 1, validate_args=False)

    def sample(self, noise: NoiseLike) -> Tensor:
        return torch.addcmul(self.mean, self.std, noise(self.mean))

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        return self.base.log_prob(action).unsqueeze(-1)

    def entropy(self) -> Tensor:
        return self.base.entropy().unsqueeze(-1)

    def kl(self, other: ActionDistribution) -> Tensor:
        assert isinstance(other, DiagonalGaussian)
        return kl_divergence(self.base, other.base).unsqueeze(-1)


class Choices:
    """Independent choices, one per component; parameters ``[*B, ΣK_d]`` are masked logits.

    One component is a discrete action space, several a multi-discrete one. The components'
    log-probabilities, entropies and divergences add up: the joint ratio is one number, and a
    divergence weighs each choice with its probability.
    """

    def __init__(self, parameters: Tensor, counts: Sequence[int]) -> None:
        self.parameters, self.counts = parameters, list(counts)

    @cached_property
    def components(self) -> list[Categorical]:
        """Made when they are asked for: they take longer than a draw."""
        parts = self.parameters.split(self.counts, dim=-1)
        return [Categorical(logits=part, validate_args=False) for part in parts]

    def sample(self, noise: NoiseLike) -> Tensor:
        """Gumbel's trick: argmax of logits and noise."""
        # normalised first: beside the lowest of logits, where all are masked, noise would vanish
        parts = self.parameters.split(self.counts, dim=-1)
        logits = torch.cat([part.log_softmax(-1) for part in parts], dim=-1)
        return self._largest(logits + gumbel(noise(self.parameters)))

    def mode(self) -> Tensor:
        return self._largest(self.parameters)

    def _largest(self, values: Tensor) -> Tensor:
        parts = values.split(self.counts, dim=-1)
        return torch.stack([part.argmax(-1) for part in parts], dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        pairs = zip(self.components, action.unbind(-1), strict=True)
        return sum(part.log_prob(choice) for part, choice in pairs).unsqueeze(-1)  # type: ignore[union-attr]

    def entropy(self) -> Tensor:
        return sum(part.entropy() for part in self.components).unsqueeze(-1)  # type: ignore[union-attr]

    def kl(self, other: ActionDistribution) -> Tensor:
        assert isinstance(other, Choices)
        pairs = zip(self.components, other.components, strict=True)
        return sum(self._divergence(mine, theirs) for mine, theirs in pairs).unsqueeze(-1)  # type: ignore[union-attr]

    @staticmethod
    def _divergence(mine: Categorical, theirs: Categorical) -> Tensor:
        """Of logarithms; ``kl_divergence`` is infinite where a probability underflows to zero."""
        return (mine.probs * (mine.logits - theirs.logits)).sum(-1)


def gumbel(normal: Tensor) -> Tensor:
    """Standard Gumbel noise out of standard normal noise, whose Φ(noise) is uniform."""
    uniform = torch.special.ndtr(normal)
    tiny = torch.finfo(uniform.dtype)
    return -(-uniform.clamp(tiny.tiny, 1 - tiny.eps).log()).log()


def mask_logits(logits: Tensor, action_mask: Tensor | None) -> Tensor:
    """``logits [*B, ΣK_d]`` with those of illegal choices so low that they are never drawn.

    Finite, so that a divergence has no 0·∞. A row without any legal choice (a dead agent's) keeps
    all of its choices equally: nothing may follow from it, but it must not be NaN.
    """
    if action_mask is None:
        return logits
    return torch.where(action_mask, logits, torch.finfo(logits.dtype).min / 4)


class Joint:
    """Several agents' independent policies as one; the dead count for nothing.

    Args:
        members: policies on the same samples ``[*B]``.
        alive: ``[*B, 1]`` of each; None: always.
    """

    def __init__(
        self, members: Sequence[ActionDistribution], alive: Sequence[Tensor | None]
    ) -> None:
        self.members, self.alive = list(members), list(alive)

    def sample(self, noise: NoiseLike) -> Tensor:
        return torch.cat([member.sample(noise) for member in self.members], dim=-1)

    def mode(self) -> Tensor:
        return torch.cat([member.mode() for member in self.members], dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        sizes = [member.mode().shape[-1] for member in self.members]
        parts = zip(self.members, action.split(sizes, dim=-1), strict=True)
        return self._sum([member.log_prob(part) for member, part in parts])

    def entropy(self) -> Tensor:
        return self._sum([member.entropy() for member in self.members])

    def kl(self, other: ActionDistribution) -> Tensor:
        assert isinstance(other, Joint)
        pairs = zip(self.members, other.members, strict=True)
        return self._sum([mine.kl(theirs) for mine, theirs in pairs])

    def _sum(self, values: Sequence[Tensor]) -> Tensor:
        living = zip(values, self.alive, strict=True)
        return torch.stack([v if a is None else torch.where(a, v, 0.0) for v, a in living]).sum(0)
