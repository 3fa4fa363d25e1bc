"""A linear layer that takes the faster of PyTorch's two CPU matrix libraries.

On x86 PyTorch multiplies float32 matrices with MKL, which on AMD processors reaches less than half
of what oneDNN, shipped in the same wheel, does (measured in ``benchmarks/hasac_step.py``). The
operator below is the one that ``torch.compile`` uses for linear layers; eager PyTorch has no public
name for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
if not torch.backends.mkldnn.is_available():
    _onednn = None


class _OneDNNLinear(torch.autograd.Function):
    """``x Wᵀ + b``; its backward is made of itself, so that it can be differentiated twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        assert _onednn is not None
        return _onednn(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        product = _OneDNNLinear.apply
        grad = grad.contiguous()  # for an expanded gradient oneDNN has no fast kernel
        grad_x = product(grad, weight.t(), None) if ctx.needs_input_grad[0] else None
        grad_weight = product(grad.t(), x.t(), None) if ctx.needs_input_grad[1] else None
        grad_bias = grad.sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias


class Linear(nn.Linear):
    """``nn.Linear`` in everything but speed: float32 matrices on a CPU go through oneDNN.

    What oneDNN's operator cannot do (other dtypes and devices, empty batches, autocast,
    compilation, ``torch.func``, forward-mode derivatives) goes PyTorch's own way.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[B, in_features]`` (or more batch axes) to ``[B, out_features]``."""
        x = input
        if (
            _onednn is None
            or x.ndim != 2
            or x.dtype != torch.float32
            or self.weight.dtype != torch.float32
            or x.device.type != "cpu"
            or x.numel() == 0
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
            or torch._C._are_functorch_transforms_active()
            or forward_ad._current_level >= 0
        ):
            return F.linear(x, self.weight, self.bias)
        if not torch.is_grad_enabled():
            return _onednn(x.contiguous(), self.weight, self.bias, "none", [], "")
        return _OneDNNLinear.apply(x.contiguous(), self.weight, self.bias)
