"""Slices in time against plain Python lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from hetmarl.data import Replay, TeamCollector
from hetmarl.networks import OnPolicyNetworkConfig, TeamPolicy
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError
from tests.data.stories import GAMMA, NUM_ENVS, Story, equals, index_of, make, places
from tests.teams import UNEQUAL, CountingEnv


def check(story: Story, replay: Replay, length: int, n_step: int) -> None:
    """Every slice that may be drawn, step by step."""
    found = places(story, replay)
    env, step = (torch.tensor(column) for column in zip(*found, strict=True))
    data = replay.sequences(env, step, length, n_step=n_step, gamma=GAMMA)
    assert data.batch_size == (len(found), length)
    newest = len(story.frames[0])
    exists = step[:, None] + torch.arange(length) < newest
    assert data["valid"].squeeze(-1).equal(exists)
    expected = [
        # a transition stops at the end of its slice
        story.transition(e, s + t, min(n_step, length - t))
        for e, s in found
        for t in range(length)
        if s + t < newest
    ]
    equals(story, data[exists], expected)
    # the memory before a transition's last observation is one that the slice runs through
    end = torch.arange(length) + data["steps_to_next_obs"].squeeze(-1)
    assert (end[exists] <= length).all()
    padding = data[~exists]
    assert (padding["next", "reward"] == 0).all()
    assert not padding["is_init"].any() and not padding["next", "terminated"].any()


@pytest.mark.parametrize("kind", ["memory", "compact disk"])
@pytest.mark.parametrize("n_step", [1, 4])
@pytest.mark.parametrize("ends", [0.0, 0.3, 1.0])
def test_every_slice(ends: float, n_step: int, kind: str, tmp_path: Path) -> None:
    story = Story(ends=ends, seed=n_step, memory=True)
    settings: dict[str, Any] = {}
    if kind == "compact disk":
        settings = {"directory": tmp_path, "observation_index": index_of(UNEQUAL)}
    replay = make(story, story.chunk(4), **settings)
    check(story, replay, 7, n_step)  # longer than all there is
    for length in (11, 12, 7, 12, 2, 12):
        replay.extend(story.chunk(length))
    check(story, replay, 7, n_step)
    check(story, replay, 1, n_step)


def test_slices_begin_anywhere_and_burn_in_comes_before() -> None:
    story = Story(memory=True)
    replay = make(story, story.chunk(12))
    draw = [torch.Generator().manual_seed(0) for _ in range(3)]
    data = replay.sample_sequences(400, 3, 2, n_step=2, gamma=GAMMA, generator=draw[0])
    assert data.batch_size == (400, 5)
    starts = replay.sample(400, generator=draw[1])
    assert data[:, 0]["body", "action"].equal(starts["body", "action"])
    assert len(data[:, 0]["body", "action"].unique()) == 12 * NUM_ENVS
    again = replay.sample_sequences(400, 5, n_step=2, gamma=GAMMA, generator=draw[2])
    assert (again == data).all()
    with pytest.raises(ConfigError, match=r"length=0 and burn_in=1; expected at least 1 step"):
        replay.sample_sequences(4, 0, 1)


def test_recurrent_states_of_collected_chunks() -> None:
    """A network that runs over a slice from its stored state does what it did in the episodes."""
    env = CountingEnv(num_envs=3, max_steps=5)
    spec = TeamSpec.from_env(env)
    torch.manual_seed(0)
    config = OnPolicyNetworkConfig(hidden_sizes=[4], memory="gru", memory_size=3)
    policy = TeamPolicy(spec, config)
    collector = TeamCollector(env, policy, seed=0)
    chunk, _ = collector.collect(12, 0)
    replay = Replay(chunk, spec, 36, spare=12)
    replay.extend(chunk)
    replay.extend(collector.collect(9, 1)[0])
    data = replay.sample_sequences(50, 6, generator=torch.Generator().manual_seed(0))
    data = data[data["valid"].all(1).squeeze(-1)]
    assert len(data) > 10 and data["is_init"][:, 1:].any()
    after = data["next", "hidden"]
    for i, name in enumerate(spec.names):
        observation = spec.observation(data, i)
        with torch.no_grad():
            _, hidden = policy.actors[i](observation, None, policy.memory(data, i))
        torch.testing.assert_close(hidden, after[name][:, -1])
        # and of the transition's last observation: the state that goes on from there
        inside = ~data["is_init"][:, 1:].squeeze(-1)
        assert torch.equal(after[name][:, :-1][inside], data["hidden", name][:, 1:][inside])


def test_transitions_have_them_too() -> None:
    story = Story(memory=True)
    replay = make(story, story.chunk(10))
    data = replay.sample(20)
    assert isinstance(data, TensorDict)
    assert data["hidden", "left"].shape == data["next", "hidden", "left"].shape == (20, 2)
