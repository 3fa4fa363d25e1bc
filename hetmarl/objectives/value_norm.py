"""Normalisation of value targets by running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hetmarl.objectives.reduce import Reduce, identity


class ValueNorm(nn.Module):
    """Running mean and variance of the value targets; critics put out *normalised* values.

    m ← β·m + (1 − β)·mean(G),  q ← β·q + (1 − β)·mean(G²),  both divided by the debiasing term
    1 − β^k (Yu et al. 2022, arXiv 2103.01955, appendix; after van Hasselt et al. 2016,
    arXiv 1602.07714). They are buffers: they move with ``.to()`` and stand in checkpoints.

    ``torchrl``'s ``MAPPOLoss(value_norm=...)`` is another thing: its critic stays in raw scale.

    Args:
        num_values: values per sample, each normalised by itself.
        beta: β, .999 to .99999.
    """

    mean: Tensor
    square: Tensor
    weight: Tensor
    FLOOR = 1e-2
    """Least variance; as the reference's."""

    def __init__(self, num_values: int = 1, beta: float = 0.99999) -> None:
        super().__init__()
        self.beta = beta
        for name in ("mean", "square", "weight"):
            self.register_buffer(name, torch.zeros(num_values, dtype=torch.float64))

    @torch.no_grad()
    def update(
        self, targets: Tensor, alive: Tensor | None = None, reduce: Reduce = identity
    ) -> None:
        """Takes in ``targets [N, num_values]`` (where ``alive``, of the same shape)."""
        targets = targets.double()
        weight = torch.ones_like(targets) if alive is None else alive.double()
        sums = torch.stack(
            [(targets * weight).sum(0), (targets.square() * weight).sum(0), weight.sum(0)]
        )
        total, squares, count = reduce(sums)
        seen = count > 0
        count = count.clamp(min=1e-12)
        keep = torch.where(seen, torch.full_like(count, self.beta), 1.0)
        self.mean.mul_(keep).add_((1 - keep) * total / count)
        self.square.mul_(keep).add_((1 - keep) * squares / count)
        self.weight.mul_(keep).add_(1 - keep)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Debiased mean and standard deviation ``[num_values]``; 0 and 1 before any update."""
        weight = torch.where(self.weight > 0, self.weight, 1.0)
        mean, square = self.mean / weight, self.square / weight
        std = (square - mean.square()).clamp(min=self.FLOOR).sqrt()
        return mean, torch.where(self.weight > 0, std, 1.0)

    def normalise(self, x: Tensor) -> Tensor:
        """``x [*B, num_values]`` in units of the statistics."""
        mean, std = self.statistics()
        return (x - mean.to(x)) / std.to(x)

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse of ``normalise``."""
        mean, std = self.statistics()
        return x * std.to(x) + mean.to(x)
