"""Time of a decision of all junctions through our environment, against ``sumo_rl`` itself.

    python benchmarks/sumo_stepping.py [--quick]

Milliseconds per step of one simulation of cologne8, the lights changing in turn, resets included:

* bare   ``SumoEnvironment.step`` on SUMO's library in this process, without its own statistics
* ours   ``make_env("sumo/cologne8")``, ``step_and_maybe_reset``: a worker process, waiting times
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interleaved import interleaved, parse, table

from hetmarl_envs import make_env
from hetmarl_envs.sumo.networks import simulation_arguments
from hetmarl_envs.sumo.simulator import import_sumo_rl

EVERY = 3  # decisions between two changes of the lights: the traffic flows


def bare() -> Callable[[], None]:
    """``sumo_rl``'s own loop."""
    env = import_sumo_rl().SumoEnvironment(
        **simulation_arguments("cologne8"),
        sumo_seed=0,
        sumo_warnings=False,
        add_system_info=False,
        add_per_agent_info=False,
        additional_sumo_cmd="--no-step-log",
    )
    env.reset()
    choices = {name: int(env.action_spaces(name).n) for name in env.ts_ids}
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        _, _, ends, _ = env.step({name: count // EVERY % n for name, n in choices.items()})
        if ends["__all__"]:
            env.reset()

    return step


def ours() -> Callable[[], None]:
    """The TorchRL environment's loop."""
    env = make_env("sumo/cologne8")
    specs: dict[str, Any] = {
        group: env.full_action_spec[group, "action"] for group in env.group_map
    }
    data, count = env.reset(), 0

    def step() -> None:
        nonlocal data, count
        count += 1
        for group, spec in specs.items():
            data[group, "action"] = spec.zero() + count // EVERY % int(spec.space.n)
        _, data = env.step_and_maybe_reset(data)

    return step


def main() -> None:
    given = parse(__doc__)
    quick = {"rounds": 1, "slice_seconds": 0.01} if given.quick else {}
    work = {"ours": ours(), "bare": bare()}
    seconds = interleaved(work, clock=given.timer, **quick)
    rows = {
        f"{name}'s time / bare": f"{value / seconds['bare']:.2f}  ({value * 1e3:.2f} ms)"
        for name, value in seconds.items()
    }
    table("cologne8, one simulation", rows)


if __name__ == "__main__":
    main()
