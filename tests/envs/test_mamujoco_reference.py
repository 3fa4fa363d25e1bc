"""MAMuJoCo against ``gymnasium_robotics.mamujoco_v1``, step by step, on random trajectories."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hetmarl_envs import list_tasks, make_env
from hetmarl_envs.mamujoco.env import MAMuJoCoEnv
from hetmarl_envs.mamujoco.tasks import SCENARIOS, parse_task

mujoco = pytest.importorskip("mujoco")

with contextlib.redirect_stderr(io.StringIO()):  # the package prints an advertisement
    multi = pytest.importorskip("gymnasium_robotics.envs.multiagent_mujoco.mujoco_multi")
    from gymnasium_robotics.envs.multiagent_mujoco import coupled_half_cheetah, obsk

NUM_ENVS = 2
STEPS = 25
LIMIT = 15  # steps until truncation, so that every trajectory has resets


class _DenseTendon:
    """mjData whose tendon Jacobian is dense, as the reference expects (MuJoCo 4's is sparse)."""

    def __init__(self, data: Any, model: Any) -> None:
        self._data = data
        self.ten_J = np.zeros((model.ntendon, model.nv))
        self.ten_J[0, model.ten_J_colind] = data.ten_J

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


@pytest.fixture(autouse=True)
def _quiet_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[None]:
    """The reference writes logs into the working directory, and fails on the tendon."""
    monkeypatch.chdir(tmp_path)
    mujoco.set_mju_user_warning(lambda *_: None)
    build = obsk.build_obs
    env_class = coupled_half_cheetah.CoupledHalfCheetahEnv
    observe = env_class._get_obs

    def dense_observe(self: Any) -> Any:
        data, self.data = self.data, _DenseTendon(self.data, self.model)
        try:
            return observe(self)
        finally:
            self.data = data

    def dense_build(data: Any, *args: Any) -> Any:
        if getattr(data, "ten_J", np.zeros(0)).shape == (6,):
            data = _DenseTendon(data, _DENSE_MODEL[0])
        return build(data, *args)

    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)

    initialise = env_class.__init__
    start = env_class._initialize_simulation

    def keep_model(self: Any) -> Any:
        model, data = start(self)
        _DENSE_MODEL[:] = [model]
        return model, data

    monkeypatch.setattr(env_class, "_initialize_simulation", keep_model)
    monkeypatch.setattr(env_class, "_get_obs", dense_observe)
    monkeypatch.setattr(multi, "build_obs", dense_build)
    yield
    mujoco.set_mju_user_warning(None)


_DENSE_MODEL: list[Any] = []


def reference(
    scenario: str, factorization: str, options: dict[str, Any] | None = None, **kwargs: Any
) -> Any:
    """The reference environment with our factorization."""
    joints, native = SCENARIOS[scenario]
    if factorization == "1":
        return multi.MultiAgentMujocoEnv(scenario, None, **kwargs)
    if factorization in native or joints is None:
        if scenario == "Pusher":  # equal labels: an order by chance, see graph.py
            parts, edges, everyone = obsk.get_parts_and_edges(scenario, factorization)
            for i, node in enumerate(parts[0][:2]):
                node.label = f"{node.label}_{i}"
            graph = {"partition": parts, "edges": edges, "globals": everyone}
            kwargs["agent_factorization"] = graph
        return multi.MultiAgentMujocoEnv(scenario, factorization, **kwargs)
    agents = int(factorization.split("x")[0])
    (nodes,), edges, everyone = obsk.get_parts_and_edges(scenario, None)
    size = len(nodes) // agents
    parts = [tuple(nodes[i : i + size]) for i in range(0, len(nodes), size)]
    graph = {"partition": parts, "edges": edges, "globals": everyone}
    return multi.MultiAgentMujocoEnv(scenario, factorization, agent_factorization=graph, **kwargs)


class Pair:
    """Our environment and one reference per sub-environment, brought to the same states."""

    def __init__(self, env: MAMuJoCoEnv, references: list[Any]) -> None:
        self.env, self.references = env, references
        self.worst = 0.0

    def copy_start(self, index: int) -> None:
        simulator = self.env._team.simulator
        self.references[index].reset()
        single = self.references[index].single_agent_env.unwrapped
        mujoco.mj_resetData(single.model, single.data)
        qpos, qvel = simulator.qpos[index], simulator.qvel[index]
        single.set_state(qpos.copy(), qvel.copy())

    def check_view(self, data: Any, index: int) -> None:
        ref = self.references[index]
        seen = ref._get_obs()
        for group, names in self.env.group_map.items():
            for place, name in enumerate(names):
                self.check(data[group, "observation"][index, place], seen[name], name)
        self.check(data["state"][index], ref.state(), "state")

    def check(self, ours: torch.Tensor, theirs: Any, what: str) -> None:
        theirs = np.asarray(theirs, np.float64)
        assert ours.shape == theirs.shape, what
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-6, atol=2e-6, err_msg=what)

    def run(self, steps: int, scale: float = 1.0) -> int:
        """Random actions; returns how many episodes terminated."""
        env = self.env
        data, terminations = env.reset(), 0
        for i in range(env.num_envs):
            self.copy_start(i)
            self.check_view(data, i)
        for _ in range(steps):
            data = env.rand_action(data)
            for group in env.group_map:
                data[group, "action"].mul_(scale)
            data = env.step(data)
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
                assert bool(after["truncated"][i]) == (truncated["agent_0"])
            terminations += int(after["terminated"].sum())
            data = env.step_mdp(data)
            if data["done"].any():
                rows = data["done"].clone()
                data["_reset"] = rows
                kept = [np.array(env._team.simulator.state[i]) for i in range(env.num_envs)]
                data = env.reset(data)
                for i in range(env.num_envs):
                    if rows[i]:
                        self.copy_start(i)
                    else:  # the others are where they were
                        assert (env._team.simulator.state[i] == kept[i]).all()
                    self.check_view(data, i)
        return terminations


def make_pair(task: str, seed: int = 0, **options: Any) -> Pair:
    scenario, factorization = parse_task(task)
    env = make_env(
        f"mamujoco/{task}", num_envs=NUM_ENVS, seed=seed, max_episode_steps=LIMIT, **options
    )
    graph = {
        key: options[key]
        for key in ("agent_obsk", "local_categories", "global_categories")
        if key in options
    }
    references = [reference(scenario, factorization, **graph) for _ in range(NUM_ENVS)]
    for ref in references:
        limit = ref.single_agent_env
        while not hasattr(limit, "_max_episode_steps"):
            limit = limit.env
        limit._max_episode_steps = LIMIT
    return Pair(env, references)


TASKS = [name.partition("/")[2] for name in list_tasks("mamujoco")]


@pytest.mark.parametrize("task", TASKS)
def test_equal(task: str) -> None:
    make_pair(task).run(STEPS)
