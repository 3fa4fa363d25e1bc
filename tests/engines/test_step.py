"""One gradient step: its own parameters alone, averaged, clipped, laid out for the optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hetmarl.engines import GradientStep


def sgd(parameters: list[nn.Parameter], **settings) -> GradientStep:  # type: ignore[no-untyped-def]
    return GradientStep(parameters, torch.optim.SGD(parameters, lr=1.0), **settings)


def test_moves_its_own_parameters_alone() -> None:
    mine, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    sgd([mine])((mine * other * torch.tensor([1.0, 2.0, 3.0])).sum())
    assert mine.tolist() == [0.0, -1.0, -2.0]
    assert other.tolist() == [1.0, 1.0, 1.0]
    assert other.grad is None and mine.grad is None


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", ["expanded", "transposed"])
def test_gradients_of_any_layout(kind: str, fused: bool) -> None:
    """Autograd hands out gradients with strides that fused Adam reads as something else."""
    scale = torch.linspace(-1, 1, 12).view(4, 3)

    def loss(p: Tensor) -> Tensor:
        return p.sum() if kind == "expanded" else (p.t() * scale).sum()

    mine, theirs = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(3, 4))
    step = GradientStep([mine], torch.optim.Adam([mine], lr=0.1, fused=fused))
    reference = torch.optim.Adam([theirs], lr=0.1, foreach=False)
    for _ in range(3):
        step(loss(mine))
        reference.zero_grad()
        loss(theirs).backward()
        reference.step()
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("bound", "expected"), [(None, 5.0), (1.0, 1.0), (100.0, 5.0)])
def test_clips_the_norm_over_all_its_parameters(bound: float | None, expected: float) -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2))
    norm = sgd([a, b], max_grad_norm=bound)(3 * a.sum() + 4 * b[0])
    assert norm.item() == 5.0 and not norm.requires_grad  # before clipping
    assert torch.cat([a, b]).norm().item() == pytest.approx(expected, rel=1e-4)
    assert (a / b[0]).item() == pytest.approx(0.75)


def test_averages_over_processes_before_clipping() -> None:
    """Two processes with gradients 8 and 0: their average 4 is what is clipped."""
    seen = []

    def reduce(flat: Tensor) -> Tensor:
        seen.append(flat.clone())
        return flat.div_(2)

    a, b = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(()))
    sgd([a, b], reduce=reduce)(8 * a.sum() + 2 * b)
    assert [t.tolist() for t in seen] == [[8.0, 8.0, 8.0, 8.0, 2.0]]  # one flat tensor
    assert a.tolist() == [[-4.0, -4.0], [-4.0, -4.0]] and b.item() == -1.0
    c = nn.Parameter(torch.zeros(()))
    sgd([c], reduce=reduce, max_grad_norm=3.0)(8 * c)
    assert c.item() == pytest.approx(-3.0, rel=1e-5)


def test_autocast_sees_the_new_weights() -> None:
    """Autocast keeps casts of weights for as long as it lasts; a step must end that."""
    layer, x = nn.Linear(3, 1), torch.ones(2, 3)
    step = sgd(list(layer.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        before = layer(x)
        step(before.sum())
        assert (layer(x) < before).all()
