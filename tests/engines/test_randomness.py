"""Random numbers that follow from where they are used, on one or several processes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch

from hetmarl.engines import UpdateRandomness, stable_seed, stream


@pytest.mark.slow
def test_seeds_are_the_same_everywhere() -> None:
    assert stable_seed(0, 7, "act") == 6831041844699203850
    code = "from hetmarl.engines import stable_seed; print(stable_seed(0, 7, 'act'))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) == stable_seed(0, 7, "act")


def test_seeds_differ_by_every_part() -> None:
    places = [(s, i, t) for s in range(20) for i in range(20) for t in ("act", "replay", "1")]
    seeds = {stable_seed(*place) for place in places} | {stable_seed("1", 2), stable_seed(1, "2")}
    assert len(seeds) == len(places) + 2
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_start_anew() -> None:
    a, b = (torch.randn(4, generator=stream(3, "x")) for _ in range(2))
    assert torch.equal(a, b)


def test_orders_are_uniform_permutations() -> None:
    randomness = UpdateRandomness(0, 0)
    counts = Counter(tuple(randomness.order(3)) for _ in range(1200))
    assert len(counts) == 6
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 20.5  # chi-square, 5, p = .001


def test_iterations_and_seeds_differ() -> None:
    like = torch.empty(4, 2)
    drawn = [UpdateRandomness(s, i).noise(like) for s, i in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(d.flatten().tolist()) for d in drawn}) == 3
    assert torch.equal(drawn[0], UpdateRandomness(0, 0).noise(like))


def test_one_process_can_draw_what_two_do() -> None:
    """Same orders everywhere, own noise each; both shards side by side in one process."""
    ranks = [UpdateRandomness(5, 2, (rank,)) for rank in range(2)]
    both = UpdateRandomness(5, 2, (0, 1))
    for _ in range(3):
        assert ranks[0].order(6) == ranks[1].order(6) == both.order(6)
        parts = [r.noise(torch.empty(3, 2, dtype=torch.float64)) for r in ranks]
        whole = both.noise(torch.empty(6, 2, dtype=torch.float64))
        assert whole.dtype == torch.float64
        assert torch.equal(torch.cat(parts), whole)
        assert not torch.equal(*parts)
    with pytest.raises(ValueError, match="5 rows do not split into 2 shards"):
        both.noise(torch.empty(5, 1))


def test_noise_is_standard_normal() -> None:
    noise = UpdateRandomness(0, 0, (0, 1)).noise(torch.empty(20_000, 2))
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
