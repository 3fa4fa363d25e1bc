"""Prioritised replay: what is drawn how often, and what the weights undo."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hetmarl.data.replay import Priorities
from hetmarl_envs.errors import ConfigError
from tests.data.stories import GAMMA, NUM_ENVS, Story, equals, make, places


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brute_force(priorities: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """The first place whose running sum is above the share."""
    running = priorities.cumsum(0)
    return torch.searchsorted(running, share * running[-1], right=True)


@pytest.mark.parametrize("size", [1, 64, 65, 5000])
def test_tree_is_the_running_sum(size: int) -> None:
    tree, known = Priorities(size, alpha=0.7), torch.zeros(size, dtype=torch.float64)
    draw = generator(size)
    for _ in range(6):
        where = torch.randperm(size, generator=draw)[: -(-size // 3)]
        error = torch.randn(len(where), generator=draw)
        tree.update(where, error)
        known[where] = (error.double().abs() + 1e-6) ** 0.7
        gone = torch.randperm(size, generator=draw)[: size // 10]
        tree.forget(gone)
        known[gone] = 0.0
        share = torch.rand(1000, dtype=torch.float64, generator=draw)
        drawn = tree.draw(share)
        assert drawn.equal(brute_force(known, share))
        assert (known[drawn] > 0).all()
        torch.testing.assert_close(tree.total, known.sum())
        least = known[known > 0].min()
        torch.testing.assert_close(tree.weight(drawn, 0.4), (known[drawn] / least) ** -0.4)


def test_never_draws_what_has_no_priority() -> None:
    """Not at the borders either, where rounding could lead to a neighbour."""
    tree = Priorities(200, alpha=1.0)
    there = torch.tensor([0, 63, 64, 130, 199])
    tree.update(there, torch.tensor([1e-9, 1e9, 1e-9, 0.1, 1e-9]))
    edge = torch.tensor(1.0, dtype=torch.float64).nextafter(torch.tensor(0.0).double())
    share = torch.linspace(0, 1, 9999, dtype=torch.float64)[:-1]
    drawn = tree.draw(torch.cat([share, edge[None]]))
    assert set(drawn.tolist()) <= set(there.tolist())
    assert drawn[0] == 0 and drawn[-1] == 199


def test_the_greatest_of_several_errors_counts() -> None:
    for order in ([0, 1, 2], [2, 1, 0]):
        tree = Priorities(3, alpha=1.0)
        tree.update(torch.tensor([1, 1, 1])[order], torch.tensor([0.5, -3.0, 1.0])[order])
        assert tree.total.item() == pytest.approx(3.0, rel=1e-5)
        tree.set_new(torch.tensor([0]))  # as the greatest that there ever was
        assert tree.total.item() == pytest.approx(6.0, rel=1e-5)


def test_only_frames_that_may_be_drawn_have_a_priority() -> None:
    story = Story()
    replay = make(story, story.chunk(5), capacity=8 * NUM_ENVS, priority_alpha=0.5)
    for length in (2, 12, 9, 3, 11):
        replay.extend(story.chunk(length))
        batch = replay.sample(300, n_step=3, gamma=GAMMA, generator=generator())
        step, env = batch["index"] // NUM_ENVS, batch["index"] % NUM_ENVS
        drawn = list(zip(env.flatten().tolist(), step.flatten().tolist(), strict=True))
        assert set(drawn) == set(places(story, replay))
        equals(story, batch, [story.transition(*place, 3) for place in drawn])
        assert (batch["priority_weight"] == 1).all()  # all new, all alike


def test_drawn_in_proportion_and_weighted_back() -> None:
    """Frequencies are p/Σp; a weighted mean is the mean over all frames."""
    story = Story()
    replay = make(story, story.chunk(10), priority_alpha=0.6)
    everything = torch.arange(10 * NUM_ENVS)
    error = torch.linspace(-2, 4, 10 * NUM_ENVS)
    replay.update_priority(everything[:, None], error[:, None])
    probability = (error.double().abs() + 1e-6) ** 0.6
    probability /= probability.sum()
    batch = replay.sample(30_000, beta=1.0, generator=generator())
    index, weight = batch["index"].flatten(), batch["priority_weight"].flatten()
    counts = torch.bincount(index, minlength=len(everything)).double()
    assert ((counts / 30_000 - probability).abs() < 2 / 30_000).all()  # stratified: nearly exact
    expected = probability.min() / probability[index]
    torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=0)
    value = torch.sin(index.double())
    weighted = (weight * value).sum() / weight.sum()
    assert weighted.item() == pytest.approx(torch.sin(everything.double()).mean().item(), abs=1e-3)
    half = replay.sample(100, beta=0.5, generator=generator())
    expected = (probability.min() / probability[half["index"].flatten()]) ** 0.5
    torch.testing.assert_close(half["priority_weight"].flatten().double(), expected)


def test_errors_of_frames_that_are_gone_are_left_out() -> None:
    story = Story()
    replay = make(story, story.chunk(6), capacity=8 * NUM_ENVS, priority_alpha=1.0)
    batch = replay.sample(200, generator=generator())
    replay.extend(story.chunk(6))  # the four oldest vector steps go
    replay.update_priority(batch["index"], torch.full((200, 1), 5.0))
    index = replay.sample(1000, generator=generator())["index"]
    assert index.min() >= 4 * NUM_ENVS
    old = (index < 6 * NUM_ENVS).double().mean()  # 6 of priority 5, 18 of priority 1
    assert old.item() == pytest.approx(30 / 48, abs=0.01)


def test_slices_are_drawn_by_their_first_frame() -> None:
    story = Story()
    replay = make(story, story.chunk(10), priority_alpha=1.0)
    replay.update_priority(torch.arange(30)[:, None], torch.linspace(0.1, 3, 30)[:, None])
    draws = [generator(), generator()]
    single = replay.sample(50, beta=0.4, generator=draws[0])
    data = replay.sample_sequences(50, 3, 1, beta=0.4, generator=draws[1])
    for key in ("index", "priority_weight"):
        assert data[key].shape == (50, 4, 1)
        assert data[key].equal(single[key][:, None].expand(-1, 4, -1))
    replay.update_priority(data["index"][:, 0], torch.ones(50, 1))


def test_refusals() -> None:
    story = Story()
    first = story.chunk(4)
    plain, by_priority = make(story, first), make(story, first, priority_alpha=0.5)
    assert not plain.prioritized and "priority_weight" not in plain.sample(3).keys()
    with pytest.raises(ConfigError, match="no priorities to update; make it with priority_alpha"):
        plain.update_priority(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1))
    with pytest.raises(ConfigError, match="2 errors for 3 frames; expected one each"):
        by_priority.update_priority(torch.zeros(3, 1, dtype=torch.long), torch.zeros(2, 1))
    with pytest.raises(ConfigError, match=r"priority_alpha=-1: expected more than 0"):
        make(story, first, priority_alpha=-1)
    states: list[dict[str, Any]] = [plain.state_dict(), by_priority.state_dict()]
    with pytest.raises(ConfigError, match="replay has priorities, unlike this run's"):
        plain.load_state_dict(states[1])
    with pytest.raises(ConfigError, match="replay has no priorities, unlike this run's"):
        by_priority.load_state_dict(states[0])
    with pytest.raises(ConfigError, match=r"has priority_alpha=0\.5 and .* this run's 0\.7"):
        make(story, first, priority_alpha=0.7).load_state_dict(states[1])
