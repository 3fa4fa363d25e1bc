"""Plain multilayer perceptrons, fast on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hetmarl.networks.config import ACTIVATIONS
from hetmarl.networks.linear import FUSED, Linear, linear, product, takes_onednn, weight_gradient


class MLP(nn.Sequential):
    """Linear, activation, linear, …, linear.

    Where oneDNN multiplies, all layers are one step of autograd with the activations fused into the
    products: a seventh less time of a HASAC update (``benchmarks/hasac_step.py``), mostly because
    PyTorch's own tanh takes as long as a product. Hooks on single layers are not called then.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[B, inputs]`` (or other batch axes) to ``[B, outputs]``."""
        if input.ndim > 2:  # as a matrix, which has the faster products
            return self.forward(input.flatten(0, -2)).unflatten(0, input.shape[:-1])
        linears, activations = list(self)[::2], list(self)[1::2]
        fused = [FUSED.get(type(activation)) for activation in activations]
        if None in fused or not takes_onednn(input, linears[0].weight):  # type: ignore[arg-type]
            return super().forward(input)
        names, x = [*fused, "none"], input.contiguous()
        parameters = [p for linear in linears for p in (linear.weight, linear.bias)]
        if torch.is_grad_enabled():
            return _FusedLayers.apply(x, names, *parameters)
        for name, weight, bias in zip(names, parameters[::2], parameters[1::2], strict=True):
            x = product(x, weight, bias, name)  # type: ignore[arg-type]
        return x


class _FusedLayers(torch.autograd.Function):
    """``activation(x Wᵀ + b)``, layer after layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, names: list[str], *parameters: Tensor) -> Tensor:
        ctx.names, inputs = names, []
        for name, weight, bias in zip(names, parameters[::2], parameters[1::2], strict=True):
            inputs.append(x)
            x = product(x, weight, bias, name)
        ctx.save_for_backward(*inputs, *parameters)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), depth = grads, len(ctx.names)
        inputs, parameters = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        if torch.is_grad_enabled():
            return _differentiable_backward(ctx, grad, inputs[0], parameters)
        needed = ctx.needs_input_grad
        found: list[Tensor | None] = [None] * len(needed)
        grad = grad.contiguous()  # for an expanded gradient oneDNN has no fast kernel
        for layer in reversed(range(depth)):
            weight = 2 + 2 * layer
            if needed[weight]:
                found[weight] = weight_gradient(grad, inputs[layer])
            if needed[weight + 1]:
                found[weight + 1] = grad.sum(0)
            if not any(needed[:weight]):
                break
            grad = product(grad, parameters[2 * layer].t())
            if layer == 0:
                found[0] = grad
            elif ctx.names[layer - 1] == "relu":
                grad = torch.ops.aten.threshold_backward(grad, inputs[layer], 0)
            else:
                grad = torch.ops.aten.tanh_backward(grad, inputs[layer])
        return tuple(found)


def _differentiable_backward(
    ctx: Any, grad: Tensor, x: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients as a graph, for second derivatives: once more, layer by layer."""
    y = x
    for name, weight, bias in zip(ctx.names, parameters[::2], parameters[1::2], strict=True):
        y = linear(y, weight, bias)
        y = y if name == "none" else getattr(torch, name)(y)
    given = (x, x, *parameters)  # the second stands for the names
    wanted = [i for i, needed in enumerate(ctx.needs_input_grad) if needed]
    found = torch.autograd.grad(y, [given[i] for i in wanted], grad, create_graph=True)
    by_place = dict(zip(wanted, found, strict=True))
    return tuple(by_place.get(i) for i in range(len(given)))


def mlp(
    inputs: int,
    outputs: int,
    hidden_sizes: list[int],
    activation: str,
    last_activation: str | None = None,
) -> MLP:
    """``inputs → hidden_sizes → outputs``, an activation after every hidden layer.

    Args:
        inputs: width of the input ``[B, inputs]``.
        outputs: width of the linear output ``[B, outputs]``.
        hidden_sizes: widths of the hidden layers.
        activation: name in ``ACTIVATIONS``.
        last_activation: the one after the last hidden layer, if another.
    """
    layers: list[nn.Module] = []
    for depth, size in enumerate(hidden_sizes, start=1):
        last = depth == len(hidden_sizes)
        name = last_activation if last and last_activation is not None else activation
        layers += [Linear(inputs, size), ACTIVATIONS[name]()]
        inputs = size
    return MLP(*layers, Linear(inputs, outputs))
