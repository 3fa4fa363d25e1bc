"""Replay against plain Python lists: every transition of every pattern of episode ends."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hetmarl.data import Replay
from hetmarl_envs.errors import ConfigError, HetmarlError
from tests.data.stories import GAMMA, NUM_ENVS, Story, check, equals, index_of, make
from tests.teams import STATELESS, UNEQUAL


@pytest.mark.parametrize("kind", ["memory", "disk", "compact"])
@pytest.mark.parametrize("n_step", [1, 5, 30])
@pytest.mark.parametrize("ends", [0.0, 0.3, 1.0])
def test_every_transition(ends: float, n_step: int, kind: str, tmp_path: Path) -> None:
    story = Story(ends=ends, seed=n_step)
    settings: dict[str, Any] = {"directory": None if kind == "memory" else tmp_path}
    if kind == "compact":
        settings["observation_index"] = index_of(story.spec)
    replay = make(story, story.chunk(4), **settings)
    check(story, replay, n_step)
    for length in (1, 12, 5, 3, 12, 7, 12, 2, 12):  # several times round the ring
        replay.extend(story.chunk(length))
        if length in (1, 3, 7):
            check(story, replay, n_step)
    check(story, replay, n_step)
    assert replay.steps == 70 > 2 * replay.slots - 1


def test_without_state() -> None:
    story = Story(STATELESS)
    check(story, make(story, story.chunk(9)), 3)
    story = Story(STATELESS, memory=True)
    check(story, make(story, story.chunk(9), observation_index=index_of(STATELESS)), 3)


def test_capacity_rounds_up_to_vector_steps() -> None:
    story = Story()
    replay = make(story, story.chunk(5), capacity=4)
    assert replay.capacity == 2 and len(replay) == 6
    check(story, replay, 4)


@pytest.mark.parametrize("compact", [False, True])
def test_observations_are_stored_once(compact: bool, tmp_path: Path) -> None:
    """One row per frame and kind, nothing for ``next``; with an index nothing twice."""
    story = Story()
    index = index_of(UNEQUAL) if compact else None
    make(story, story.chunk(3), directory=tmp_path, observation_index=index)
    slots, seen = NUM_ENVS * (20 + 12 + 1), 5 + (3 if compact else 2 * 3 + 4)
    widths = {
        "observed.float32": 4 * seen,
        "observed.bool": 3,
        "action.float32": 4 * (2 * 2 + 1),
        "step.reward": 4,
        "step.flags": 1,
        "step.final_at": 4,
        "final.float32": 4 * seen,
        "final.bool": 3,
    }
    sizes = {path.stem: path.stat().st_size for path in tmp_path.glob("*.bin")}
    assert sizes.pop("step.reached") == 8
    assert sizes == {name: slots * width for name, width in widths.items()}


@pytest.mark.parametrize("disk", [False, True])
def test_final_observations_take_the_room_of_those_that_are_gone(
    disk: bool, tmp_path: Path
) -> None:
    """In a long run as much as the ring holds, not as many as there ever were."""
    story = Story(ends=0.2)
    replay = make(story, story.chunk(12), directory=tmp_path if disk else None)
    most = 0
    for _ in range(25):
        replay.extend(story.chunk(12))
        held = [frame for row in story.frames for frame in row[-replay.slots :]]
        most = max(most, sum(frame["done"] for frame in held))
    ever = sum(frame["done"] for row in story.frames for frame in row)
    # those of a chunk come before those they replace are known to be gone
    assert replay._finals.taken <= most + 12 < ever / 2
    check(story, replay, 3)


def test_draws_uniformly_and_by_its_generator() -> None:
    story = Story()
    replay = make(story, story.chunk(10), capacity=8 * NUM_ENVS)
    draws = [replay.sample(4800, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert (draws[0] == draws[1]).all()
    counts = Counter(draws[0]["body", "action"].flatten().tolist())
    window = {f["action"] for row in story.frames for f in row[2:]}
    assert set(counts) == window and len(window) == 24
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 49.7  # chi-square, 23, p = .001


def test_samples_are_transitions() -> None:
    story = Story()
    replay = make(story, story.chunk(10))
    data = replay.sample(64, n_step=3, gamma=GAMMA)
    by_action = {f["action"]: (e, s) for e, r in enumerate(story.frames) for s, f in enumerate(r)}
    drawn = [by_action[action] for action in data["body", "action"].flatten().tolist()]
    equals(story, data, [story.transition(*place, 3) for place in drawn])


@pytest.mark.parametrize("steps", [(12, 11), (5, 3)], ids=["full", "half full"])
@pytest.mark.parametrize("kind", ["memory", "disk", "compact", "compact disk"])
def test_goes_back_to_a_checkpoint(kind: str, steps: tuple[int, int], tmp_path: Path) -> None:
    """After up to ``spare`` more steps the saved moment is still all there, more than once."""
    story = Story(ends=0.4)
    settings: dict[str, Any] = {"directory": tmp_path / "replay" if "disk" in kind else None}
    if "compact" in kind:
        settings["observation_index"] = index_of(UNEQUAL)
    replay = make(story, story.chunk(steps[0]), **settings)
    replay.extend(story.chunk(steps[1]))
    for ahead in ((5, 7), (12,), (1,)):  # written, then lost in a crash
        torch.save(replay.state_dict(), tmp_path / "state.pt")
        past = story.save()
        for length in ahead:
            replay.extend(story.chunk(length))
        check(story, replay, 4)
        story.load(past)
        replay = Replay(Story().chunk(1), UNEQUAL, 20 * NUM_ENVS, spare=12, keep=True, **settings)
        replay.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        check(story, replay, 4)
        for length in (9, 2):
            replay.extend(story.chunk(length))
        check(story, replay, 4)


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("kills", [1, 3])
def test_a_cut_ends_episodes_where_they_are(disk: bool, kills: int, tmp_path: Path) -> None:
    """A run taken up in fresh episodes, also when it is killed again before its next checkpoint."""
    story = Story(ends=0.2)
    settings: dict[str, Any] = {"directory": tmp_path if disk else None}
    settings["observation_index"] = index_of(UNEQUAL)
    replay = make(story, story.chunk(12), **settings)
    replay.extend(story.chunk(11))
    saved = replay.state_dict()
    for row in story.frames:
        row[-1]["done"] = True  # truncated, unless it ended by itself
    past = story.save()
    for _ in range(kills):
        story.load(past)
        story.now = [story.fresh() for _ in range(NUM_ENVS)]
        example = Story().chunk(1)
        again = Replay(example, UNEQUAL, 20 * NUM_ENVS, spare=12, keep=disk, **settings)
        again.load_state_dict(saved)
        again.cut()
        check(story, again, 4)
        again.extend(story.chunk(9))
        check(story, again, 4)


@pytest.mark.parametrize("disk", [False, True])
def test_a_saved_state_does_not_tell_whether_the_run_was_interrupted(
    disk: bool, tmp_path: Path
) -> None:
    """The whole state, priorities among it, bit by bit."""

    def run(directory: Path | None, interrupted: bool) -> dict[str, Any]:
        story = Story(ends=0.3, seed=1)
        settings: dict[str, Any] = {"directory": directory, "priority_alpha": 0.6}
        replay = make(story, story.chunk(12), **settings)
        for number in range(8):
            replay.extend(story.chunk(7))
            learn(replay, number)
            if interrupted and number in (1, 5):
                saved, past = replay.state_dict(), story.save()
                replay.extend(story.chunk(11))
                learn(replay, 100)
                story.load(past)
                replay = Replay(
                    Story().chunk(1), UNEQUAL, 20 * NUM_ENVS, spare=12, keep=True, **settings
                )
                replay.load_state_dict(saved)
        return replay.state_dict()

    def learn(replay: Replay, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        batch = replay.sample(16, beta=0.4, generator=generator)
        replay.update_priority(batch["index"], batch["next", "reward"] - 0.3)

    whole = run(tmp_path / "a" if disk else None, False)
    parts = run(tmp_path / "b" if disk else None, True)
    assert str(whole) == str(parts)  # all names and plain values
    tensors = zip(leaves(whole), leaves(parts), strict=True)
    assert all(torch.equal(a, b) for a, b in tensors)
    assert any(len(tensor) for tensor in leaves(whole))


def leaves(state: Any) -> list[torch.Tensor]:
    """All tensors of a state."""
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state
    nested = [v for v in values if isinstance(v, (dict, list, torch.Tensor))]
    return [tensor for value in nested for tensor in leaves(value)]


def test_a_disk_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story()
    chunk = story.chunk(12)
    replay = Replay(chunk, UNEQUAL, 20 * NUM_ENVS, spare=12, directory=tmp_path / "sizes")
    frame = 4 * (5 + 2 * 3 + 4) + 3 + 4 * 5 + 4 + 1 + 4
    needed = NUM_ENVS * replay.slots * frame
    for _ in range(4):
        replay.extend(story.chunk(12))
    replay.state_dict()  # flushes

    def build(free: int, name: str = "new", **settings: Any) -> Replay:
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        directory = tmp_path / name
        return Replay(chunk, UNEQUAL, 20 * NUM_ENVS, spare=12, directory=directory, **settings)

    message = (
        rf"will take 0\.01 MB more \(99 frames of {frame} bytes\), and its disk has 0\.01 MB free"
        r"\. Set a smaller data\.buffer_size, data\.storage=memory, or a run_dir on another disk"
    )
    with pytest.raises(ConfigError, match=message):
        build(needed - 1)
    assert list((tmp_path / "new").iterdir()) == []
    build(needed, "enough")
    build(5 * NUM_ENVS * frame, "short run", total_steps=5)
    with pytest.raises(ConfigError, match=rf"15 frames of {frame} bytes in each of 2 processes"):
        build(2 * 5 * NUM_ENVS * frame - 1, total_steps=5, processes=2)
    build(0, "sizes", keep=True)  # to go on takes no more


def test_refusals(tmp_path: Path) -> None:
    story = Story()
    chunk = story.chunk(4)
    with pytest.raises(ConfigError, match=r"capacity=0 frames .* expected at least 1 frame"):
        Replay(chunk, UNEQUAL, 0, spare=8)
    with pytest.raises(ConfigError, match=r"as many spare steps as a chunk has \(4\)"):
        Replay(chunk, UNEQUAL, 10, spare=3)
    replay = Replay(chunk, UNEQUAL, 10, spare=4)
    with pytest.raises(HetmarlError, match="nothing to sample yet"):
        replay.sample(1)
    with pytest.raises(ConfigError, match=r"chunk of 5 vector steps, expected at most 4 \(spare\)"):
        replay.extend(Story().chunk(5))
    other = Replay(chunk, UNEQUAL, 100, spare=4)
    with pytest.raises(ConfigError, match=r"replay has slots=9, this run's 39\. Resume with"):
        other.load_state_dict(replay.state_dict())
    with pytest.raises(HetmarlError, match=r"observed\.float32\.bin is missing"):
        Replay(chunk, UNEQUAL, 10, spare=4, directory=tmp_path, keep=True)
