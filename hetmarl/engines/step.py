"""One gradient step of an agent, a set of agents or a critic, over any number of processes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hetmarl.objectives.reduce import Reduce, identity


class GradientStep:
    """Descends a loss in its own parameters and touches no others.

    The gradients of these parameters alone are computed, averaged over the processes as one flat
    tensor, clipped, and applied.

    Args:
        parameters: those of the agent, of a set that shares them, or of the critic.
        optimizer: over the same parameters.
        reduce: averages over the processes; ``identity`` in one process.
        max_grad_norm: bound on the gradient's norm after averaging; None: no clipping.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        optimizer: Optimizer,
        reduce: Reduce = identity,
        max_grad_norm: float | None = None,
    ) -> None:
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self.reduce = reduce
        self.max_grad_norm = max_grad_norm

    def __call__(self, loss: Tensor) -> Tensor:
        """One step down ``loss`` (scalar).

        Returns:
            The gradient's norm before clipping (scalar, detached): not finite where the gradient
            is not, which a finite loss does not tell.
        """
        gradients = torch.autograd.grad(loss, self.parameters)
        if self.reduce is not identity:
            flat = self.reduce(torch.cat([g.reshape(-1) for g in gradients]))
            parts = flat.split([g.numel() for g in gradients])
            gradients = tuple(p.view_as(g) for p, g in zip(parts, gradients, strict=True))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            # laid out as its parameter, which fused optimisers take for granted: those of a sum
            # (stride 0) or of a transposed product are not
            same = gradient.stride() == parameter.stride()
            parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)
        norm = nn.utils.get_total_norm(gradients)
        if self.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        torch.clear_autocast_cache()  # else autocast goes on with casts of the old weights
        return norm
