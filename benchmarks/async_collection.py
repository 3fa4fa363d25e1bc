"""Gradient steps per second with actors in other processes, against collecting in turns.

    python benchmarks/async_collection.py [--clock cpu] [--envs 20 --batch 1000]

HASAC on Ant 4x2 at equal gradient steps per frame: the same iterations, chunk by chunk, in slices
A B A B. A slice of the asynchronous loop ends when its actors have finished what they are at, so
that each slice pays for as many frames as it learns from. With ``--clock cpu`` a slice takes the
processor time of the process that needed most of it: what the wall clock shows where every process
has a core of its own, on a machine that is busy with other things.
"""

from __future__ import annotations

import os
import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from interleaved import parse, table

import hetmarl
from hetmarl.algorithms import HASAC, HASACConfig
from hetmarl.data import Replay, TeamCollector
from hetmarl.data.async_data import AsyncTeamCollector
from hetmarl.data.replay_data import ReplayBatch
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import TeamPolicy
from hetmarl_envs.contract import TeamSpec

TASK = "mamujoco/ant_4x2"
STEPS, ITERATIONS, BOUND = 10, 3, 1


class Loop:
    """Iterations of ``STEPS`` vector steps and as many gradient steps, without Lightning."""

    def __init__(
        self, spec: TeamSpec, batch_size: int, collect: Callable[[TeamPolicy], Any]
    ) -> None:
        self.module = HASAC(spec, HASACConfig(batch_size=batch_size, n_step=5))
        self.module.optimizers_of_team()
        self.collector = collect(self.module.policy)
        self.meanwhile: Callable[[], object] = getattr(self.collector, "advance", lambda: None)
        self.replay: Replay | None = None
        self.iteration = 0
        self.worst = 0

    def sample(self, size: int, **how: Any) -> Any:
        assert self.replay is not None
        self.meanwhile()
        return self.replay.sample(size, **how)

    def __call__(self) -> None:
        chunk, episodes = self.collector.collect(STEPS, self.iteration)
        self.worst = max(
            self.worst, int(getattr(self.collector, "staleness", torch.zeros(1)).max())
        )
        if self.replay is None:
            self.replay = Replay(chunk, self.module.spec, 100_000, spare=STEPS)
        self.replay.extend(chunk)
        batch = ReplayBatch(chunk.numel(), STEPS, self.sample, episodes)
        self.module.learn(batch, UpdateRandomness(0, self.iteration))
        self.iteration += 1


def seconds_of(process: int | None) -> float:
    """Processor seconds that a process has used; None: this one."""
    if process is None:
        return time.process_time()
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(loop: Loop, iterations: int, clock: str) -> float:
    """Seconds per gradient step of a slice."""
    actors = getattr(loop.collector, "_actors", None)
    processes = [None, *(a._process.pid for a in actors.each)] if actors else [None]
    before = [seconds_of(p) for p in processes]
    start = time.perf_counter()
    for _ in range(iterations):
        loop()
    while actors and not all(a.ready() for a in actors.each):
        time.sleep(1e-3)
    wall = time.perf_counter() - start
    used = max(seconds_of(p) - b for p, b in zip(processes, before, strict=True))
    return (used if clock == "cpu" else wall) / (iterations * STEPS)


def compare(given: Namespace) -> None:
    """Prints the table."""
    envs, batch_size = given.envs, given.batch
    rounds, iterations = (1, 1) if given.quick else (given.rounds, ITERATIONS)
    make_env = partial(hetmarl.make_env, TASK, num_threads=1)
    env = make_env(num_envs=envs, seed=0)
    spec = TeamSpec.from_env(env)
    beside = partial(
        AsyncTeamCollector,
        make_env,
        num_envs=envs,
        actors=given.actors,
        max_staleness=BOUND,
        warmup_chunks=0,
        seed=0,
    )
    loops = {
        "in turns": Loop(spec, batch_size, lambda policy: TeamCollector(env, policy, seed=0)),
        "side by side": Loop(spec, batch_size, lambda policy: beside(policy=policy)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    collecting = []
    try:
        for loop in loops.values():
            timed(loop, 2, given.clock)  # starts everything up
        for _ in range(rounds):
            for name, loop in loops.items():
                seconds[name].append(timed(loop, iterations, given.clock))
            start = given.timer()
            loops["in turns"].collector.collect(STEPS, 0)
            collecting.append((given.timer() - start) / STEPS)
    finally:
        loops["side by side"].collector.close()
    times = {name: median(values) for name, values in seconds.items()}
    table(
        f"{TASK}, {envs} environments, batch {batch_size}, {given.actors} actor(s), "
        f"{given.threads} learner thread(s), {given.clock} clock",
        {name: f"{1 / value:,.1f} updates/s" for name, value in times.items()}
        | {
            "ratio": f"{times['in turns'] / times['side by side']:.2f}   (goal: at least 1.3)",
            "collecting's share": f"{median(collecting) / times['in turns']:.0%} of in turns",
            "worst staleness": f"{loops['side by side'].worst} of {BOUND} iterations",
        },
    )


def main() -> None:
    """Prints the load of the machine, and the table."""
    given = parse(__doc__, actors=1, envs=64, batch=256, rounds=9)
    warnings.filterwarnings("ignore")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    compare(given)


if __name__ == "__main__":
    main()
