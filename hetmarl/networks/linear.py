"""A linear layer that takes the faster of PyTorch's two CPU matrix libraries.

On x86 PyTorch multiplies float32 matrices with MKL, which on an AMD processor with AVX-512 reached
less than half of what oneDNN, shipped in the same wheel, did (``benchmarks/hasac_step.py``); on one
with AVX2 only they were equally fast. The operator below is the one that ``torch.compile`` uses for
linear layers; eager PyTorch has no public name for it.
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

FEW_ROWS = 64
"""Up to here, without a gradient, MKL is faster: oneDNN's products begin with some 12 µs."""

FUSED: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh"}
"""Activations that ``product`` can end with."""


MKL_TRANSPOSES = (
    torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX2"
)
"""Whether weight gradients, whose operands both lie transposed, go through MKL all the same.

oneDNN copies such operands first: half a product more, which does not pay where MKL is as fast
(``docs/explanation/speed.md``)."""


def takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether a product of ``x`` with ``weight`` can and should go through oneDNN."""
    return not (
        _onednn is None
        or x.ndim != 2
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or x.device.type != "cpu"
        or x.numel() == 0
        or (len(x) <= FEW_ROWS and not torch.is_grad_enabled())
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Any:
    """``activation(x Wᵀ + b)`` without autograd, ``activation`` being none, tanh or relu."""
    assert _onednn is not None
    if activation == "relu":  # oneDNN's own makes NaN 0, so that nobody would notice it
        return _onednn(x, weight, bias, "none", [], "").relu_()
    return _onednn(x, weight, bias, activation, [], "")


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """``gradᵀ x``, ``[N, K]``; the narrower one on the left, which oneDNN has to transpose."""
    if MKL_TRANSPOSES:
        return grad.t() @ x
    if grad.shape[1] <= x.shape[1]:
        return product(grad.t(), x.t())
    return product(x.t(), grad.t()).t().contiguous()


class _OneDNNLinear(torch.autograd.Function):
    """``x Wᵀ + b``; its backward can be differentiated, so that there are second derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()  # for an expanded gradient oneDNN has no fast kernel
        grad_x = linear(grad, weight.t(), None) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = grad.t() @ x if MKL_TRANSPOSES else linear(grad.t(), x.t(), None)
        grad_bias = grad.sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias


linear = _OneDNNLinear.apply


class Linear(nn.Linear):
    """``nn.Linear`` in everything but speed: float32 matrices on a CPU go through oneDNN.

    What oneDNN's operator cannot do (other dtypes and devices, empty batches, autocast,
    compilation, ``torch.func``, forward-mode derivatives) goes PyTorch's own way.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[B, in_features]`` (or more batch axes) to ``[B, out_features]``."""
        x = input
        if not takes_onednn(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        if not torch.is_grad_enabled():
            return product(x.contiguous(), self.weight, self.bias)
        return linear(x.contiguous(), self.weight, self.bias)
