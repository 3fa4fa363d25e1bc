"""Speed of our VMAS environment beside the bare simulator and TorchRL's ``VmasEnv``.

    python benchmarks/vmas_stepping.py [--scenarios balance navigation] [--num-envs 60 600]

Milliseconds per vector step with random actions, the best of several windows that take turns, so
that a busy machine slows all of them alike. *without resets*: the step alone (``step`` and
``step_mdp``). *with resets*: ``step_and_maybe_reset`` with episodes of 100 steps that do not end
together, about one per cent of them at a step, as in training after a while. The bare simulator
resets single rows one by one, with ``reset_at``, and then observes once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from interleaved import parse
from torchrl.envs import EnvBase, StepCounter, TransformedEnv
from torchrl.envs.libs.vmas import VmasEnv

from hetmarl_envs import make_env
from hetmarl_envs.vmas.scenarios import import_vmas

Window = Callable[[int], None]


def bare(scenario: str, num_envs: int, resets: bool) -> Window:
    """The simulator's own loop, with ``reset_at`` for each finished row."""
    env = import_vmas().make_env(scenario, num_envs=num_envs, seed=0, terminated_truncated=True)
    env.reset()
    actions = [env.get_random_actions() for _ in range(10)]
    steps = torch.randint(0, 100, (num_envs,))

    def run(count: int) -> None:
        nonlocal steps
        for i in range(count):
            _, _, terminated, _, _ = env.step([action.clone() for action in actions[i % 10]])
            if resets:
                steps = steps + 1
                finished = (terminated | (steps >= 100)).nonzero().squeeze(-1).tolist()
                for row in finished:
                    env.reset_at(row, return_observations=False)
                    steps[row] = 0
                if finished:
                    env.get_from_scenario(True, False, False, False)

    return run


def through(env: EnvBase, resets: bool, start: Callable[[Any], None]) -> Window:
    """A TorchRL environment's loop."""
    data = env.reset()
    start(data)
    actions = [env.full_action_spec.rand() for _ in range(10)]

    def run(count: int) -> None:
        nonlocal data
        for i in range(count):
            data.update(actions[i % 10])
            if resets:
                _, data = env.step_and_maybe_reset(data)
            else:
                data = env.step_mdp(env.step(data))

    return run


def ours(scenario: str, num_envs: int, resets: bool) -> Window:
    """Our environment, its rows at different places in their episodes."""
    env: Any = make_env(f"vmas/{scenario}", num_envs=num_envs, max_steps=100 if resets else 10**9)

    def start(_: Any) -> None:
        if resets:
            env._steps = torch.randint(0, 100, (num_envs, 1))

    return through(env, resets, start)


def torchrl(scenario: str, num_envs: int, resets: bool) -> Window:
    """TorchRL's environment with its step counter, the way to have its time limit truncate."""
    env = VmasEnv(scenario, num_envs=num_envs, seed=0)
    if resets:
        env = TransformedEnv(env, StepCounter(100))

    def start(data: Any) -> None:
        if resets:
            data["step_count"] = torch.randint(0, 100, (num_envs, 1))

    return through(env, resets, start)


def measure(
    windows: dict[str, Window], rounds: int, steps: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Milliseconds per vector step: the best of ``rounds`` windows of each, taking turns."""
    best = dict.fromkeys(windows, float("inf"))
    for run in windows.values():
        run(5)
    for _ in range(rounds):
        for name, run in windows.items():
            begin = clock()
            run(steps)
            best[name] = min(best[name], (clock() - begin) / steps * 1e3)
    return best


def main() -> None:
    """Measures and prints one Markdown row per setting."""
    given = parse(
        __doc__, scenarios=("balance", "navigation"), num_envs=(60, 600), rounds=6, steps=50
    )
    if given.quick:
        given.scenarios, given.num_envs, given.rounds, given.steps = ("balance",), (4,), 1, 2
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    print(
        "| scenario | envs | resets | VMAS ms | TorchRL ms | ours ms | ours/VMAS | ours/TorchRL |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for scenario in given.scenarios:
        for num_envs in given.num_envs:
            for resets in (False, True):
                makers = {"bare": bare, "torchrl": torchrl, "ours": ours}
                windows = {k: make(scenario, num_envs, resets) for k, make in makers.items()}
                ms = measure(windows, given.rounds, given.steps, given.timer)
                print(
                    f"| {scenario} | {num_envs} | {'with' if resets else 'without'} "
                    f"| {ms['bare']:.2f} | {ms['torchrl']:.2f} | {ms['ours']:.2f} "
                    f"| {ms['ours'] / ms['bare']:.2f} | {ms['ours'] / ms['torchrl']:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
