"""Time of an MPE step through our environment, against ``mpe2`` itself and TorchRL's wrapper.

    python benchmarks/pettingzoo_stepping.py [--quick] [--clock cpu]

Milliseconds per vector step, random actions, episodes of 25 steps and their resets included; the
alternatives take turns, so that a busy machine slows all of them alike:

* bare      ``parallel_env.step`` of ``mpe2`` in a loop over the environments, nothing else
* mpe       ``make_env("mpe/...")``, ``step_and_maybe_reset``
* generic   the same through ``PettingZooEnv`` around ``mpe2``'s own ``parallel_env``
* TorchRL   ``SerialEnv`` of ``PettingZooWrapper``
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from interleaved import interleaved, parse, table
from torchrl.envs import EnvBase, PettingZooWrapper, SerialEnv

from hetmarl_envs import make_env
from hetmarl_envs.mpe import SCENARIOS
from hetmarl_envs.pettingzoo import PettingZooEnv


def bare(make: Callable[[], Any], num_envs: int) -> Callable[[], None]:
    """``mpe2``'s own loop."""
    envs = [make() for _ in range(num_envs)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    names = list(envs[0].possible_agents)
    drawn = [{name: envs[0].action_space(name).sample() for name in names} for _ in range(50)]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        for env in envs:
            env.step(drawn[count % 50])
            if not env.agents:
                env.reset()

    return step


def through(env: EnvBase) -> Callable[[], None]:
    """A TorchRL environment's loop, with actions drawn beforehand."""
    data = env.reset()
    drawn = [env.full_action_spec.rand() for _ in range(50)]
    count = 0

    def step() -> None:
        nonlocal data, count
        count += 1
        _, data = env.step_and_maybe_reset(data.update(drawn[count % 50]))

    return step


def main() -> None:
    given = parse(__doc__)
    warnings.simplefilter("ignore")  # TorchRL's wrapper knows an older PettingZoo
    logging.getLogger("torchrl").setLevel(logging.ERROR)
    quick = {"rounds": 1, "slice_seconds": 0.01} if given.quick else {}
    for scenario in ("simple_spread", "simple_speaker_listener"):
        make = importlib.import_module(f"mpe2.{SCENARIOS[scenario]}").parallel_env
        for num_envs in (2,) if given.quick else (1, 8, 64):
            torch.manual_seed(0)
            work = {
                "bare": bare(make, num_envs),
                "mpe": through(make_env(f"mpe/{scenario}", num_envs=num_envs)),
                "generic": through(PettingZooEnv(make, num_envs=num_envs, team_reward="sum")),
                "TorchRL": through(
                    SerialEnv(num_envs, lambda make=make: PettingZooWrapper(make()))
                ),
            }
            seconds = interleaved(work, clock=given.timer, **quick)
            rows = {
                f"{name}'s time / bare": f"{value / seconds['bare']:.2f}  ({value * 1e3:.2f} ms)"
                for name, value in seconds.items()
            }
            table(f"{scenario}, {num_envs} environments", rows)


if __name__ == "__main__":
    main()
