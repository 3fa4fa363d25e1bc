"""Time of a SMAX step through our environment, against JaxMARL's own compiled step.

    python benchmarks/smax_stepping.py [--maps 3s5z smacv2_10_units] [--clock cpu]

Milliseconds per vector step, everybody standing still, episodes and their resets included; the two
take turns, so that a busy machine slows both alike:

* bare  ``jax.jit(jax.vmap(env.step))``, which resets finished battles itself, and nothing else: no
        masks, no torch
* smax  ``make_env("smax/...")``, ``step_and_maybe_reset``
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
from interleaved import interleaved, parse, table

from hetmarl_envs import make_env
from hetmarl_envs.smax.library import load_smax

STOP = 4


def bare(name: str, num_envs: int) -> Callable[[], None]:
    """JaxMARL's own loop."""
    smax = load_smax()
    env = smax.HeuristicEnemySMAX(scenario=smax.map_name_to_scenario(name))
    actions = {agent: jnp.full(num_envs, STOP) for agent in env.agents}
    step = jax.jit(jax.vmap(env.step))
    split = jax.jit(jax.vmap(lambda key: tuple(jax.random.split(key))))
    keys = jax.random.split(jax.random.PRNGKey(0), num_envs)
    _, state = jax.jit(jax.vmap(env.reset))(keys)

    def run() -> None:
        nonlocal keys, state
        keys, now = split(keys)
        _, state, *_ = jax.block_until_ready(step(now, state, actions))

    return run


def ours(name: str, num_envs: int) -> Callable[[], None]:
    """Our environment's loop."""
    env = make_env(f"smax/{name}", num_envs=num_envs)
    data: Any = env.reset()
    stop = env.full_action_spec.zero().apply(lambda action: action + STOP)

    def run() -> None:
        nonlocal data
        _, data = env.step_and_maybe_reset(data.update(stop))

    return run


def main() -> None:
    given = parse(__doc__, maps=("3s5z",), num_envs=(8, 64, 256))
    torch.manual_seed(0)
    quick = {"rounds": 1, "slice_seconds": 0.01} if given.quick else {}
    for name in given.maps[:1] if given.quick else given.maps:
        for num_envs in (2,) if given.quick else given.num_envs:
            work = {"bare": bare(name, num_envs), "smax": ours(name, num_envs)}
            seconds = interleaved(work, clock=given.timer, **quick)
            rows = {
                f"{way}'s time / bare": f"{value / seconds['bare']:.2f}  ({value * 1e3:.2f} ms, "
                f"{num_envs / value:.0f} frames/s)"
                for way, value in seconds.items()
            }
            table(f"{name}, {num_envs} environments", rows)


if __name__ == "__main__":
    main()
