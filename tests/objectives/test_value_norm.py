"""Running statistics of value targets against plain formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from hetmarl.objectives import ValueNorm
from tests.on_policy import Processes


def plain(batches: list[list[float]], beta: float) -> tuple[float, float]:
    """Debiased mean and standard deviation, number by number."""
    mean = square = weight = 0.0
    for batch in batches:
        mean = beta * mean + (1 - beta) * sum(batch) / len(batch)
        square = beta * square + (1 - beta) * sum(x * x for x in batch) / len(batch)
        weight = beta * weight + (1 - beta)
    mean, square = mean / weight, square / weight
    return mean, math.sqrt(max(square - mean * mean, 1e-2))


@pytest.mark.parametrize("beta", [0.9, 0.99999])
def test_debiased_running_mean_and_deviation(beta: float) -> None:
    norm, batches = ValueNorm(beta=beta), [(3 + 2 * torch.randn(n, 1)).double() for n in (5, 1, 7)]
    for batch in batches:
        norm.update(batch)
    mean, std = norm.statistics()
    expected = plain([b.flatten().tolist() for b in batches], beta)
    assert (mean.item(), std.item()) == pytest.approx(expected, rel=1e-12)
    assert norm.weight.item() == pytest.approx(1 - beta**3, rel=1e-9)


def test_nothing_before_the_first_update() -> None:
    x = torch.randn(4, 2)
    for norm in (ValueNorm(2), ValueNorm(2).float(), ValueNorm(2).bfloat16()):
        assert torch.equal(norm.normalise(x), x) and torch.equal(norm.denormalise(x), x)


def test_one_update_is_the_batchs_own_statistics() -> None:
    norm, batch = ValueNorm(), torch.randn(1000, 1) * 7 + 100
    norm.update(batch)
    scaled = norm.normalise(batch)
    assert scaled.mean().item() == pytest.approx(0, abs=1e-4)
    assert scaled.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_constant_targets_have_the_least_deviation() -> None:
    norm = ValueNorm()
    norm.update(torch.full((8, 1), 1e6))
    mean, std = norm.statistics()
    assert mean.item() == pytest.approx(1e6, rel=1e-12) and std.item() == pytest.approx(0.1)
    assert norm.normalise(torch.tensor([[1e6]])).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_denormalise_is_the_inverse(dtype: torch.dtype) -> None:
    norm, x = ValueNorm(3), torch.randn(5, 4, 3, dtype=dtype)
    norm.update(torch.randn(20, 3) * torch.tensor([1.0, 10.0, 0.0]) + 5)
    assert norm.normalise(x).dtype == dtype
    torch.testing.assert_close(norm.denormalise(norm.normalise(x)), x)
    torch.testing.assert_close(norm.normalise(norm.denormalise(x)), x, atol=1e-4, rtol=1e-4)


def test_every_value_by_itself_and_the_dead_left_out() -> None:
    """A value nobody lived to see keeps its statistics to the bit."""
    norm, singles = ValueNorm(3), [ValueNorm() for _ in range(3)]
    for step in range(3):
        targets = torch.randn(6, 3) * 4
        alive = torch.rand(6, 3) < 0.5
        alive[:, 2] = step == 0  # dies out
        alive[0, :2] = True
        before = copy.deepcopy(norm)
        norm.update(torch.where(alive, targets, 1e9), alive)
        for i, single in enumerate(singles):
            if alive[:, i].any():
                single.update(targets[alive[:, i], i, None])
        if step:
            for name, buffer in before.named_buffers():
                assert torch.equal(buffer[2], getattr(norm, name)[2])
    for name in ("mean", "square", "weight"):
        apart = torch.cat([getattr(single, name) for single in singles])
        torch.testing.assert_close(getattr(norm, name), apart, rtol=1e-12, atol=0)


def test_two_processes_are_one_on_everything() -> None:
    targets, alive = torch.randn(10, 2) * 3 + 1, torch.rand(10, 2) < 0.6
    alive[:5, 1] = False  # one process has nobody alive
    whole, parts = ValueNorm(2), [ValueNorm(2), ValueNorm(2)]
    whole.update(targets, alive)
    Processes().run(
        lambda rank, reduce: parts[rank].update(
            targets[5 * rank : 5 * rank + 5], alive[5 * rank : 5 * rank + 5], reduce
        )
    )
    for part in parts:
        for name, buffer in whole.named_buffers():
            torch.testing.assert_close(getattr(part, name), buffer, rtol=1e-12, atol=1e-15)


def test_stands_in_checkpoints_and_moves() -> None:
    """Also after moving, where buffers that are none would be lost."""
    norm = ValueNorm(2)
    norm.update(torch.randn(9, 2))
    moved = copy.deepcopy(norm).to("cpu", torch.float32)
    assert set(moved.state_dict()) == {"mean", "square", "weight"}
    other = ValueNorm(2)
    other.load_state_dict(norm.state_dict())
    x = torch.randn(3, 2)
    assert torch.equal(other.normalise(x), norm.normalise(x))
    assert ValueNorm(2).to("meta").mean.device.type == "meta"
    moved.update(torch.randn(9, 2))
    torch.testing.assert_close(moved.normalise(x), moved.normalise(x.double()).float())
    assert moved.statistics()[1].dtype == torch.float32
