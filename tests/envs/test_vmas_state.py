"""VMAS: resets of single rows, the private random stream, saving and loading, for every scenario.

The reference throughout is the simulator itself: a copied row must continue exactly as the row that
it was copied from, an untouched row exactly as if there had been no reset, a loaded environment
exactly as the saved one.
"""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from hetmarl_envs import make_env
from hetmarl_envs.errors import ContractError
from hetmarl_envs.vmas import VMASEnv, graph, scenario_names

pytest.importorskip("vmas")

OPPOSED = ("simple_adversary", "simple_crypto", "simple_push", "simple_tag", "simple_world_comm")
SMALLER: dict[str, dict[str, Any]] = {
    "pollock": {"n_agents": 3, "n_lines": 3, "n_boxes": 3},
    "road_traffic": {"n_agents": 4},
    "football": {"n_blue_agents": 2, "n_red_agents": 2},
}
# options that turn off what is drawn while stepping, whose shape depends on the number of rows
NOISELESS: dict[str, dict[str, Any]] = {
    "asym_joint": {"obs_noise": 0.0},
    "discovery": {"targets_respawn": False},
    "football": {"disable_ai_red": True},
}
# its rows share ring buffers, which it turns for all of them whenever one is reset
ONE_BY_ONE = ("road_traffic",)
# always the same start; pollock's agents observe nothing of it
FIXED_START = (
    "circle_trajectory give_way line_trajectory multi_give_way pollock vel_control waterfall"
).split()
FAST = "balance navigation transport simple_spread het_mass simple_speaker_listener".split()
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in scenario_names()),
    ("ball_passage", {"fixed_passage": True}),
    ("football", {"disable_ai_red": True}),
    ("football", {"ai_red_agents": False, "enable_shooting": True, "team": "blue"}),
    ("football", {"n_blue_agents": 5, "physically_different": True}),
    ("give_way", {"dt_delay": 2}),
    ("goal", {"dt_delay": 2}),
    ("joint_passage", {"fixed_passage": False, "n_passages": 3}),
    ("simple_tag", {"team": "adversaries", "respawn_at_catch": True}),
]


def ids(variant: tuple[str, dict[str, Any]]) -> str:
    return "-".join([variant[0], *(f"{k}={v}" for k, v in variant[1].items())])


every_variant = pytest.mark.parametrize(
    ("name", "extra"),
    [pytest.param(*v, id=ids(v), marks=() if v[0] in FAST else pytest.mark.slow) for v in VARIANTS],
)


def make(name: str, num_envs: int = 5, seed: int = 0, **options: Any) -> VMASEnv:
    if name in OPPOSED and "team" not in options:
        options.setdefault("team_reward", "mean")
    env = make_env(
        f"vmas/{name}", num_envs=num_envs, seed=seed, **{**SMALLER.get(name, {}), **options}
    )
    assert isinstance(env, VMASEnv)
    return env


def actions(env: VMASEnv, steps: int, seed: int = 0) -> list[TensorDictBase]:
    """Random actions, drawn from the global generator and put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [env.full_action_spec.rand() for _ in range(steps)]


def step(env: VMASEnv, action: TensorDictBase) -> TensorDictBase:
    return env.step(action.clone())["next"]


def assert_equal(left: TensorDictBase, right: TensorDictBase, what: str) -> None:
    for key in left.keys(True, True):
        torch.testing.assert_close(
            left[key], right[key], rtol=0, atol=0, equal_nan=True, msg=f"{what}: {key} differs"
        )


def partial_reset(env: VMASEnv, rows: list[int]) -> TensorDictBase:
    """What the environment itself returns; ``env.reset`` would merge it into its argument."""
    mask = torch.zeros(env.num_envs, 1, dtype=torch.bool)
    mask[rows] = True
    return env._reset(TensorDict({"_reset": mask}, env.batch_size))


# ---------------------------------------------------------------------- resets of single rows
@pytest.mark.slow
@every_variant
def test_unfinished_rows_do_not_move(name: str, extra: dict[str, Any]) -> None:
    """Not by one bit: neither their observations, nor anything that the simulator holds of them."""
    if name in ONE_BY_ONE:
        pytest.skip("is reset row by row")
    env = make(name, **extra)
    env.reset()
    for action in actions(env, 4):
        before = step(env, action)
    state = simulator_tensors(env)
    after = partial_reset(env, [0, 3])
    rest = [1, 2, 4]
    for group in env.group_map:
        assert torch.equal(after[group, "observation"][rest], before[group, "observation"][rest])
    moved = 0
    for path, value in simulator_tensors(env).items():
        if value.shape[:1] == (env.num_envs,):
            equal = (value == state[path]) | ~(value == value)
            assert equal[rest].all(), path
            moved += not bool(equal.all())
        else:
            assert torch.equal(value, state[path]), path
    assert moved > 0


def simulator_tensors(env: VMASEnv) -> dict[str, Tensor]:
    found = graph.walk(env._simulator.scenario).tensors
    return {path: slot.value.clone() for path, slot in found.items()}


@pytest.mark.slow
@every_variant
def test_unfinished_rows_go_on_as_if_nothing_was_reset(name: str, extra: dict[str, Any]) -> None:
    """Beside a twin that had no reset and draws the same random numbers."""
    if name in ONE_BY_ONE:
        pytest.skip("is reset row by row")
    if name == "football" and "disable_ai_red" not in extra and "ai_red_agents" not in extra:
        pytest.skip("its scripted players draw as many numbers as rows in which they have the ball")
    env, control = make(name, **extra), make(name, **extra)
    env.reset()
    control.reset()
    for action in actions(env, 4):
        step(env, action)
        step(control, action)
    partial_reset(env, [0, 3])
    for action in actions(env, 5, seed=1):
        control._randomness.load_state_dict(env._randomness.state_dict())
        expected, found = step(control, action), step(env, action)
        assert_equal(expected[[1, 2, 4]], found[[1, 2, 4]], name)


@pytest.mark.slow
@every_variant
def test_a_reset_row_continues_as_the_row_it_was_copied_from(
    name: str, extra: dict[str, Any]
) -> None:
    """No part of a row's state is left behind: the fresh simulator makes the same episode of it."""
    if name in ONE_BY_ONE:
        pytest.skip("is reset row by row")
    if extra.get("respawn_at_catch") or (name, "ai_red_agents") == (name, *extra)[:2]:
        pytest.skip("draws random numbers while stepping, of a shape that depends on num_envs")
    options = {**NOISELESS.get(name, {}), **extra}
    env = make(name, **options)
    env.reset()
    for action in actions(env, 4):
        step(env, action)
    td = partial_reset(env, [0, 3])
    fresh = env._fresh
    assert fresh is not None and fresh._copier.provable(), fresh and fresh._copier.unproven
    simulator = fresh._fresh
    share(env._simulator.scenario, simulator.scenario)  # goals that the whole batch shares
    observations = env._team.stack(simulator.get_from_scenario(True, False, False, False)[0])
    for group in env.group_map:
        assert torch.equal(td[group, "observation"][[0, 3]], observations[group][:2])
    for action in actions(env, 4, seed=1):
        found = step(env, action)
        wide = []
        for values in env._read_actions(action):
            values = torch.cat([values[[0, 3]], values[:1].repeat(fresh.size - 2, 1)])
            wide.append(values)
        observation, reward, terminated, _, _ = simulator.step(wide)
        expected = env._team.stack(observation)
        for group, members in env._team.members.items():
            close(found[group, "observation"][[0, 3]], expected[group][:2])
            for i, member in enumerate(members):
                expected_reward = reward[env._team.positions[member]][:2].float()
                close(found[group, "reward"][[0, 3], i], expected_reward.reshape(2, 1))
        assert torch.equal(found["terminated"][[0, 3], 0], terminated[:2].bool())


def close(found: Tensor, expected: Tensor) -> None:
    """Equal but for the last bits, grown by stiff joints over a few steps.

    Vectorised sines depend on where in a batch a row stands.
    """
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)


def share(source: Any, target: Any) -> None:
    """Gives ``target`` what the sub-environments of ``source`` have in common."""
    ours, theirs = graph.walk(source), graph.walk(target)
    for path in ours.references:
        if path in theirs.references and ours.reference(path) != theirs.reference(path):
            slot = theirs.references[path]
            slot.container[slot.key] = theirs.owners[ours.reference(path)]
    for path, slot in ours.plain.items():
        if not path.endswith(("_batch_dim", "_batch_shape")) and path in theirs.plain:
            theirs.plain[path].container[theirs.plain[path].key] = slot.value
    for path, slot in ours.tensors.items():
        twin = theirs.tensors.get(path)
        if twin is not None and twin.value.shape == slot.value.shape:
            twin.container[twin.key] = slot.value.clone()


def test_more_finished_rows_than_fresh_ones_are_left() -> None:
    env = make("balance", num_envs=100)
    env.reset()
    for _ in range(7):
        td = partial_reset(env, list(range(60)))
    assert env._fresh is not None and env._fresh.size == 101
    first = td["agents", "observation"][:60]
    assert len(first.unique(dim=0)) == 60


def test_reset_of_no_row_and_of_all_rows() -> None:
    env = make("balance")
    td = env.reset()
    again = partial_reset(env, [])
    assert torch.equal(td["agents", "observation"], again["agents", "observation"])
    other = partial_reset(env, [0, 1, 2, 3, 4])
    assert not torch.equal(td["agents", "observation"], other["agents", "observation"])
    assert env._fresh is None


@pytest.mark.parametrize(
    "name", ["balance", "navigation", "transport", "simple_spread", "football", "buzz_wire"]
)
def test_fresh_rows_have_the_statistics_of_reset_at(name: str) -> None:
    """Kolmogorov–Smirnov distance of every observed quantity, at a level of about 1e-5."""
    env = make(name, num_envs=400)
    env.reset()
    for action in actions(env, 2):
        step(env, action)
    rows = list(range(300))
    copied = partial_reset(env, rows)
    with env._randomness:
        for row in rows:
            env._simulator._reset_at(row, return_observations=False)
        observations = env._team.stack(
            env._simulator._get_from_scenario(True, False, False, False)[0]
        )
    for group in env.group_map:
        ours = copied[group, "observation"][rows].flatten(1)
        theirs = observations[group][rows].flatten(1)
        for i in range(ours.shape[1]):
            distance = kolmogorov_smirnov(ours[:, i], theirs[:, i])
            assert distance < 2.5 * (2 / len(rows)) ** 0.5, f"{group}, observation {i}"


def kolmogorov_smirnov(left: Tensor, right: Tensor) -> float:
    left, right = left.round(decimals=4).sort().values, right.round(decimals=4).sort().values
    at = torch.cat([left, right])
    shares = (torch.searchsorted(values, at, right=True) / len(values) for values in (left, right))
    return float(torch.sub(*shares).abs().max())


# ---------------------------------------------------------------------- random streams
def test_environments_do_not_share_a_stream_nor_touch_the_global_ones() -> None:
    env, alone = make("navigation"), make("navigation")
    script = actions(env, 6)
    alone.reset()
    expected = [step(alone, action) for action in script] + [alone.reset()]
    env.reset()
    other = make("navigation", seed=7)
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for action, reference in zip(script, expected, strict=False):
        other.reset()
        step(other, action)
        assert_equal(reference, step(env, action), "with another environment beside")
    assert_equal(expected[-1], env.reset(), "the next episode")
    make("het_mass").reset()
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_the_streams_of_raw_vmas_environments_are_left_alone() -> None:
    from vmas.simulator.environment import Environment

    before = [torch.clone(Environment.vmas_random_state[0]), *Environment.vmas_random_state[1:]]
    env = make("het_mass")
    env.reset()
    step(env, actions(env, 1)[0])
    assert torch.equal(before[0], Environment.vmas_random_state[0])
    assert before[2] == Environment.vmas_random_state[2]


@pytest.mark.slow
@every_variant
def test_seeds(name: str, extra: dict[str, Any]) -> None:
    """Equal seeds, equal episodes, also when set later; sub-environments start differently."""
    env, same, late, other = (make(name, seed=s, **extra) for s in (3, 3, 0, 4))
    late.reset()
    if name != "wind_flocking":  # an agent keeps the wind of its last episode, in VMAS itself
        partial_reset(late, [0])
    late.set_seed(3)
    starts = [e.reset() for e in (env, same, late, other)]
    assert_equal(starts[0], starts[1], "same seed")
    assert_equal(starts[0], starts[2], "seed set later")
    for action in actions(env, 3):
        ends = [step(e, action) for e in (env, same, late)]
    assert_equal(ends[0], ends[1], "same seed")
    ends = [partial_reset(e, [1, 2]) for e in (env, same, late)]
    assert_equal(ends[0], ends[1], "same seed, after a partial reset")
    if name not in ONE_BY_ONE:
        assert_equal(ends[0], ends[2], "seed set later, after a partial reset")
    first, another = (
        torch.cat([start[group, "observation"].flatten(1) for group in env.group_map], dim=1)
        for start in (starts[0], starts[3])
    )
    if name not in FIXED_START:
        assert len(first.unique(dim=0)) == env.num_envs
        assert not torch.equal(first, another)


# ---------------------------------------------------------------------- saving and loading
def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint would store it: tensors and plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("reset_before_saving", [False, True])
@every_variant
def test_a_loaded_state_continues_bit_exactly(
    name: str, extra: dict[str, Any], reset_before_saving: bool
) -> None:
    env = make(name, **extra)
    env.reset()
    for i, action in enumerate(actions(env, 5)):
        step(env, action)
        if i == 2 and reset_before_saving:
            partial_reset(env, [0, 1])
    state = through_a_file(env.runtime_state())
    copy = make(name, seed=99, **extra)
    copy.load_runtime_state(state)
    for i, action in enumerate(actions(env, 8, seed=5)):
        assert_equal(step(env, action), step(copy, action), f"step {i}")
        if i in (1, 4):
            assert_equal(partial_reset(env, [1, 2]), partial_reset(copy, [1, 2]), "rows")
        if i == 5:
            assert_equal(env.reset(), copy.reset(), "reset")
    back = env.runtime_state(), copy.runtime_state()
    assert torch.equal(back[0]["randomness"]["torch"], back[1]["randomness"]["torch"])
    assert torch.equal(back[0]["steps"], back[1]["steps"])


def test_a_state_of_another_environment_is_refused() -> None:
    state = make("balance").runtime_state()
    with pytest.raises(ContractError, match="5 sub-environments, this environment has 6"):
        make("balance", num_envs=6).load_runtime_state(state)
    with pytest.raises(ContractError, match="same scenario, options and num_envs"):
        make("navigation").load_runtime_state(state)


def test_numpy_arrays_in_a_scenario_are_refused() -> None:
    env = make("balance")
    env._simulator.scenario.table = np.zeros(3)
    with pytest.raises(ContractError, match=r"numpy arrays .scenario/table."):
        env.runtime_state()


def test_an_environment_that_ran_meanwhile_goes_back() -> None:
    """Attributes made after the save do not survive the load."""
    env = make("balance", num_envs=4)
    env.reset()
    state = env.runtime_state()
    script = actions(env, 4)
    expected = [step(env, a) for a in script]
    partial_reset(env, [0])
    env.load_runtime_state(state)
    for action, reference in zip(script, expected, strict=True):
        assert_equal(reference, step(env, action), "replayed")
