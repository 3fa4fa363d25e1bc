"""Replay against plain Python lists: every transition of every pattern of episode ends."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from hetmarl.data import Replay
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError, HetmarlError
from tests.teams import STATELESS, UNEQUAL

NUM_ENVS, GAMMA = 3, 0.9


class Story:
    """Environments whose every observation is a number of its own, and what happened in them."""

    def __init__(self, spec: TeamSpec = UNEQUAL, ends: float = 0.3, seed: int = 0) -> None:
        self.spec, self.ends = spec, ends
        self.random = random.Random(seed)
        self.count = 0
        self.now = [self.fresh() for _ in range(NUM_ENVS)]
        self.frames: list[list[dict[str, Any]]] = [[] for _ in range(NUM_ENVS)]

    def fresh(self) -> float:
        self.count += 1
        return float(self.count)

    def seen(self, number: float) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for group, members in self.spec.groups.items():
            width = self.spec.agents[members[0]].observation_shape[0]
            observation = torch.full((len(members), width), number)
            observation += torch.arange(len(members))[:, None] / 10
            alive = torch.full((len(members), 1), number % 3 != 0)
            values[group] = {"observation": observation, "alive": alive}
        if self.spec.state_dim is not None:
            values["state"] = torch.full((self.spec.state_dim,), -number)
        return values

    def chunk(self, steps: int) -> TensorDict:
        rows = []
        for env in range(NUM_ENVS):
            row = []
            for _ in range(steps):
                ended = self.random.random() < self.ends
                terminated = ended and self.random.random() < 0.5
                frame = {
                    "at": self.now[env],
                    "action": self.fresh(),
                    "reward": self.random.random(),
                    "after": self.fresh(),
                    "done": ended,
                    "terminated": terminated,
                }
                self.frames[env].append(frame)
                self.now[env] = self.fresh() if ended else frame["after"]
                row.append(self.tensors(frame))
            rows.append(torch.stack(row))
        return torch.stack(rows)

    def tensors(self, frame: dict[str, Any]) -> TensorDict:
        root, following = self.seen(frame["at"]), self.seen(frame["after"])
        for group, members in self.spec.groups.items():
            width = self.spec.agents[members[0]].action.dim
            root[group]["action"] = torch.full((len(members), width), frame["action"])
        following["reward"] = torch.tensor([frame["reward"]])
        for name in ("done", "terminated"):
            following[name] = torch.tensor([frame[name]])
        following["truncated"] = torch.tensor([frame["done"] and not frame["terminated"]])
        return TensorDict(root | {"next": following}, [])

    def transition(self, env: int, step: int, n_step: int) -> dict[str, Any]:
        """By the definition: up to n steps, to the episode's end or the newest frame."""
        frames = self.frames[env]
        reward, taken = 0.0, 0
        for frame in frames[step : step + n_step]:
            reward += GAMMA**taken * frame["reward"]
            taken += 1
            if frame["done"]:
                break
        return {
            "at": frames[step]["at"],
            "action": frames[step]["action"],
            "reward": reward,
            "after": frame["after"],
            "terminated": frame["terminated"],
            "steps": taken,
        }


def check(story: Story, replay: Replay, n_step: int) -> None:
    """Every transition that may be drawn is what the story says."""
    newest = len(story.frames[0])
    assert replay.steps == newest
    first = max(0, newest - replay.capacity)
    assert len(replay) == (newest - first) * NUM_ENVS
    places = [(env, step) for env in range(NUM_ENVS) for step in range(first, newest)]
    env, step = (torch.tensor(column) for column in zip(*places, strict=True))
    data = replay.transitions(env, step, n_step=n_step, gamma=GAMMA)
    assert data.batch_size == (len(places),)
    following = data["next"]
    for row, (e, s) in enumerate(places):
        expected = story.transition(e, s, n_step)
        assert data["steps_to_next_obs"][row].tolist() == [expected["steps"]]
        assert following["reward"][row].item() == pytest.approx(expected["reward"], rel=1e-5)
        assert following["terminated"][row].tolist() == [expected["terminated"]]
        assert (data["legs", "action"][row] == expected["action"]).all()
        assert (data["body", "action"][row] == expected["action"]).all()
        for part, number in ((data, expected["at"]), (following, expected["after"])):
            for key, value in TensorDict(story.seen(number)).items(True, True):
                assert torch.equal(part[key][row], value), (key, e, s)


def make(story: Story, first: TensorDict, **settings: Any) -> Replay:
    replay = Replay(first, story.spec, **{"capacity": 20 * NUM_ENVS, "spare": 12} | settings)
    replay.extend(first)
    return replay


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("n_step", [1, 2, 5, 30])
@pytest.mark.parametrize("ends", [0.0, 0.3, 1.0])
def test_every_transition(ends: float, n_step: int, disk: bool, tmp_path: Path) -> None:
    story = Story(ends=ends, seed=n_step)
    replay = make(story, story.chunk(4), directory=tmp_path if disk else None)
    check(story, replay, n_step)
    for length in (1, 12, 5, 3, 12, 7, 12, 2, 12):  # several times round the ring
        replay.extend(story.chunk(length))
        if length != 12:
            check(story, replay, n_step)
    check(story, replay, n_step)
    assert replay.steps == 70 > 2 * replay.slots - 1


def test_without_state() -> None:
    story = Story(STATELESS)
    check(story, make(story, story.chunk(9)), 3)


def test_capacity_rounds_up_to_vector_steps() -> None:
    story = Story()
    replay = make(story, story.chunk(5), capacity=4)
    assert replay.capacity == 2 and len(replay) == 6
    check(story, replay, 4)


def test_observations_are_stored_once() -> None:
    """One array of slots per key, and final ones apart: nothing for ``next``."""
    story = Story()
    names = set(make(story, story.chunk(3))._arrays())
    seen = ["legs.observation", "legs.alive", "body.observation", "body.alive", "state"]
    assert names == {
        *(f"{kind}.{key}" for kind in ("observed", "final") for key in seen),
        "action.legs.action",
        "action.body.action",
        "reward",
        "flags",
        "final_at",
    }


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
    for row in range(64):
        place = by_action[data["body", "action"][row].item()]
        expected = story.transition(*place, 3)
        assert data["next", "reward"][row].item() == pytest.approx(expected["reward"], rel=1e-5)


@pytest.mark.parametrize("disk", [False, True])
def test_goes_back_to_a_checkpoint(disk: bool, tmp_path: Path) -> None:
    """After up to ``spare`` more steps, the saved moment is still all there."""
    story = Story()
    directory = tmp_path if disk else None
    replay = make(story, story.chunk(12), directory=directory)
    replay.extend(story.chunk(11))
    saved = replay.state_dict()
    past = [list(row) for row in story.frames]
    now, count = list(story.now), story.random.getstate()
    for length in (5, 7):  # written, then lost in a crash
        replay.extend(story.chunk(length))
    check(story, replay, 4)
    story.frames, story.now = past, now
    example = Story().chunk(1)
    again = Replay(example, UNEQUAL, 20 * NUM_ENVS, spare=12, directory=directory, keep=True)
    again.load_state_dict(saved)
    check(story, again, 4)
    story.random.setstate(count)
    again.extend(story.chunk(9))
    check(story, again, 4)


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("kills", [1, 3])
def test_a_cut_ends_episodes_where_they_are(disk: bool, kills: int, tmp_path: Path) -> None:
    """A run taken up in fresh episodes, also when it is killed again before its next checkpoint."""
    story = Story(ends=0.2)
    directory = tmp_path if disk else None
    replay = make(story, story.chunk(12), directory=directory)
    replay.extend(story.chunk(11))
    saved = replay.state_dict()
    for row in story.frames:
        row[-1]["done"] = True  # truncated, unless it ended by itself
    past = [list(row) for row in story.frames]
    for _ in range(kills):
        story.frames = [list(row) for row in past]
        story.now = [story.fresh() for _ in range(NUM_ENVS)]
        example = Story().chunk(1)
        again = Replay(example, UNEQUAL, 20 * NUM_ENVS, spare=12, directory=directory, keep=disk)
        again.load_state_dict(saved)
        again.cut()
        check(story, again, 4)
        again.extend(story.chunk(9))
        check(story, again, 4)


def test_state_holds_plain_values(tmp_path: Path) -> None:
    story = Story()
    for directory in (None, tmp_path / "replay"):
        state = make(story, story.chunk(2), directory=directory).state_dict()
        story = Story()
        torch.save(state, tmp_path / "state.pt")
        loaded = torch.load(tmp_path / "state.pt", weights_only=True)
        assert loaded.keys() == state.keys()


def test_a_disk_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story()
    chunk = story.chunk(12)
    replay = Replay(chunk, UNEQUAL, 20 * NUM_ENVS, spare=12, directory=tmp_path / "sizes")
    arrays = replay._arrays()
    needed = sum(a.nbytes for name, a in arrays.items() if not name.startswith("final."))
    for _ in range(4):
        replay.extend(story.chunk(12))
    replay.state_dict()  # flushes
    frame = needed // (NUM_ENVS * replay.slots)

    def build(free: int, name: str = "new", **settings: Any) -> Replay:
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        directory = tmp_path / name
        return Replay(chunk, UNEQUAL, 20 * NUM_ENVS, spare=12, directory=directory, **settings)

    message = (
        rf"will take 0\.00 GB more \(99 frames of {frame} bytes\), and its disk has 0\.00 GB free"
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
    with pytest.raises(HetmarlError, match=r"observed\.legs\.observation\.bin is missing"):
        Replay(chunk, UNEQUAL, 10, spare=4, directory=tmp_path, keep=True)
