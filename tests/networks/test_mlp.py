"""``MLP`` is its ``nn.Sequential``: values, gradients, second gradients, and NaN stays NaN."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from hetmarl.networks.mlp import MLP, mlp

ACTIVATIONS = [("relu", None), ("relu", "tanh"), ("tanh", None), ("elu", "tanh")]


def pair(activation: str, last: str | None) -> tuple[MLP, nn.Sequential]:
    ours = mlp(7, 3, [12, 9], activation, last)
    theirs = nn.Sequential(
        *(nn.Linear(m.in_features, m.out_features) if isinstance(m, nn.Linear) else m for m in ours)
    )
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize(("activation", "last"), ACTIVATIONS)
@pytest.mark.parametrize("shape", [(6, 7), (1, 7), (0, 7), (2, 3, 7), (7,)])
def test_values_and_gradients(activation: str, last: str | None, shape: tuple[int, ...]) -> None:
    results = []
    x = torch.randn(shape)
    for net in pair(activation, last):
        given = x.clone().requires_grad_()
        y = net(given)
        weight = torch.linspace(-1, 1, y.numel()).view_as(y)
        gradients = torch.autograd.grad((y * weight).sum(), [given, *net.parameters()])
        results.append([y, *gradients])
        with torch.no_grad():
            torch.testing.assert_close(net(given), y)
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("trained", ["x", "first weight", "last bias", "all but x", "none"])
def test_gradient_of_a_part(trained: str) -> None:
    results = []
    x = torch.randn(5, 7)
    for net in pair("relu", "tanh"):
        parameters = list(net.parameters())
        given = x.clone()
        wanted = {
            "x": [given],
            "first weight": parameters[:1],
            "last bias": parameters[-1:],
            "all but x": parameters,
            "none": [],
        }[trained]
        net.requires_grad_(False)
        for tensor in wanted:
            tensor.requires_grad_()
        y = net(given)
        assert y.requires_grad == bool(wanted)
        results.append(torch.autograd.grad(y.sum(), wanted) if wanted else [y])
    torch.testing.assert_close(list(results[0]), list(results[1]))


@pytest.mark.parametrize(("activation", "last"), ACTIVATIONS)
def test_second_derivatives(activation: str, last: str | None) -> None:
    """A Hessian-vector product, of the parameters and the input."""
    x = torch.randn(5, 7)
    products = []
    for net in pair(activation, last):
        torch.manual_seed(1)
        given = x.clone().requires_grad_()
        inputs = [given, *net.parameters()]
        first = torch.autograd.grad(net(given).square().mean(), inputs, create_graph=True)
        along = sum((g * torch.randn_like(g)).sum() for g in first)
        assert isinstance(along, Tensor)
        products.append(torch.autograd.grad(along, inputs))
    torch.testing.assert_close(*products)


@pytest.mark.parametrize(("activation", "last"), ACTIVATIONS)
def test_not_a_number_stays_one(activation: str, last: str | None) -> None:
    ours, _ = pair(activation, last)
    x = torch.randn(4, 7)
    x[1, 2] = float("nan")
    for y in (ours(x), ours(x).detach()):
        assert y[1].isnan().all() and y[[0, 2, 3]].isfinite().all()
    with torch.no_grad():
        assert ours(x)[1].isnan().all()


def test_double_function_transforms_and_copies() -> None:
    ours, theirs = pair("relu", "tanh")
    x = torch.randn(6, 7)
    torch.testing.assert_close(torch.vmap(ours)(x.view(2, 3, 7)), theirs(x).view(2, 3, 3))
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(x), ours(x))
    other[0] = nn.Linear(7, 12)
    assert not torch.equal(other(x), ours(x))
    double = x.double().requires_grad_()
    assert torch.autograd.gradcheck(ours.double(), double)
