"""``Linear`` is ``nn.Linear``: values, gradients, second ones, and wherever oneDNN has no say."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from hetmarl.networks import Linear


def pair(inputs: int = 7, outputs: int = 5, bias: bool = True) -> tuple[Linear, nn.Linear]:
    ours, theirs = Linear(inputs, outputs, bias=bias), nn.Linear(inputs, outputs, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def inputs(kind: str) -> Tensor:
    made = {
        "plain": lambda: torch.randn(6, 7),
        "one row": lambda: torch.randn(1, 7),
        "no rows": lambda: torch.randn(0, 7),
        "transposed": lambda: torch.randn(7, 6).t(),
        "every other row": lambda: torch.randn(12, 7)[::2],
        "expanded": lambda: torch.randn(1, 7).expand(6, 7),
        "two batch axes": lambda: torch.randn(2, 3, 7),
        "no batch axis": lambda: torch.randn(7),
    }
    return made[kind]()


KINDS = [
    "plain",
    "one row",
    "no rows",
    "transposed",
    "every other row",
    "expanded",
    "two batch axes",
    "no batch axis",
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(kind: str, bias: bool) -> None:
    ours, theirs = pair(bias=bias)
    x = inputs(kind)
    results = []
    for layer in (ours, theirs):
        given = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = layer(given)
        weight = torch.linspace(-1, 1, y.numel()).view_as(y)
        gradients = torch.autograd.grad((y * weight).sum(), [given, *layer.parameters()])
        results.append([y, *gradients])
        with torch.no_grad():
            torch.testing.assert_close(layer(given), y)
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("trained", ["weight", "bias", "x", "none"])
def test_gradient_of_one_input_alone(trained: str) -> None:
    results = []
    layers = pair()
    x = torch.randn(4, 7)
    for layer in layers:
        layer.requires_grad_(False)
        given = x.clone().requires_grad_(trained == "x")
        wanted = {"weight": layer.weight, "bias": layer.bias, "x": given}.get(trained)
        if wanted is not None:
            wanted.requires_grad_()
        y = layer(given)
        assert y.requires_grad == (trained != "none")
        results.append(y if wanted is None else torch.autograd.grad(y.square().sum(), wanted))
    torch.testing.assert_close(results[0], results[1])


def test_expanded_gradient() -> None:
    ours, theirs = pair()
    x = torch.randn(6, 7)
    gradients = [torch.autograd.grad(m(x).sum(), list(m.parameters())) for m in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_second_derivatives() -> None:
    """A Hessian-vector product through two layers, as a trust region takes it."""
    ours = nn.Sequential(Linear(4, 6), nn.Tanh(), Linear(6, 1))
    theirs = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 4)
    products = []
    for net in (ours, theirs):
        torch.manual_seed(1)
        parameters = list(net.parameters())
        first = torch.autograd.grad(net(x).square().mean(), parameters, create_graph=True)
        along = sum((g * torch.randn_like(g)).sum() for g in first)
        products.append(torch.autograd.grad(along, parameters))
    torch.testing.assert_close(*products)


def test_gradcheck_in_double() -> None:
    layer = Linear(3, 2).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_autocast() -> None:
    ours, theirs = pair()
    x = torch.randn(6, 7)
    with torch.autocast("cpu", torch.bfloat16):
        a, b = ours(x), theirs(x)
    assert a.dtype == b.dtype == torch.bfloat16
    assert torch.equal(a, b)


def test_function_transforms() -> None:
    ours, theirs = pair()
    x, tangent = torch.randn(6, 7), torch.randn(6, 7)

    def results(layer: nn.Module) -> list[Tensor]:
        parameters = dict(layer.named_parameters())

        def loss(values: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(layer, values, (x,)).square().sum()

        return [
            *torch.func.grad(loss)(parameters).values(),
            torch.vmap(layer)(x.view(2, 3, 7)),
        ]

    torch.testing.assert_close(results(ours), results(theirs))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        out = [torch.autograd.forward_ad.unpack_dual(m(dual)).tangent for m in (ours, theirs)]
    torch.testing.assert_close(*out)


def test_copies_pickles_and_moves() -> None:
    ours, _ = pair()
    x = torch.randn(3, 7)
    expected = ours(x)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(x), expected)
    torch.testing.assert_close(ours.double()(x.double()).float(), expected)


def test_not_a_number_stays_one() -> None:
    ours, _ = pair()
    x = torch.randn(3, 7)
    x[1, 2] = float("nan")
    y = ours(x)
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()
