"""Several processes without DistributedDataParallel."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor


class SequentialDDPStrategy(DDPStrategy):
    """One process per device; engines average the gradients of the agent at hand themselves.

    DistributedDataParallel averages whatever a backward pass leaves in all parameters. A sequential
    update computes one agent's gradients at a time (``torch.autograd.grad``, which the wrapper does
    not see; after ``backward`` it would raise, or send all agents' gradients each time). Here the
    model is not wrapped: all processes start from rank 0's weights, and an engine's ``reduce``
    averages the current agent's flat gradient. Under Lightning's own ``"ddp"`` the result is the
    same; the wrapper then only costs its buckets' memory and a broadcast of buffers per iteration.
    """

    def configure_ddp(self) -> None:
        """Gives all processes rank 0's parameters and buffers."""
        assert self.model is not None
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            torch.distributed.broadcast(tensor.data, src=0)


def average(tensor: Tensor) -> Tensor:
    """The ``Reduce`` over all processes: their average, in place."""
    torch.distributed.all_reduce(tensor)
    return tensor.div_(torch.distributed.get_world_size())


def make_strategy(name: str, **options: Any) -> Any:
    """Lightning's strategy by name, where ``"ddp"`` means ours."""
    return SequentialDDPStrategy(**options) if name == "ddp" else name
