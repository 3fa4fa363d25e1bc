"""Time of a step of foraging and of the warehouse, against the libraries' own.

    python benchmarks/grid_stepping.py [--tasks lbf/8x8-2p-2f-coop rware/tiny-2ag] [--clock cpu]

Milliseconds per vector step, random actions, episodes and their resets included; the two take
turns, so that a busy machine slows both alike:

* bare  the library's environments in a loop, nothing else
* ours  ``make_env(task)``, ``step_and_maybe_reset``
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from interleaved import interleaved, parse, table

from hetmarl_envs import make_env


def both(task: str, num_envs: int) -> dict[str, Callable[[], None]]:
    """The library's loop and ours, with actions drawn beforehand."""
    env = make_env(task, num_envs=num_envs, seed=0)
    other: Any = make_env(task, num_envs=num_envs, seed=0)
    worlds = [row.env for row in other._rows.envs]
    for seed, world in enumerate(worlds):
        world.reset(seed=seed)
    drawn = [env.full_action_spec.rand() for _ in range(50)]
    listed = [actions["agents", "action"].tolist() for actions in drawn]
    data = env.reset()
    counts = {"bare": 0, "ours": 0}

    def bare() -> None:
        counts["bare"] += 1
        for world, actions in zip(worlds, listed[counts["bare"] % 50], strict=True):
            if world.step(actions)[2]:
                world.reset()

    def ours() -> None:
        nonlocal data
        counts["ours"] += 1
        _, data = env.step_and_maybe_reset(data.update(drawn[counts["ours"] % 50]))

    return {"bare": bare, "ours": ours}


def main() -> None:
    given = parse(__doc__, tasks=("lbf/8x8-2p-2f-coop", "rware/tiny-2ag"))
    torch.manual_seed(0)
    quick = {"rounds": 1, "slice_seconds": 0.01} if given.quick else {}
    for task in given.tasks:
        for num_envs in (2,) if given.quick else (1, 8, 64):
            seconds = interleaved(both(task, num_envs), clock=given.timer, **quick)
            rows = {
                f"{way}: time / bare": f"{value / seconds['bare']:.2f}  ({value * 1e3:.2f} ms)"
                for way, value in seconds.items()
            }
            table(f"{task}, {num_envs} environments", rows)


if __name__ == "__main__":
    main()
