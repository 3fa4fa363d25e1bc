"""Gymnasium's environments as teams of one: the same numbers, ends, seeds, exact resume."""

from __future__ import annotations

import enum
import io
from collections import OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from hetmarl.data.collector import can_save
from hetmarl_envs import check_team_env, list_tasks, make_env
from hetmarl_envs.errors import ConfigError, ContractError, MissingExtraError, UnknownNameError
from hetmarl_envs.gymnasium import LISTED, GymnasiumEnv
from hetmarl_envs.gymnasium.saving import load, save

FAST = ("CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Hopper-v5")
listed = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in LISTED],
)


@listed
def test_equals_gymnasium(name: str) -> None:
    """Observations, rewards, ends, through two episodes, with the seed that the row was given."""
    env = GymnasiumEnv(name, num_envs=2, seed=4, max_episode_steps=12)
    seed = env._rows._seeds[1]  # type: ignore[union-attr]
    bare = gymnasium.make(name, max_episode_steps=12)
    data = env.reset()
    seen, info = bare.reset(seed=seed)
    for _ in range(25):
        expected = gymnasium.spaces.flatten(bare.observation_space, seen)
        assert np.allclose(data["agents", "observation"][1, 0], expected.astype(np.float32), atol=0)
        if "action_mask" in info:
            assert (
                data["agents", "action_mask"][1, 0].int().tolist() == info["action_mask"].tolist()
            )
        env.rand_action(data)
        action = data["agents", "action"][1, 0].numpy()
        action = action if action.shape else int(action)
        stepped, data = env.step_and_maybe_reset(data)
        seen, reward, terminated, truncated, info = bare.step(action)
        last = stepped["next"][1]
        assert last["reward"].item() == np.float32(reward)
        assert bool(last["terminated"]) == terminated
        assert bool(last["truncated"]) == (truncated and not terminated)
        expected = gymnasium.spaces.flatten(bare.observation_space, seen)
        assert np.allclose(last["agents", "observation"][0], expected.astype(np.float32), atol=0)
        if terminated or truncated:
            seen, info = bare.reset()
    bare.close()


@pytest.mark.slow
@listed
def test_resumes_exactly_in_another_environment(name: str) -> None:
    """From the middle of an episode, through a file, with ends after it."""
    first, second = (make_env(f"gymnasium/{name}", num_envs=2, seed=s) for s in (1, 2))
    assert can_save(first)
    torch.manual_seed(0)
    steps = 40
    data = first.rollout(steps, break_when_any_done=False)[..., -1]
    root = first.step_mdp(data)
    if root["done"].any():
        root = first.reset(root.set("_reset", root["done"]))
    file = io.BytesIO()
    torch.save(first.runtime_state(), file)
    file.seek(0)
    second.load_runtime_state(torch.load(file, weights_only=True))
    twin = root.clone()
    for _ in range(steps):
        first.rand_action(root)
        twin["agents", "action"] = root["agents", "action"].clone()
        stepped, root = first.step_and_maybe_reset(root)
        other, twin = second.step_and_maybe_reset(twin)
        assert (stepped == other).all()
        assert (root == twin).all()


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MuJoCo warns of gymnasium's own models in a file where it stands."""
    monkeypatch.chdir(tmp_path)


def test_time_limits_truncate_and_deaths_terminate() -> None:
    limited = make_env("gymnasium/Pendulum-v1", num_envs=2, max_episode_steps=5)
    assert limited.max_steps == 5
    data = limited.rollout(10, break_when_any_done=False)["next"]
    assert data["truncated"][..., 0].sum(1).tolist() == [2, 2] and not data["terminated"].any()
    data = make_env("gymnasium/CartPole-v1", num_envs=4).rollout(80, break_when_any_done=False)
    assert data["next", "terminated"].any() and not data["next", "truncated"].any()


def test_names_and_options() -> None:
    assert "gymnasium/Pendulum-v1" in list_tasks("gymnasium")
    assert set(LISTED) <= set(gymnasium.registry)
    assert make_env("gymnasium/Pendulum-v1", g=1.0).task == "Pendulum-v1"
    with pytest.raises(UnknownNameError, match=r"no environment 'Pendulm-v1'.*Did you mean 'Pendu"):
        make_env("gymnasium/Pendulm-v1")
    with pytest.raises(ConfigError, match=r"CartPole-v1 cannot be made with options .*gravty"):
        make_env("gymnasium/CartPole-v1", gravty=3)
    with pytest.raises(ConfigError, match=r"expected a gymnasium\.Env"):
        GymnasiumEnv(lambda: object())


class Mine(gymnasium.Env[Any, Any]):
    """Counts; what it holds besides is for the subclasses."""

    observation_space = Box(-1, 1, (1,))
    action_space = Discrete(2)
    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.random(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return self.np_random.random(1, np.float32), 1.0, False, self.count == 3, {}


def test_what_cannot_be_saved_is_not_resumed() -> None:
    class Emulator:
        pass

    class Opaque(Mine):
        def reset(self, **settings: Any) -> Any:
            self.emulator = Emulator()
            return super().reset(**settings)

    class Own(Opaque):
        def runtime_state(self) -> dict[str, Any]:
            return {"count": self.count, "random": self.np_random.bit_generator.state}

        def load_runtime_state(self, state: dict[str, Any]) -> None:
            self.count = state["count"]
            self.np_random.bit_generator.state = state["random"]

    assert can_save(GymnasiumEnv(Mine)) and can_save(GymnasiumEnv(Own))
    env = GymnasiumEnv(Opaque)
    assert not can_save(env)
    check_team_env(env, steps=7)
    check_team_env(GymnasiumEnv(Own, num_envs=2), steps=7)


def test_one_simulator_for_all_rows_is_refused() -> None:
    mine = Mine()
    for make in (lambda: mine, lambda: gymnasium.wrappers.TimeLimit(mine, 5)):
        with pytest.raises(ConfigError, match="must make a new environment at every call"):
            GymnasiumEnv(make, num_envs=2)


Point = namedtuple("Point", "x y")
Gear = enum.IntEnum("Gear", ["LOW", "HIGH"])


@pytest.mark.parametrize(
    "value",
    [Point(1, 2), [Point(1, 2)], Gear.LOW, defaultdict(int, a=1), OrderedDict(a=1), np.ma.ones(2)],
)
def test_what_would_come_back_as_less_is_not_saved(value: Any) -> None:
    env = Mine()
    env.reset(seed=0)
    env.thing = value  # type: ignore[attr-defined]
    with pytest.raises(ContractError, match=r"Mine\.thing.*Give the environment runtime_state\(\)"):
        save(env)


def test_a_tuple_stays_one() -> None:
    env, other = Mine(), Mine()
    env.thing = (1, [2, (3,)])  # type: ignore[attr-defined]
    load(other, save(env))
    assert other.thing == (1, [2, (3,)])  # type: ignore[attr-defined]


def test_attributes_come_and_go() -> None:
    env, other = Mine(), Mine()
    for each in (env, other):
        each.reset(seed=0)
    env.table = {1: (np.float32(2.5), [np.arange(3)]), "name": b"x"}  # type: ignore[attr-defined]
    other.late = [1.0]  # type: ignore[attr-defined]
    load(other, save(env))
    assert not hasattr(other, "late")
    number, (array,) = other.table[1]  # type: ignore[attr-defined]
    assert number == 2.5 and type(number) is np.float32 and array.tolist() == [0, 1, 2]
    env.table[1][1][0][0] = 9  # type: ignore[attr-defined]
    assert array[0] == 0, "a copy"
    assert other.np_random.random() == env.np_random.random()


def test_a_package_that_is_missing() -> None:
    gymnasium.register("NeedsMore-v0", "no_such_package_at_all:Env")
    try:
        with pytest.raises(MissingExtraError, match="no_such_package_at_all"):
            make_env("gymnasium/NeedsMore-v0")
    finally:
        del gymnasium.registry["NeedsMore-v0"]


def test_in_workers() -> None:
    settings: Any = {"num_envs": 3, "seed": 5, "max_episode_steps": 4}
    alone = GymnasiumEnv("Pendulum-v1", **settings)
    shared = GymnasiumEnv("Pendulum-v1", **settings, num_workers=2, start_method="fork")
    torch.manual_seed(1)
    data, twin = alone.reset(), shared.reset()
    for _ in range(6):
        twin["agents", "action"] = alone.rand_action(data)["agents", "action"].clone()
        stepped, data = alone.step_and_maybe_reset(data)
        other, twin = shared.step_and_maybe_reset(twin)
        assert (stepped == other).all() and (data == twin).all()
    shared.close()
