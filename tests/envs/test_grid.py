"""Foraging and warehouses: the libraries' numbers, ends, exact resume, pictures."""

from __future__ import annotations

import io
import re
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import load_env_creator

from hetmarl.data.collector import can_save
from hetmarl_envs import TeamSpec, check_team_env, list_tasks, make_env, registry
from hetmarl_envs.errors import ConfigError, MissingExtraError, UnknownNameError
from hetmarl_envs.grid.picture import CELL, Tile, draw
from hetmarl_envs.grid.tasks import (
    FORAGING,
    WAREHOUSES,
    foraging_arguments,
    warehouse_arguments,
)
from hetmarl_envs.registry import get_family


def needs(family: str) -> pytest.MarkDecorator:
    missing = get_family(family).missing()
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


# Task, options that make episodes end soon, the library's name of it.
PLAYED = [
    pytest.param(task, options, name, marks=needs(task.partition("/")[0]), id=task)
    for task, options, name in [
        ("lbf/8x8-2p-2f-coop", {"max_episode_steps": 9}, "Foraging-8x8-2p-2f-coop-v3"),
        ("lbf/2s-10x10-3p-3f", {"max_episode_steps": 9}, "Foraging-2s-10x10-3p-3f-v3"),
        ("rware/tiny-2ag", {"max_steps": 9}, "rware-tiny-2ag-v2"),
        ("rware/small-4ag-hard", {"max_steps": 9, "msg_bits": 2}, "rware-small-4ag-hard-v2"),
    ]
]
played = pytest.mark.parametrize(("task", "options", "name"), PLAYED)


def bare(name: str, **options: Any) -> Any:
    """The library's own environment."""
    __import__("rware" if name.startswith("rware") else "lbforaging")
    spec = gymnasium.registry[name]
    # not gymnasium.make, which keeps max_episode_steps for itself
    return load_env_creator(spec.entry_point)(**{**spec.kwargs, **options})


# ---------------------------------------------------------------------- names and options
def test_tasks_are_listed_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_installed", lambda name: False)
    assert len(list_tasks("lbf")) == len(FORAGING) == 10
    assert len(list_tasks("rware")) == len(WAREHOUSES) == 9
    for family, package in (("lbf", "lbforaging"), ("rware", "rware")):
        pip = f'needs {package}, not installed here: pip install "hetmarl[grid]"'
        with pytest.raises(MissingExtraError, match=re.escape(pip)):
            make_env(list_tasks(family)[0])


@needs("lbf")
def test_names_mean_what_lbforaging_registers() -> None:
    import lbforaging  # noqa: F401

    registered = {
        name: spec.kwargs for name, spec in gymnasium.registry.items() if "Foraging" in name
    }
    assert len(registered) > 1000
    for name, arguments in registered.items():
        short = name.removeprefix("Foraging-").removesuffix("-v3")
        for task in (name, short):
            assert {**foraging_arguments(task), "grid_observation": False} == arguments


@needs("rware")
def test_names_mean_what_rware_registers() -> None:
    import rware  # noqa: F401

    registered = {name: spec.kwargs for name, spec in gymnasium.registry.items() if "rware" in name}
    assert len(registered) > 200
    for name, arguments in registered.items():
        short = name.removeprefix("rware-").removesuffix("-v2")
        for task in (name, short):
            found = warehouse_arguments(task)
            assert found.pop("reward_type") == arguments["reward_type"].name.lower()
            assert found == {k: v for k, v in arguments.items() if k != "reward_type"}


def test_names_that_are_none() -> None:
    with pytest.raises(UnknownNameError, match=r"'lbf/8x8-2p' is no task. Did you mean '8x8-2p-2f"):
        foraging_arguments("8x8-2p")
    with pytest.raises(
        UnknownNameError, match=r"is no task. Did you mean 'tiny-.ag'.*<tiny\|small"
    ):
        warehouse_arguments("tiny-2agent")


@needs("lbf")
@needs("rware")
@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("lbf/8x8-2p-2f", {"max_steps": 5}, "no option 'max_steps'. Did you mean 'max_episode_st"),
        ("lbf/8x8-2p-2f", {"render_mode": "human"}, "no option 'render_mode'"),
        ("lbf/8x8-2p-2f", {"max_episode_steps": None}, "=None, expected a whole number of at"),
        ("lbf/8x8-2p-2f", {"min_player_level": 3}, "cannot be made with .*min_player_level.*less"),
        ("lbf/8x8-2p-2f", {"team_reward": "max"}, "team_reward='max', expected one of"),
        ("rware/tiny-2ag", {"max_steps": 0}, "max_steps=0, expected a whole number of at least 1"),
        ("rware/tiny-2ag", {"reward_type": "shared"}, r"expected one of \['global', 'individual'"),
        ("rware/tiny-2ag", {"shelf_columns": 2}, "cannot be made with .*Only odd number"),
    ],
)
def test_wrong_options(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_env(task, **options)


# ---------------------------------------------------------------------- the same numbers
@played
def test_equals_the_library(task: str, options: dict[str, Any], name: str) -> None:
    """Observations, rewards and ends of two rows, through their third episodes."""
    env = make_env(task, num_envs=2, seed=3, **options)
    rows = [bare(name, **options) for _ in range(2)]
    seeds = list(env._rows._seeds)

    def same(data: Any, row: int, seen: Any) -> None:
        assert np.array_equal(data["agents", "observation"][row].numpy(), np.stack(seen))

    data = env.reset()
    for row, reference in enumerate(rows):
        same(data, row, reference.reset(seed=seeds[row])[0])
    for step in range(1, 26):
        stepped, data = env.step_and_maybe_reset(env.rand_action(data))
        for row, reference in enumerate(rows):
            seen, rewards, over, *_ = reference.step(stepped["agents", "action"][row].tolist())
            after = stepped["next"][row]
            same(stepped["next"], row, seen)  # the true last observation, where an episode ends
            assert after["agents", "reward"].flatten().tolist() == np.float32(rewards).tolist()
            assert after["reward"].item() == pytest.approx(sum(rewards))
            assert bool(after["done"]) == over
            assert bool(after["truncated"]) == over == (step % 9 == 0)
            if over:
                same(data, row, reference.reset()[0])


@played
def test_the_contract_holds(task: str, options: dict[str, Any], name: str) -> None:
    env = make_env(task, num_envs=3, **options)
    spec = check_team_env(env, steps=20)
    assert list(spec.groups) == ["agents"] and spec.state_dim is None
    assert env.max_steps == 9


@needs("lbf")
def test_no_food_left_is_an_end() -> None:
    env: Any = make_env("lbf/8x8-2p-2f-coop", num_envs=2)
    data = env.reset()
    env._rows.envs[0].env.field[...] = 0
    data = env.step(env.rand_action(data))["next"]
    assert data["terminated"].flatten().tolist() == [True, False]
    assert not data["truncated"].any()


@needs("lbf")
def test_all_food_is_a_return_of_one() -> None:
    """Two agents of level one at their one food, of level two."""
    env: Any = make_env("lbf/8x8-2p-1f-coop", max_player_level=1)
    data = env.reset()
    world = env._rows.envs[0].env
    ((row, column),) = np.argwhere(world.field)
    assert world.field[row, column] == 2
    for player, aside in zip(world.players, (-1, 1), strict=True):
        player.position = (row, column + aside)
    world._gen_valid_moves()
    data["agents", "action"] = torch.full((1, 2), 5)
    after = env.step(data)["next"]
    assert after["agents", "reward"].flatten().tolist() == [0.5, 0.5]
    assert after["reward"].item() == 1.0 and after["terminated"].item()
    mean = make_env("lbf/8x8-2p-1f-coop", team_reward="mean")
    assert mean.rollout(3)["next", "reward"].shape == (1, 3, 1)


@needs("rware")
def test_messages_and_pictures_are_options_of_a_warehouse() -> None:
    told = TeamSpec.from_env(make_env("rware/tiny-2ag", msg_bits=1)).agents[0]
    assert told.action.choices == (5, 2)
    seen = TeamSpec.from_env(make_env("rware/tiny-2ag", observation_type="image")).agents[0]
    assert seen.observation_shape == (5, 3, 3)


@needs("lbf")
def test_a_seed_forgets_what_was_before() -> None:
    """``lbforaging`` places nobody where somebody stood at the end of the last episode."""
    for seed in range(30):
        env = make_env("lbf/5x5-4p-1f", seed=seed)
        first = env.reset()
        env.rollout(20)
        env.set_seed(seed)
        assert (env.reset() == first).all()


# ---------------------------------------------------------------------- resume, workers, pictures
RESUMED = [
    *PLAYED,
    pytest.param(
        "rware/tiny-2ag",
        {"reward_type": "two_stage", "max_steps": 30},
        "",
        marks=needs("rware"),
        id="two_stage",
    ),
]


@pytest.mark.parametrize(("task", "options", "name"), RESUMED)
def test_resumes_exactly_in_another_environment(
    task: str, options: dict[str, Any], name: str
) -> None:
    """From the middle of an episode, through a file, with ends after it."""
    first, second = (make_env(task, num_envs=3, seed=s, **options) for s in (1, 2))
    assert can_save(first)
    torch.manual_seed(0)
    data = first.reset()
    for _ in range(13):
        _, data = first.step_and_maybe_reset(first.rand_action(data))
    file = io.BytesIO()
    torch.save(first.runtime_state(), file)
    file.seek(0)
    second.load_runtime_state(torch.load(file, weights_only=True))
    twin = data.clone()
    for _ in range(60):
        first.rand_action(data)
        twin["agents", "action"] = data["agents", "action"].clone()
        stepped, data = first.step_and_maybe_reset(data)
        other, twin = second.step_and_maybe_reset(twin)
        assert (stepped == other).all()
        assert (data == twin).all()


@played
def test_saved_before_the_first_episode(task: str, options: dict[str, Any], name: str) -> None:
    """As an evaluation does, which begins with the same episodes every time."""
    env = make_env(task, num_envs=2, **options)
    state = env.runtime_state()
    first = env.reset()
    env.rollout(12)
    env.load_runtime_state(state)
    assert (env.reset() == first).all()


@needs("rware")
def test_what_is_carried_is_resumed() -> None:
    """A robot on its way with a requested shelf delivers it in the environment that goes on."""
    first, second = (make_env("rware/tiny-2ag", seed=s) for s in (1, 2))
    first.reset()
    world: Any = first._rows.envs[0].env
    shelf, robot = world.request_queue[0], world.agents[0]
    goal_x, goal_y = world.goals[0]
    world.agents[1].x, world.agents[1].y = 0, 0
    robot.carrying_shelf, robot.x, robot.y = shelf, goal_x, goal_y - 1
    shelf.x, shelf.y = robot.x, robot.y
    robot.dir = type(robot.dir).DOWN
    world._recalc_grid()
    second.reset()
    second.load_runtime_state(first.runtime_state())
    ahead = first.full_action_spec.zero()
    ahead["agents", "action"][:, 0] = 1
    for env in (first, second):
        after = env.step(ahead.clone())["next"]
        assert after["agents", "reward"].flatten().tolist() == [1.0, 0.0]


@needs("lbf")
def test_in_workers() -> None:
    settings: Any = {"num_envs": 3, "seed": 5, "max_episode_steps": 4}
    alone = make_env("lbf/8x8-2p-2f", **settings)
    shared: Any = make_env("lbf/8x8-2p-2f", **settings, num_workers=2, start_method="fork")
    data, twin = alone.reset(), shared.reset()
    for _ in range(6):
        twin["agents", "action"] = alone.rand_action(data)["agents", "action"].clone()
        stepped, data = alone.step_and_maybe_reset(data)
        other, twin = shared.step_and_maybe_reset(twin)
        assert (stepped == other).all() and (data == twin).all()
    shared.close()


@played
def test_pictures(task: str, options: dict[str, Any], name: str) -> None:
    env: Any = make_env(task, num_envs=2, **options)
    env.reset()
    world = env._rows.envs[1].env
    rows, columns = getattr(world, "grid_size", None) or world.field_size
    assert env.render(1).shape == (CELL * rows, CELL * columns, 3)
    assert env.render(1).dtype == np.uint8


def test_tiles_stand_in_their_cells() -> None:
    blank = draw((2, 3), [])
    assert blank.shape == (2 * CELL, 3 * CELL, 3)
    changed = np.argwhere((draw((2, 3), [Tile(1, 2, (0, 0, 0), "")]) != blank).any(-1))
    assert changed.min(0).tolist() >= [CELL, 2 * CELL]
    assert changed.mean(0) == pytest.approx([1.5 * CELL, 2.5 * CELL], abs=1)
