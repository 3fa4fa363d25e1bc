"""How fast MAMuJoCo steps, against MuJoCo itself and against TorchRL's PettingZooWrapper.

    python benchmarks/mamujoco_stepping.py [--tasks ant_4x2 ...] [--num-envs 64] [--threads 2]

Four ways through one and the same trajectory (same starts, same random actions, same resets) take
turns; the best of several rounds of each counts, so that a busy machine slows all of them alike:

* bare     MuJoCo's C++ batch stepping on the same threads, and the contact forces where observed
* batched  our environment before TorchRL: controls, physics, reward, ends, resets, observations
* step     ``rand_action`` and ``step_and_maybe_reset``, as a collector calls them
* rollout  ``env.rollout`` with random actions, which stacks the steps besides

and, for comparison, ``step`` of TorchRL's PettingZooWrapper on the same task: one environment, with
the two changes without which it does not run (no infos, one group per agent).
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle torch threads must not keep a core busy

import numpy as np
import torch
from interleaved import parse
from torchrl.envs import EnvBase, MarlGroupMapType, PettingZooWrapper

from hetmarl_envs import make_env
from hetmarl_envs.mamujoco.env import MAMuJoCoEnv
from hetmarl_envs.mamujoco.tasks import parse_task

Clock = Callable[[], float]
TASKS = ("halfcheetah_2x3", "halfcheetah_6x1", "hopper_3x1", "ant_4x2", "humanoid_17x1")


class Trajectory:
    """``steps`` steps of an environment, recorded once and repeated in several ways."""

    def __init__(self, env: MAMuJoCoEnv, steps: int) -> None:
        self.env, self.steps = env, steps
        self.data = env.rollout(50, break_when_any_done=False)[:, -1]["next"].exclude("reward")
        self.data = env.maybe_reset(self.data)
        self.start = env.runtime_state()
        team = env._team
        self.controls: list[np.ndarray] = []
        self.starts: list[np.ndarray | None] = []  # state rows after a reset, None without one
        data = self.begin()
        for _ in range(steps):
            now = env.step(env.rand_action(data))
            self.controls.append(team.simulator.ctrl.copy())
            data = env.maybe_reset(env.step_mdp(now))
            reset = bool(now["next", "done"].any())
            self.starts.append(team.simulator.state.copy() if reset else None)

    def begin(self) -> Any:
        """Back to the first step, its random numbers included."""
        torch.manual_seed(0)
        self.env.load_runtime_state(self.start)
        return self.data.clone()

    def bare(self) -> None:
        simulator, substeps = self.env._team.simulator, self.env._team.scenario.frame_skip
        for control, start in zip(self.controls, self.starts, strict=True):
            simulator.ctrl[...] = control
            simulator.step(substeps)
            if start is not None:
                simulator.state[...] = start

    def batched(self) -> None:
        env, team = self.env, self.env._team
        elapsed = env._elapsed
        for control in self.controls:
            team.simulator.ctrl[...] = control
            _, ended = team.step()
            elapsed += 1
            done = elapsed >= env.max_steps
            if ended is not None:
                done |= ended
            if done.any():
                team.reset(env._rng, done)
                elapsed[done] = 0
            team.observe()

    def step(self) -> None:
        env, data = self.env, self.data_now
        for _ in range(self.steps):
            _, data = env.step_and_maybe_reset(env.rand_action(data))

    def rollout(self) -> None:
        self.env.rollout(
            self.steps,
            break_when_any_done=False,
            auto_reset=False,
            tensordict=self.data_now,
        )

    def seconds(self, way: str, clock: Clock) -> float:
        """Time of the whole trajectory in one of the four ways."""
        self.data_now = self.begin()
        start = clock()
        getattr(self, way)()
        return clock() - start


def petting_zoo(task: str) -> EnvBase:
    """TorchRL's wrapper around the reference, changed so that it runs."""
    import mujoco

    mujoco.set_mju_user_warning(lambda *_: None)
    with contextlib.redirect_stderr(io.StringIO()):  # prints a notice
        from gymnasium_robotics.envs.multiagent_mujoco import mujoco_multi, obsk

    scenario, factorization = parse_task(task)
    agents = int(factorization[0] if "x" not in factorization else factorization.split("x")[0])
    options: dict[str, Any] = {}
    try:
        obsk.get_parts_and_edges(scenario, factorization)
    except Exception:  # what the reference raises for a factorization it does not know
        (nodes,), edges, everyone = obsk.get_parts_and_edges(scenario, None)
        size = len(nodes) // agents
        parts = [tuple(nodes[i : i + size]) for i in range(0, len(nodes), size)]
        graph = {"partition": parts, "edges": edges, "globals": everyone}
        options["agent_factorization"] = graph

    class WithoutInfos(mujoco_multi.MultiAgentMujocoEnv):
        def reset(self, *args: Any, **kwargs: Any) -> Any:
            seen, infos = super().reset(*args, **kwargs)
            return seen, {name: {} for name in infos}

        def step(self, actions: Any) -> Any:
            *rest, infos = super().step(actions)
            return *rest, {name: {} for name in infos}

    return PettingZooWrapper(
        WithoutInfos(scenario, factorization, **options),
        group_map=MarlGroupMapType.ONE_GROUP_PER_AGENT,
    )


def petting_zoo_rate(task: str, rounds: int, seconds: float, clock: Clock) -> float:
    """Frames per second of ``rand_action`` and ``step_and_maybe_reset``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wrapper knows an older PettingZoo
        env = petting_zoo(task)
        data = env.reset()
    rates = []
    for _ in range(rounds):
        frames, start = 0, clock()
        while clock() - start < seconds:
            _, data = env.step_and_maybe_reset(env.rand_action(data))
            frames += 1
        rates.append(frames / (clock() - start))
    return max(rates)


def measure(
    task: str, num_envs: int, threads: int, rounds: int, seconds: float, clock: Clock
) -> dict[str, float]:
    """Frames per second of every way, the best of ``rounds`` slices of about ``seconds`` each."""
    env = make_env(f"mamujoco/{task}", num_envs=num_envs, num_threads=threads)
    assert isinstance(env, MAMuJoCoEnv)
    trial = Trajectory(env, 20)
    steps = max(10, int(20 * seconds / min(trial.seconds("bare", clock) for _ in range(3))))
    trajectory = Trajectory(env, steps)
    times: dict[str, list[float]] = {way: [] for way in ("bare", "batched", "step", "rollout")}
    for _ in range(rounds):
        for way, measured in times.items():
            measured.append(trajectory.seconds(way, clock))
    rates = {way: num_envs * steps / min(measured) for way, measured in times.items()}
    return rates | {"PettingZooWrapper": petting_zoo_rate(task, rounds, seconds, clock)}


def main() -> None:
    """Prints one line per task."""
    given = parse(__doc__, tasks=TASKS, num_envs=64, rounds=15, seconds=0.2)
    torch.set_num_threads(1)  # the threads are the simulator's
    if given.quick:
        given.tasks, given.num_envs, given.rounds, given.seconds = TASKS[:1], 4, 1, 0.01
    os.chdir(tempfile.mkdtemp())  # the reference writes MUJOCO_LOG.TXT where it runs
    print(f"{given.num_envs} environments, {given.threads} threads; frames/s (share of bare)")
    names = ("task", "bare", "batched", "step", "rollout", "PettingZooWrapper")
    print("".join(f"{name:<20}" for name in names))
    for task in given.tasks:
        rates = measure(
            task, given.num_envs, given.threads, given.rounds, given.seconds, given.timer
        )
        bare, reference = rates["bare"], rates["PettingZooWrapper"]
        cells = [task, f"{bare:.0f}"]
        cells += [f"{rates[w]:.0f} ({rates[w] / bare:.2f})" for w in ("batched", "step", "rollout")]
        cells.append(f"{reference:.0f} (step: {rates['step'] / reference:.0f}x)")
        print("".join(f"{cell:<20}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
