"""Selective parameter sharing: who is alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchrl.data import Binary

from hetmarl.data import selective_sharing
from hetmarl.networks import SePSConfig
from hetmarl.networks.seps import Experience, find_sets, k_means
from hetmarl_envs import make_env
from hetmarl_envs.errors import ConfigError
from tests.networks.toys import AlikeEnv, ImageEnv, KindsEnv

QUICK: dict[str, Any] = {"frames": 1_000, "epochs": 10, "batch_size": 128}


@pytest.mark.parametrize("clusters", [None, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_kinds_are_told_apart(clusters: int | None, seed: int) -> None:
    """They observe and are rewarded alike; only what their actions bring about differs."""
    env = KindsEnv(num_envs=10, seed=seed)
    sets = selective_sharing(env, SePSConfig(clusters=clusters, **QUICK), seed)
    assert sets == [["a", "c"], ["b", "d"]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_who_is_alike_shares(seed: int) -> None:
    """Though their observations have unequal lengths, and their bounds are infinite."""
    sets = selective_sharing(AlikeEnv(num_envs=10, seed=seed), SePSConfig(**QUICK), seed)
    assert sets == [["a", "c", "b", "d"]]


@pytest.mark.parametrize("clusters", [1, 3, 4])
def test_as_many_sets_as_asked_for(clusters: int) -> None:
    env = KindsEnv(num_envs=10)
    sets = selective_sharing(env, SePSConfig(clusters=clusters, frames=300, epochs=2))
    assert len(sets) == clusters
    assert sorted(name for names in sets for name in names) == ["a", "b", "c", "d"]


def test_equal_seeds_find_equal_sets_and_touch_no_other_random_numbers() -> None:
    config = SePSConfig(clusters=3, frames=200, epochs=1)
    found = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        expected = torch.random.get_rng_state().clone()
        found.append(selective_sharing(KindsEnv(num_envs=10), config, 7))
        assert torch.equal(torch.random.get_rng_state(), expected)
    assert found[0] == found[1]


def test_images_and_choices_are_read_too() -> None:
    sets = selective_sharing(ImageEnv(num_envs=10), SePSConfig(clusters=2, **QUICK))
    assert sets == [["eye_0", "eye_1"], ["knob"]]


def test_rewards_alone_tell_agents_apart() -> None:
    torch.manual_seed(0)
    team = []
    for sign in (1.0, -1.0, 1.0):
        seen, action = torch.randn(400, 2), torch.randn(400, 1)
        team.append(Experience(seen, action, seen + 0.1 * action, sign * action))
    assert find_sets(team, SePSConfig(epochs=30)) == [[0, 2], [1]]


def test_the_dead_teach_nothing() -> None:
    """What an agent's body does after its death would look like another kind."""

    class Mortal(AlikeEnv):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            shape = (*self.batch_size, 2, 1)
            spec = self.observation_spec.clone()
            spec["plain", "alive"] = Binary(1, shape, dtype=torch.bool)
            self.observation_spec = spec

        def _seen(self) -> Any:
            data, step = super()._seen(), self._steps.unsqueeze(1).expand(-1, 2, 1)
            seen = torch.where(step > 2, 100.0, data["plain", "observation"])
            return data.update({"plain": {"observation": seen, "alive": step < 2}})

    sets = selective_sharing(Mortal(num_envs=10), SePSConfig(**QUICK))
    assert sets == [["a", "c", "b", "d"]]


def test_too_many_clusters() -> None:
    with pytest.raises(ConfigError, match=r"clusters=5: the team has 4 agents"):
        selective_sharing(KindsEnv(), SePSConfig(clusters=5, frames=6))


def test_k_means_finds_what_lies_together() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    truth = torch.arange(30) % 3
    points = centres[truth] + torch.randn(30, 2)
    labels = k_means(points, 3)
    assert ((labels[:, None] == labels) == (truth[:, None] == truth)).all()
    assert k_means(points, 1).unique().numel() == 1
    assert k_means(points, 30).unique().numel() == 30
    assert k_means(torch.ones(4, 2), 3).unique().numel() == 1


@pytest.mark.slow
def test_a_task_with_two_sides() -> None:
    """The adversary is told from the good agents, who share."""
    env = make_env("vmas/simple_adversary", num_envs=20, seed=0, team_reward="mean")
    assert selective_sharing(env) == [["adversary_0"], ["agent_0", "agent_1"]]
