"""``hetmarl evaluate <run_dir>``: whole episodes of a trained team, as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hetmarl.cli.arguments import one_run, parse
from hetmarl.cli.errors import clear_errors
from hetmarl.cli.trained import load_run
from hetmarl.data.evaluation import evaluate
from hetmarl_envs.errors import ConfigError

USAGE = """usage: hetmarl evaluate <run_dir> [episodes=20] [checkpoint=best|last] [seed=<n>]

One JSON object on stdout: task, algo, checkpoint, seed, episodes, return_mean, return_std,
length_mean, returns, lengths, and what the environment tells of its episodes (as battle_won_mean)
and of itself (as simulated). Episodes are of the deterministic policy.

  deterministic=false   samples the actions"""


@dataclass
class EvaluateConfig:
    """Arguments of the command."""

    episodes: int = 20
    """Episodes, each in an environment of its own."""
    checkpoint: str | None = None
    """best, last or a file; null: the best, or the last if there is none."""
    seed: int = 100_000
    """Of the episodes' starts and of sampled actions; none that training uses by default."""
    deterministic: bool = True
    """Takes the mode of the policy, otherwise a sample."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes={self.episodes}: expected 1 or more.")


def main(arguments: Sequence[str]) -> None:
    """Prints the result."""
    with clear_errors():
        positions, config = parse(EvaluateConfig, arguments, USAGE)
        with contextlib.redirect_stdout(sys.stderr):  # whatever a simulator has to say
            result = evaluate_run(one_run(positions, USAGE), config)
    print(json.dumps(result, indent=2))


def evaluate_run(run_dir: str, config: EvaluateConfig) -> dict[str, Any]:
    """The result as plain values."""
    settings, make_env, policy, file = load_run(run_dir, config.checkpoint)
    env = make_env(num_envs=config.episodes, seed=config.seed)
    torch.manual_seed(config.seed)  # of sampled actions
    try:
        result = evaluate(policy, env, deterministic=config.deterministic)
    finally:
        env.close()
    return {
        "task": settings.train.task.name,
        "algo": settings.algorithm.name,
        "checkpoint": str(file),
        "seed": config.seed,
        "episodes": config.episodes,
        **getattr(env, "notes", {}),
    } | result
