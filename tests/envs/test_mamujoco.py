"""MAMuJoCo: contract, starts, resume, rendering, silence and errors."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDictBase
from torchrl.envs.utils import check_env_specs

from hetmarl_envs import check_team_env, list_tasks, make_env
from hetmarl_envs.errors import ConfigError, UnknownNameError
from hetmarl_envs.mamujoco import MAMuJoCoEnv
from hetmarl_envs.mamujoco.simulator import SimulationError
from hetmarl_envs.mamujoco.tasks import parse_task, task_name

pytest.importorskip("mujoco")

TASKS = list_tasks("mamujoco")
SOME = [
    "mamujoco/ant_4x2",
    "mamujoco/coupledhalfcheetah_1p1",
    "mamujoco/halfcheetah_6x1",
    "mamujoco/hopper_3x1",
    "mamujoco/humanoid_9x8",
    "mamujoco/pusher_3p",
]


def collect(env: Any, steps: int, data: TensorDictBase | None = None) -> tuple[Any, Any]:
    """Steps with automatic resets; the chunk ``[num_envs, steps]`` and what comes next."""
    data = env.reset() if data is None else data
    chunk = []
    for _ in range(steps):
        now, data = env.step_and_maybe_reset(env.rand_action(data))
        chunk.append(now)
    return torch.stack(chunk, 1), data


def assert_same(a: TensorDictBase, b: TensorDictBase) -> None:
    assert set(a.keys(True, True)) == set(b.keys(True, True))
    for key in a.keys(True, True):
        assert torch.equal(a[key], b[key]), key


# ---------------------------------------------------------------------- contract
@pytest.mark.parametrize("task", TASKS)
def test_contract(task: str) -> None:
    env = make_env(task, num_envs=2, max_episode_steps=2)
    spec = check_team_env(env, steps=5, thorough=False)
    assert spec.state_dim == env.observation_spec["state"].shape[-1]
    assert list(spec.names) == [f"agent_{i}" for i in range(spec.num_agents)]
    check_env_specs(env)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_batch_axis(num_envs: int) -> None:
    data = make_env("mamujoco/hopper_3x1", num_envs=num_envs).rollout(4)
    assert data.batch_size == (num_envs, 4)
    assert data["agents_0", "observation"].shape == (num_envs, 4, 2, 8)
    assert data["agents_1", "observation"].shape == (num_envs, 4, 1, 9)
    assert data["next", "reward"].shape == (num_envs, 4, 1)


def test_groups_are_classes_of_equal_spaces() -> None:
    env = make_env("mamujoco/hopper_3x1")
    assert env.group_map == {"agents_0": ["agent_0", "agent_2"], "agents_1": ["agent_1"]}
    assert make_env("mamujoco/ant_4x2").group_map == {"agents": [f"agent_{i}" for i in range(4)]}


def test_actions_reach_their_actuators() -> None:
    env = make_env("mamujoco/humanoid_9x8")
    data = env.rand_action(env.reset())
    upper, lower = data["agents_0", "action"][0, 0], data["agents_1", "action"][0, 0]
    env.step(data)
    ctrl = torch.from_numpy(env._team.simulator.ctrl[0]).float()
    order = [2, 0, 1, 11, 12, 13, 14, 15, 16]  # abdomen x, y, z, then the arms
    assert torch.equal(ctrl[order], upper)
    assert torch.equal(ctrl[[3, 5, 4, 6, 7, 9, 8, 10]], lower)  # hips x, y, z and knees


@pytest.mark.parametrize("task", ["mamujoco/humanoid_9x8", "mamujoco/pusher_3p"])
def test_random_actions_fill_the_bounds(task: str) -> None:
    env = make_env(task, num_envs=200)
    for data in (env.rand_action(), env.rand_action(env.reset())):
        for group in env.group_map:
            space = env.full_action_spec[group, "action"].space
            action = data[group, "action"]
            assert ((space.low <= action) & (action <= space.high)).all()
            assert action.max() > 0.9 * space.high.max() and action.min() < 0.9 * space.low.min()


def test_time_limit_is_truncation_and_final_observation_is_kept() -> None:
    env = make_env("mamujoco/halfcheetah_2x3", num_envs=2, max_episode_steps=3)
    chunk, _ = collect(env, 7)
    truncated = chunk["next", "truncated"][..., 0]
    assert truncated.tolist() == [[False, False, True, False, False, True, False]] * 2
    assert not chunk["next", "terminated"].any()
    assert torch.equal(chunk["next", "done"], chunk["next", "truncated"])
    after, before = chunk["next", "state"][:, :-1], chunk["state"][:, 1:]
    follows = (after == before).all(-1)
    assert follows.tolist() == (~truncated[:, :-1]).tolist()


def test_default_time_limits() -> None:
    limits = {"halfcheetah_2x3": 1000, "reacher_2x1": 50, "pusher_3p": 100}
    for task, limit in limits.items():
        assert make_env(f"mamujoco/{task}").max_steps == limit


def test_full_observability_is_the_standardised_state_and_number() -> None:
    partial = make_env("mamujoco/humanoid_9x8", num_envs=2, seed=5)
    full = make_env("mamujoco/humanoid_9x8", num_envs=2, seed=5, observability="full")
    state, seen = partial.reset()["state"].double(), full.reset()
    assert full.observation_spec["agents_0", "observation"].shape == (2, 1, 350)
    for i, group in enumerate(("agents_0", "agents_1")):
        number = torch.nn.functional.one_hot(torch.tensor(i), 2).double().expand(2, 2)
        vector = torch.cat([state, number], -1).numpy()
        expected = (vector - vector.mean(-1, keepdims=True)) / vector.std(-1, keepdims=True)
        np.testing.assert_allclose(seen[group, "observation"][:, 0], expected, atol=1e-5)
    expected = (state - state.mean(-1, True)) / state.std(-1, correction=0, keepdim=True)
    torch.testing.assert_close(seen["state"], expected.float())


def test_full_observability_groups_by_actions_only() -> None:
    env = make_env("mamujoco/hopper_3x1", observability="full")
    assert env.group_map == {"agents": ["agent_0", "agent_1", "agent_2"]}
    check_team_env(env)


def test_repaired_graph_sees_its_own_joints() -> None:
    env = make_env("mamujoco/coupledhalfcheetah_1p1", repair_graph=True)
    data = env.step(env.rand_action(env.reset()))["next"]
    qpos = torch.from_numpy(env._team.simulator.qpos[0]).float()
    first, second = data["agents", "observation"][0]
    assert qpos[3] in first and qpos[12] not in first
    assert qpos[12] in second and qpos[3] not in second

    env = make_env("mamujoco/manysegmentant_2x1", repair_graph=True)
    group = env._team.groups["agents"]
    names = [env._team.simulator.model.actuator(int(a)).trnid[0] for a in group.actuators]
    joints = [env._team.simulator.model.joint(int(j)).name for j in names]
    assert joints == [
        *("hip1_0", "ankle1_0", "hip2_0", "ankle2_0"),
        *("hip1_1", "ankle1_1", "hip2_1", "ankle2_1"),
    ]


# ---------------------------------------------------------------------- starts
@pytest.mark.parametrize("task", SOME)
def test_same_seed_same_everything(task: str) -> None:
    chunks = []
    for _ in range(2):
        torch.manual_seed(0)
        chunks.append(collect(make_env(task, num_envs=3, seed=7, max_episode_steps=5), 8)[0])
    assert_same(*chunks)


@pytest.mark.parametrize("task", TASKS)
def test_sub_environments_start_differently(task: str) -> None:
    env = make_env(task, num_envs=3, seed=0)
    state = env.reset()["state"]
    assert not (state[0] == state[1]).all() and not (state[1] == state[2]).all()
    again = env.reset()["state"]
    assert not (again[0] == state[0]).all()
    assert not torch.equal(make_env(task, num_envs=3, seed=1).reset()["state"], state)
    env.set_seed(0)
    assert torch.equal(env.reset()["state"], state)


def test_number_of_threads_changes_nothing() -> None:
    chunks = []
    for threads in (1, 3):
        torch.manual_seed(0)
        env = make_env("mamujoco/ant_4x2", num_envs=5, num_threads=threads, max_episode_steps=6)
        chunks.append(collect(env, 9)[0])
    assert_same(*chunks)


# ---------------------------------------------------------------------- resume
@pytest.mark.parametrize("task", TASKS)
def test_continues_bit_exactly(task: str, tmp_path: Path) -> None:
    """A new environment goes on where the old one stood, resets and rewards included."""
    torch.manual_seed(0)
    env = make_env(task, num_envs=3, seed=1, max_episode_steps=12)
    _, data = collect(env, 10)
    torch.save(env.runtime_state(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    carrier, random = data.clone(), torch.get_rng_state()
    expected, _ = collect(env, 10, data)

    other = make_env(task, num_envs=3, seed=2, max_episode_steps=12)
    collect(other, 3)
    other.load_runtime_state(saved)
    torch.set_rng_state(random)
    continued, _ = collect(other, 10, carrier)
    assert expected["next", "truncated"].any() or expected["next", "terminated"].any()
    assert_same(expected, continued)


def test_runtime_state_is_a_copy() -> None:
    env = make_env("mamujoco/ant_4x2", num_envs=2)
    _, data = collect(env, 3)
    saved = env.runtime_state()
    before = {k: v.clone() for k, v in saved["simulator"].items()}
    collect(env, 3, data)
    assert all(torch.equal(before[k], saved["simulator"][k]) for k in before)


def test_runtime_state_of_another_environment_is_refused() -> None:
    state = make_env("mamujoco/ant_4x2", num_envs=2).runtime_state()
    with pytest.raises(ConfigError, match=r"2 sub-environments .*num_envs=3"):
        make_env("mamujoco/ant_4x2", num_envs=3).load_runtime_state(state)
    with pytest.raises(ConfigError, match=r"scenario 'Ant' .* 'HalfCheetah'"):
        make_env("mamujoco/halfcheetah_2x3", num_envs=2).load_runtime_state(state)


@pytest.mark.slow
# ---------------------------------------------------------------------- silence, rendering
def test_listing_imports_no_simulator_and_running_prints_and_writes_nothing(
    tmp_path: Path,
) -> None:
    script = """
        import sys, warnings
        import torchrl.envs  # imports MuJoCo by itself where it is installed
        before = set(sys.modules)
        import hetmarl_envs
        assert hetmarl_envs.list_tasks("mamujoco")
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        assert not new & {"mujoco", "gymnasium", "gymnasium_robotics"}, new
        assert "hetmarl_envs.mamujoco.simulator" not in sys.modules

        warnings.simplefilter("error")
        for task in ("halfcheetah_2x3", "coupledhalfcheetah_1p1", "manysegmentant_2x2"):
            env = hetmarl_envs.make_env(f"mamujoco/{task}", num_envs=4)
            env.rollout(5)
            # so fast that MuJoCo gives up and restarts the simulation, which it would log
            env._team.simulator.qvel[1] = 1e12
            env._team.step()
            env.close()
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root / "envs"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert done.stdout == ""
    told = [line for line in done.stderr.splitlines() if line]
    assert len(told) == 3 and all("simulation 1 became unstable" in line for line in told)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mamujoco/halfcheetah_2x3", "mamujoco/reacher_2x1"])
def test_render(task: str) -> None:
    env = make_env(task, num_envs=2)
    env.reset()
    for _ in range(5):
        env.step(env.rand_action(env.reset()))
    before = env.runtime_state()["simulator"]["state"]
    first, second = env.render(), env.render(1, height=120, width=160)
    assert first.shape == (480, 480, 3) and first.dtype == np.uint8
    assert second.shape == (120, 160, 3)
    assert first.std() > 5 and not (env.render(1) == first).all()
    assert (env.render([0, 1]) == np.hstack([first, env.render(1)])).all()
    assert torch.equal(env.runtime_state()["simulator"]["state"], before)
    env.close()


def test_closed_environment_says_so() -> None:
    env = make_env("mamujoco/halfcheetah_2x3", num_envs=2)
    data = env.rand_action(env.reset())
    env.close()
    env.close()
    with pytest.raises(SimulationError, match="closed"):
        env.step(data)


def _step_after_fork(env: Any) -> None:
    try:
        env._team.step()
    except SimulationError as error:
        sys.exit(7 if "another process" in str(error) else 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_environment_says_so() -> None:
    env = make_env("mamujoco/halfcheetah_2x3", num_envs=8, num_threads=2)
    env.reset()
    child = multiprocessing.get_context("fork").Process(target=_step_after_fork, args=(env,))
    child.start()
    child.join(60)
    assert child.exitcode == 7


# ---------------------------------------------------------------------- names and errors
def test_names() -> None:
    assert parse_task("humanoid_9x8") == parse_task("humanoid_9|8") == ("Humanoid", "9|8")
    assert parse_task("HalfCheetah_2x3") == ("HalfCheetah", "2x3")
    assert parse_task("manysegmentant_7x3") == ("ManySegmentAnt", "7x3")
    assert parse_task("pusher_7x1") == ("Pusher", "7x1")
    for task in TASKS:
        name = task.partition("/")[2]
        assert task_name(*parse_task(name)) == name


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("halfchetah_2x3", r"scenario 'halfchetah'.*Did you mean 'halfcheetah_2x3'"),
        ("ant_3x3", r"no factorization '3x3'; expected one of 1, 1x8, 2x4, 2x4d, 4x2, 8x1"),
        ("ant", r"no factorization ''"),
        ("hopper_3x2", r"Did you mean 'hopper_3x1'"),
        ("invertedpendulum_1x1", r"expected '1', its only one"),
        ("manysegmentant_3", r"expected '<agents>x<segments per agent>'"),
        ("manysegmentswimmer_1x1", r"two segments at least"),
        ("manysegmentswimmer_0x5", r"no factorization '0x5'"),
    ],
)
def test_unknown_names(task: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        make_env(f"mamujoco/{task}")


def test_unknown_scenario_of_the_class() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'HalfCheetah'"):
        MAMuJoCoEnv("HalfChetah", "2x3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, r"num_envs=0: expected a whole number of at least 1"),
        ({"num_threads": 0}, r"num_threads=0"),
        ({"seed": -1}, r"seed=-1: expected a whole number of at least 0"),
        ({"max_episode_steps": 0}, r"max_episode_steps=0"),
        ({"observability": "ful"}, r"observability='ful': expected 'partial' or 'full'"),
        ({"agent_obsk": -1}, r"agent_obsk=-1: expected a whole number of at least 0"),
        ({"agent_obsk": None}, r"agent_obsk=None.*halfcheetah_1"),
        ({"agent_obsk": 1.5}, r"agent_obsk=1.5"),
        ({"agent_obsc": 1}, r"no option 'agent_obsc'. Did you mean 'agent_obsk'"),
        ({"ctrl_cost": 1}, r"no option 'ctrl_cost'. Did you mean 'ctrl_cost_weight'"),
        ({"ctrl_cost_weight": "1"}, r"ctrl_cost_weight='1', expected a number"),
        ({"ctrl_cost_weight": True}, r"ctrl_cost_weight=True, expected a number"),
        ({"local_categories": ["qpos"]}, r"one list of categories per distance"),
        ({"local_categories": [["qpos"]]}, r"has 1 lists; agent_obsk=1 needs 2"),
        ({"local_categories": [["qpo"], []]}, r"'qpo' is no category.*Did you mean 'qpos'"),
        ({"global_categories": "qpos"}, r"expected a list of categories"),
        ({"global_categories": ["qval"]}, r"Did you mean 'qvel'"),
        ({"local_categories": 1}, r"one list of categories per distance"),
        ({"local_categories": [["cvel"], []], "global_categories": []}, r"agent_0 .* see nothing"),
        ({"partition": 2}, r"expected one list of joint names per agent"),
        ({"partition": "2x3"}, r"expected one list of joint names per agent"),
        ({"partition": ["bthigh", "bshin"]}, r"expected one list of joint names per agent"),
        ({"partition": [["bthigh"], []]}, r"agent_1 has no joint"),
        ({"partition": [["bthig"]]}, r"unknown joint 'bthig'. Did you mean 'bthigh'"),
        (
            {"partition": [["bthigh", "bshin"], ["bshin"]]},
            r"joint 'bshin' belongs to agent_0 and to agent_1",
        ),
        ({"partition": [["bthigh", "bshin"]]}, r"no agent moves bfoot, fthigh, fshin, ffoot"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_env("mamujoco/halfcheetah_2x3", **options)


def test_bad_options_of_other_scenarios() -> None:
    with pytest.raises(ConfigError, match="expected two rising numbers"):
        make_env("mamujoco/ant_4x2", healthy_z_range=(1.0, 0.2))
    with pytest.raises(ConfigError, match="expected true or false"):
        make_env("mamujoco/ant_4x2", terminate_when_unhealthy=1)
    with pytest.raises(ConfigError, match="one joint to move"):
        make_env("mamujoco/invertedpendulum", partition=[["slider"]])
    with pytest.raises(ConfigError, match="sees the whole state"):
        make_env("mamujoco/ant_1", global_categories=["qpos"])
    with pytest.raises(ConfigError, match="index=2, expected 0 to 1"):
        make_env("mamujoco/ant_1", num_envs=2).render(2)


def test_lists_from_a_configuration_file_will_do() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    options = omegaconf.OmegaConf.create(
        {"healthy_z_range": [0.3, 0.9], "local_categories": [["qpos"], []]}
    )
    env = make_env("mamujoco/ant_4x2", **options)
    assert env._team.scenario.healthy_z_range == (0.3, 0.9)
    buffer = io.BytesIO()
    torch.save(env.runtime_state(), buffer)
