"""Observations that are put together from the state: what environments say, and what it saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import TransformedEnv
from torchrl.envs.transforms import ObservationNorm

from hetmarl import TeamSpec, make_env
from hetmarl.data import Replay, TeamCollector
from hetmarl.networks import NetworkConfig, TeamPolicy
from hetmarl_envs import check_team_env
from hetmarl_envs.errors import ContractError
from hetmarl_envs.observation_index import ObservationIndex
from tests.data.stories import NUM_ENVS, Story, index_of, make
from tests.teams import STATELESS, UNEQUAL, CountingEnv

TASKS: list[tuple[str, dict[str, Any]]] = [
    ("humanoid_17x1", {}),
    ("humanoid_17x1", {"observability": "full"}),
    ("walker2d_2x3", {}),  # clipped velocities in the state, others in the observations
    ("hopper_3x1", {"observability": "full"}),
    ("reacher_2x1", {}),
    ("halfcheetah_1", {"observability": "full"}),
]


def collector(task: str, **options: Any) -> TeamCollector:
    env = make_env(f"mamujoco/{task}", **{"num_envs": 4, "seed": 0} | options)
    policy = TeamPolicy(TeamSpec.from_env(env), NetworkConfig(hidden_sizes=[4]))
    return TeamCollector(env, policy, seed=0)


@pytest.mark.parametrize(("task", "options"), TASKS, ids=[f"{t}-{len(o)}" for t, o in TASKS])
def test_mamujoco_batches_are_those_of_a_plain_replay(task: str, options: dict[str, Any]) -> None:
    collecting = collector(task, **options)
    chunk, _ = collecting.collect(25, 0, random=True)
    index = collecting.env.observation_index
    spec = collecting.spec
    replays = [
        Replay(chunk, spec, 80, spare=25, observation_index=given) for given in (None, index)
    ]
    for replay in replays:
        replay.extend(chunk)
    for number in (1, 2):
        chunk, _ = collecting.collect(25, number, random=True)
        for replay in replays:
            replay.extend(chunk)
    draws = [r.sample(60, n_step=3, generator=torch.Generator().manual_seed(0)) for r in replays]
    assert set(draws[1].keys(True, True)) == set(draws[0].keys(True, True))
    assert (draws[0] == draws[1]).all()
    slices = [r.sample_sequences(9, 4, generator=torch.Generator().manual_seed(0)) for r in replays]
    assert (slices[0] == slices[1]).all()
    assert replays[1].need.frame_bytes < replays[0].need.frame_bytes or task == "halfcheetah_1"


def test_bytes_of_humanoid_17x1(tmp_path: Path) -> None:
    """On disk, of real episodes, with the spare steps of the default intervals (2 %)."""
    collecting = collector("humanoid_17x1", num_envs=8)
    spec, capacity = collecting.spec, 600
    chunk, _ = collecting.collect(2, 0, random=True)
    replay = Replay(
        chunk,
        spec,
        capacity,
        spare=2,
        directory=tmp_path,
        observation_index=collecting.env.observation_index,
    )
    number = 0
    while replay.steps < 1.5 * replay.slots:  # round the ring
        replay.extend(chunk)
        number += 1
        chunk, _ = collecting.collect(2, number, random=True)
    replay.state_dict()  # flushes
    taken = sum(512 * file.stat().st_blocks for file in tmp_path.glob("*.bin"))
    assert len(replay) == capacity and len(replay.sample(10)) == 10
    assert taken / capacity <= 1.2 * 4 * (348 + 17 + 4)
    assert replay.need.frame_bytes == 4 * (348 + 17 + 1) + 1 + 4


def test_source_holds_every_number_once() -> None:
    index = ObservationIndex(index_of(UNEQUAL), UNEQUAL)
    assert index.width == 5 + 3
    data = Story().chunk(2)
    source = index.compress(data)
    assert source.shape == (NUM_ENVS, 2, 8)
    for group, observation in index.expand(source).items():
        assert observation.equal(data[group, "observation"])
    stateless = ObservationIndex(index_of(STATELESS), STATELESS)
    assert stateless.compress(Story(STATELESS).chunk(2)).shape == (NUM_ENVS, 2, 3)


def test_groups_may_be_left_out() -> None:
    story = Story()
    places = {"body": index_of(UNEQUAL)["body"] - 2}
    replay = make(story, story.chunk(4), observation_index=places)
    assert replay.need.frame_bytes == 4 * (5 + 1 + 2 * 3) + 3 + 4 * 5 + 4 + 1 + 4
    assert replay.sample(5)["legs", "observation"].shape == (5, 2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body": torch.zeros(1, 3)}, r"\['body'\] has shape \[1, 3\].*'body': \[1, 4\]"),
        ({"head": torch.zeros(1, 4)}, r"\['head'\] has shape \[1, 4\].*of a group of the team"),
        ({"body": torch.tensor([[5, 6, 7, 9]])}, r"without a gap; .* nobody observes \[8\]"),
        ({"body": torch.tensor([[0, 1, 2, -1]])}, r"expected places from 0 on.*least is -1"),
    ],
)
def test_an_index_that_does_not_fit_the_team(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        ObservationIndex(index_of(UNEQUAL) | change, UNEQUAL)


def test_an_index_that_does_not_fit_the_data() -> None:
    """In the first chunk, before anything is written, and in later ones."""
    story = Story()
    wrong = index_of(UNEQUAL)
    wrong["legs"] = torch.tensor([[5, 5, 5], [6, 5, 6]])
    message = (
        r"observation_index\['legs'\]\[1, 1\] says that number 1 of what agent 'right' observes "
        r"is always .* env\.observation_index = None on the transformed environment"
    )
    with pytest.raises(ContractError, match=message):
        Replay(story.chunk(2), UNEQUAL, 30, spare=12, observation_index=wrong)
    replay = make(story, story.chunk(2), observation_index=index_of(UNEQUAL))
    chunk = story.chunk(2)
    chunk["body", "observation"] = chunk["body", "observation"].clone()
    chunk["body", "observation"][1, 0, 0, 2] += 1
    before = replay.state_dict()
    with pytest.raises(ContractError, match=r"\['body'\]\[0, 2\] .*agent 'body'"):
        replay.extend(chunk)
    after = replay.state_dict()
    assert after["steps"] == before["steps"]
    arrays = [(TensorDict(state["arrays"])) for state in (before, after)]
    assert (arrays[0] == arrays[1]).all()


def test_minus_zero_is_not_zero() -> None:
    story = Story()
    story.now = [0.0] * NUM_ENVS
    chunk = story.chunk(2)
    chunk["body", "observation"] = chunk["body", "observation"].clone()
    chunk["body", "observation"][0, 0, 0, 1] = -0.0
    with pytest.raises(ContractError, match="in the data it is not, bit by bit"):
        Replay(chunk, UNEQUAL, 30, spare=12, observation_index=index_of(UNEQUAL))


def test_check_team_env_reads_it() -> None:
    env = CountingEnv()
    env.observation_index = {"narrow": torch.tensor([[0, 1]]), "wide": torch.tensor([[0, 1, 2]])}
    check_team_env(env, thorough=False)
    env.observation_index["narrow"] = torch.tensor([[1, 0]])
    with pytest.raises(ContractError, match=r"observation_index\['narrow'\]\[0, 0\]"):
        check_team_env(env, thorough=False)


def test_a_transform_that_changes_observations() -> None:
    """Is found out, and what the message says helps."""
    env = make_env("mamujoco/halfcheetah_2x3", num_envs=2)
    scaled = TransformedEnv(env, ObservationNorm(0.0, 2.0, in_keys=[("agents", "observation")]))
    with pytest.raises(ContractError, match=r"env\.observation_index = None"):
        check_team_env(scaled)
    scaled.observation_index = None
    check_team_env(scaled)
