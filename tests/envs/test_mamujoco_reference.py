"""MAMuJoCo against ``gymnasium_robotics.mamujoco_v1``, step by step, on random trajectories."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hetmarl_envs import list_tasks, make_env
from hetmarl_envs.mamujoco.env import MAMuJoCoEnv
from hetmarl_envs.mamujoco.tasks import SCENARIOS, parse_task

mujoco = pytest.importorskip("mujoco")

with contextlib.redirect_stderr(io.StringIO()):  # the package prints a notice when it is imported
    multi = pytest.importorskip("gymnasium_robotics.envs.multiagent_mujoco.mujoco_multi")
    from gymnasium_robotics.envs.multiagent_mujoco import coupled_half_cheetah, obsk

NUM_ENVS = 2
TASKS = [name.partition("/")[2] for name in list_tasks("mamujoco")]


class DenseTendon:
    """mjData whose tendon Jacobian is dense, as the reference expects (MuJoCo 4's is sparse)."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.ten_J = np.zeros((1, 18))
        self.ten_J[0, [0, 1, 2, 9, 10, 11]] = data.ten_J

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


@pytest.fixture(autouse=True)
def _mend_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Lets the coupled cheetahs run on MuJoCo 4, and the reference write its log elsewhere."""
    monkeypatch.chdir(tmp_path)
    mujoco.set_mju_user_warning(lambda *_: None)
    env_class = coupled_half_cheetah.CoupledHalfCheetahEnv
    build, observe = obsk.build_obs, env_class._get_obs

    def dense_build(data: Any, *args: Any) -> Any:
        tendons = isinstance(data, mujoco.MjData) and len(data.ten_length)
        return build(DenseTendon(data) if tendons and len(data.qpos) == 18 else data, *args)

    def dense_observe(self: Any) -> Any:
        data = self.data
        self.data = DenseTendon(data)
        try:
            return observe(self)
        finally:
            self.data = data

    monkeypatch.setattr(multi, "build_obs", dense_build)
    monkeypatch.setattr(env_class, "_get_obs", dense_observe)
    yield
    mujoco.set_mju_user_warning(None)


def reference(
    scenario: str, factorization: str, partition: Any = None, **options: Any
) -> multi.MultiAgentMujocoEnv:
    """The reference environment with our factorization; ``partition`` as numbers of controls."""
    joints, native = SCENARIOS[scenario]
    if factorization == "1" and partition is None:
        return multi.MultiAgentMujocoEnv(scenario, None, **options)
    if partition is None and scenario != "Pusher" and (factorization in native or joints is None):
        return multi.MultiAgentMujocoEnv(scenario, factorization, **options)
    whole = factorization if scenario == "Pusher" else None
    parts, edges, everyone = obsk.get_parts_and_edges(scenario, whole)
    nodes = [node for part in parts for node in part]
    if scenario == "Pusher":  # equal labels leave the order to chance, see graph.py
        for i, node in enumerate(parts[0][:2]):
            node.label = f"{node.label}_{i}"
    elif partition is None:
        size = len(nodes) // int(factorization.split("x")[0])
        parts = [tuple(nodes[i : i + size]) for i in range(0, len(nodes), size)]
    else:
        by_control = {node.act_ids: node for node in nodes}
        parts = [tuple(by_control[i] for i in agent) for agent in partition]
    graph = {"partition": parts, "edges": edges, "globals": everyone}
    return multi.MultiAgentMujocoEnv(scenario, factorization, agent_factorization=graph, **options)


class Pair:
    """Our environment, and one reference per sub-environment brought to the same states."""

    def __init__(
        self, task: str, limit: int, seed: int, partition: Any = None, **options: Any
    ) -> None:
        options_seen = {"agent_obsk", "local_categories", "global_categories"} & options.keys()
        scenario, factorization = parse_task(task)
        names = None
        if partition is not None:
            names, partition = partition
        self.env = make_env(
            f"mamujoco/{task}",
            num_envs=NUM_ENVS,
            seed=seed,
            max_episode_steps=limit,
            **options,
            **({} if names is None else {"partition": names}),
        )
        assert isinstance(self.env, MAMuJoCoEnv)
        theirs = {k: v for k, v in options.items() if k not in options_seen}
        seen = {k: options[k] for k in options_seen}
        self.references = [
            reference(scenario, factorization, partition, **seen, **theirs) for _ in range(NUM_ENVS)
        ]
        for ref in self.references:
            wrapper = ref.single_agent_env
            while not hasattr(wrapper, "_max_episode_steps"):
                wrapper = wrapper.env
            wrapper._max_episode_steps = limit

    def copy_start(self, index: int) -> None:
        """Brings a reference to where our sub-environment starts."""
        simulator = self.env._team.simulator
        ref = self.references[index]
        ref.reset()
        single = ref.single_agent_env.unwrapped
        mujoco.mj_resetData(single.model, single.data)
        single.set_state(simulator.qpos[index].copy(), simulator.qvel[index].copy())

    def check_view(self, data: Any, index: int) -> None:
        ref = self.references[index]
        seen = ref._get_obs()
        for group, names in self.env.group_map.items():
            for place, name in enumerate(names):
                self.check(data[group, "observation"][index, place], seen[name], name)
        self.check(data["state"][index], ref.state(), "state")

    @staticmethod
    def check(ours: torch.Tensor, theirs: Any, what: str) -> None:
        theirs = np.asarray(theirs, np.float64)
        assert ours.shape == theirs.shape, what
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-6, atol=2e-6, err_msg=what)

    def run(self, steps: int) -> tuple[int, int]:
        """Random actions; returns how many episodes terminated and how many were truncated."""
        env, terminations, truncations = self.env, 0, 0
        data = env.reset()
        for i in range(NUM_ENVS):
            self.copy_start(i)
            self.check_view(data, i)
        for _ in range(steps):
            data = env.step(env.rand_action(data))
            after = data["next"]
            for i, ref in enumerate(self.references):
                actions = {
                    name: data[group, "action"][i, place].numpy()
                    for group, names in env.group_map.items()
                    for place, name in enumerate(names)
                }
                _, rewards, terminated, truncated, _ = ref.step(actions)
                self.check_view(after, i)
                self.check(after["reward"][i, 0], rewards["agent_0"], "reward")
                assert bool(after["terminated"][i]) == terminated["agent_0"]
                assert bool(after["truncated"][i]) == truncated["agent_0"]
                done = terminated["agent_0"] or truncated["agent_0"]
                assert bool(after["done"][i]) == done
            terminations += int(after["terminated"].sum())
            truncations += int(after["truncated"].sum())
            data = env.step_mdp(data)
            if data["done"].any():
                rows = data["done"].flatten().tolist()
                before = env._team.simulator.state.copy()
                data = env.reset(data.set("_reset", data["done"].clone()))
                for i in range(NUM_ENVS):
                    if rows[i]:
                        self.copy_start(i)
                    else:  # the others stay where they are
                        assert (env._team.simulator.state[i] == before[i]).all()
                    self.check_view(data, i)
        return terminations, truncations


@pytest.mark.parametrize("task", TASKS)
def test_equal(task: str) -> None:
    _, truncations = Pair(task, limit=15, seed=0).run(25)
    assert truncations or task.startswith("inverted")  # those fall before


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_equal_for_long(task: str) -> None:
    Pair(task, limit=150, seed=1).run(500)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "steps"),
    [
        ("ant_2x4d", 300),
        ("hopper_3x1", 100),
        ("humanoid_9x8", 80),
        ("inverteddoublependulum_1", 40),
        ("invertedpendulum_1", 40),
        ("walker2d_2x3", 100),
    ],
)
def test_equal_where_episodes_terminate(task: str, steps: int) -> None:
    terminations, _ = Pair(task, limit=1000, seed=0).run(steps)
    assert terminations > 0


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("ant_4x2", {"agent_obsk": 0}),
        ("ant_8x1", {"agent_obsk": 3}),
        ("ant_4x2", {"local_categories": [["cfrc_ext", "qvel"], ["cfrc_ext"]]}),
        ("coupledhalfcheetah_1p1", {"local_categories": [["ten_J", "qvel"], ["ten_length"]]}),
        ("halfcheetah_6x1", {"agent_obsk": 2, "global_categories": ["qvel"]}),
        ("halfcheetah_2x3", {"local_categories": [["qvel", "qfrc_actuator"], []]}),
        ("hopper_3x1", {"agent_obsk": 2}),
        ("humanoid_9x8", {"agent_obsk": 0}),
        (
            "humanoid_17x1",
            {
                "agent_obsk": 2,
                "local_categories": [["qpos", "cvel"], ["qvel", "cinert"], ["cinert"]],
                "global_categories": ["qvel"],
            },
        ),
        ("manysegmentant_3x2", {"agent_obsk": 2}),
        ("manysegmentswimmer_4x2", {"agent_obsk": 3}),
        ("pusher_3p", {"agent_obsk": 2}),
        ("reacher_2x1", {"agent_obsk": 0}),
        ("swimmer_2x1", {"agent_obsk": 0}),
        ("walker2d_6x1", {"agent_obsk": 3}),
    ],
)
def test_equal_with_other_views(task: str, options: dict[str, Any]) -> None:
    Pair(task, limit=15, seed=2, **options).run(20)


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (
            "ant_4x2",
            {
                "forward_reward_weight": 0.5,
                "ctrl_cost_weight": 0.1,
                "contact_cost_weight": 0.01,
                "healthy_reward": 2.0,
                "healthy_z_range": (0.5, 0.8),
                "contact_force_range": (-3.0, 5.0),
            },
        ),
        ("halfcheetah_2x3", {"forward_reward_weight": 2.0, "ctrl_cost_weight": 1.0}),
        ("hopper_3x1", {"healthy_state_range": (-2.0, 2.0), "terminate_when_unhealthy": False}),
        ("humanoid_9x8", {"contact_cost_weight": 1.0, "contact_cost_range": (0.0, 3.0)}),
        ("humanoidstandup_9x8", {"impact_cost_weight": 1.0, "ctrl_cost_weight": 2.0}),
        ("inverteddoublependulum_1", {"healthy_reward": 1.0}),
        ("pusher_3p", {"reward_near_weight": 3.0, "reward_control_weight": 1.0}),
        ("reacher_2x1", {"reward_dist_weight": 3.0, "reward_control_weight": 0.1}),
        ("swimmer_2x1", {"ctrl_cost_weight": 0.1}),
        ("walker2d_2x3", {"healthy_angle_range": (-0.1, 0.1), "healthy_reward": 0.5}),
    ],
)
def test_equal_with_other_rewards(task: str, options: dict[str, Any]) -> None:
    Pair(task, limit=15, seed=3, **options).run(20)


@pytest.mark.parametrize(
    ("task", "names", "controls"),
    [
        (
            "halfcheetah_2x3",
            [["ffoot", "bfoot"], ["bthigh"], ["fshin", "bshin", "fthigh"]],
            [[5, 2], [0], [4, 1, 3]],
        ),
        (
            "ant",
            [["ankle3"], "hip1 hip2 hip3 hip4 ankle1 ankle2 ankle4".split()],
            [[7], [2, 4, 6, 0, 3, 5, 1]],
        ),
    ],
)
def test_equal_with_own_partition(task: str, names: Any, controls: Any) -> None:
    task = task if "_" in task else f"{task}_1"
    pair = Pair(task, limit=15, seed=4, partition=(names, controls))
    assert len(pair.env.agent_names) == len(names)
    pair.run(20)


@pytest.mark.parametrize("task", TASKS)
def test_spaces(task: str) -> None:
    pair = Pair(task, limit=10, seed=0)
    ref = pair.references[0]
    assert pair.env.agent_names == ref.possible_agents
    for group, names in pair.env.group_map.items():
        space = pair.env.full_action_spec[group, "action"].space
        for place, name in enumerate(names):
            theirs = ref.action_space(name)
            np.testing.assert_array_equal(space.low[0, place].numpy(), theirs.low)
            np.testing.assert_array_equal(space.high[0, place].numpy(), theirs.high)


def test_actions_out_of_bounds_are_charged_for_but_not_clipped() -> None:
    pair = Pair("humanoid_9x8", limit=10, seed=0)
    rand_action = pair.env.rand_action

    def wild_action(data: Any) -> Any:
        data = rand_action(data)
        for group in pair.env.group_map:
            data[group, "action"] *= 4
        return data

    pair.env.rand_action = wild_action
    pair.run(15)
