"""How engines and losses know of other processes: by one function.

A ``Reduce`` averages a tensor over all processes, in place, and returns it. In one process it is
``identity``; ``hetmarl.lightning.strategy`` gives the collective one. Two processes with equal
batch sizes then compute exactly what one process computes on the concatenated batch.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Reduce = Callable[[Tensor], Tensor]


def identity(tensor: Tensor) -> Tensor:
    """The average over one process."""
    return tensor
