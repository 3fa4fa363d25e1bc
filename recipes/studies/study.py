"""What the studies share: a training loop without a Trainer, tables, pictures."""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torchrl.envs import EnvBase

from hetmarl.algorithms import OffPolicyModule, OnPolicyModule
from hetmarl.data import Replay, TeamCollector
from hetmarl.data.replay_data import ReplayBatch
from hetmarl.data.rollout_data import RolloutBatch
from hetmarl.engines import UpdateRandomness, stream


def learn(
    module: OnPolicyModule, env: EnvBase, iterations: int, steps: int
) -> Iterator[tuple[float, dict[str, float]]]:
    """Trains, and after each iteration yields its episodes' mean return and the metrics.

    A Trainer would do the same and log, evaluate, checkpoint; here a curve is all that is wanted.

    Args:
        module: a new one.
        env: batched, ``[num_envs]``.
        iterations: rollouts.
        steps: vector steps of each.
    """
    module.optimizers_of_team()  # which makes the engine
    collector = TeamCollector(env, module.policy, seed=module.seed, critic=module.critic)
    for k in range(iterations):
        data, episodes = collector.collect(steps, k)
        frames = data.numel()
        metrics = module.learn(
            RolloutBatch(frames, data, episodes, iterations), UpdateRandomness(module.seed, k)
        )
        module.iteration += 1
        yield (
            episodes.returns.mean().item(),  # NaN where none ended
            {name: value.item() for name, value in metrics.items()},
        )


def learn_from_replay(
    module: OffPolicyModule, env: EnvBase, iterations: int, steps: int, warmup: int
) -> None:
    """Trains off policy on everything collected so far.

    Args:
        module: a new one.
        env: batched, ``[num_envs]``.
        iterations: rollouts, each followed by its gradient steps.
        steps: vector steps of each.
        warmup: first rollouts, of random actions and without gradient steps.
    """
    module.optimizers_of_team()
    collector = TeamCollector(env, module.policy, seed=module.seed)
    replay = None
    for k in range(iterations):
        data, episodes = collector.collect(steps, k, random=k < warmup)
        replay = replay or Replay(data, collector.spec, iterations * data.numel(), spare=2 * steps)
        replay.extend(data)
        draw = partial(replay.sample, generator=stream(module.seed, "draw", k))
        due = steps if k >= warmup else 0
        batch = ReplayBatch(data.numel(), due, draw, episodes)
        module.learn(batch, UpdateRandomness(module.seed, k))
        module.frames += batch.frames
        module.iteration += 1


def mean_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of what several seeds gave."""
    tensor = torch.tensor(values, dtype=torch.float64)
    return tensor.mean().item(), tensor.std(correction=min(1, len(values) - 1)).item()


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A CSV file, and the same as Markdown on the screen."""
    shown = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *shown])
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in shown:
        print("| " + " | ".join(row) + " |")


def draw(path: Path, panels: Sequence[Callable[[Any], None]]) -> None:
    """A PNG with one panel per function, which is given its axes."""
    figure = Figure(figsize=(4.6 * len(panels), 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def arguments(doc: str | None, **options: Any) -> dict[str, Any]:
    """The command line: ``--out``, and an option per keyword, of its default's type."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--out", type=Path, default=Path("runs/studies"))
    for name, default in options.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=f"default {default}")
    torch.set_num_threads(1)  # these networks are too small for more
    return vars(parser.parse_args())
