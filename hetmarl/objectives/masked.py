"""Means over the living."""

from __future__ import annotations

from torch import Tensor

from hetmarl.objectives.reduce import Reduce, identity


def masked_mean(x: Tensor, alive: Tensor | None, reduce: Reduce = identity) -> Tensor:
    """Mean of ``x [B, 1]`` over the samples with ``alive [B, 1]``; None: over all.

    The count is averaged over the processes, so that the mean of the processes' results is the mean
    over the living of the concatenated batch. Nobody alive anywhere: zero, with zero gradient.
    """
    if alive is None:
        return x.mean()
    weight = alive.to(x.dtype)
    return (x * weight).sum() / reduce(weight.sum()).clamp(min=1e-8)
