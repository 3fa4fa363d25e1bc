"""HAMDPO with its divergence and without, over gradient steps per iteration and over step sizes.

    python recipes/studies/mirror_descent.py

Random Markov games and small batches, so that advantages are noisy; returns are those of the
policies themselves, computed exactly, as a share of what there is to gain.
"""

import math
from pathlib import Path
from typing import Any

import torch
from study import arguments, draw, learn, mean_spread, write_table

from hetmarl.algorithms import HAMDPO, HAMDPOConfig
from hetmarl.networks import OnPolicyNetworkConfig
from hetmarl_envs import TeamSpec, make_env

GAMMA = 0.9
SCHEDULES = {
    "t = .1": (0.1, False),
    "t = .1, annealed": (0.1, True),
    "t = 1": (1.0, False),
    "t = 1, annealed": (1.0, True),
    "t = 10": (10.0, False),
    "t = 10, annealed": (10.0, True),
}


def one_run(config: HAMDPOConfig, iterations: int, seed: int) -> list[float]:
    """J after each iteration, 0 at the start and 1 the optimum."""
    env: Any = make_env(
        "games/markov", num_envs=16, seed=seed, states=5, actions=[3, 3], game_seed=seed
    )
    network = OnPolicyNetworkConfig(hidden_sizes=[32], actor_gain=0.01)
    module = HAMDPO(TeamSpec.from_env(env), config, network, seed=seed)
    states = torch.eye(env.game.num_states)
    actors: Any = module.policy.actors

    def expected_return() -> float:
        with torch.no_grad():
            policies = [actor(states)[0].softmax(-1) for actor in actors]
        return env.game.expected_return(policies, GAMMA)

    first, best = expected_return(), env.game.optimal_return(GAMMA)
    returns = []
    for _ in learn(module, env, iterations, 8):
        returns.append((expected_return() - first) / (best - first))
    return returns


def config(epochs: int, step_size: float, anneal: bool = False) -> HAMDPOConfig:
    """Settings that all runs share, and three that they do not."""
    return HAMDPOConfig(
        gamma=GAMMA,
        actor_lr=0.01,
        critic_lr=0.01,
        epochs=epochs,
        step_size=step_size,
        step_size_anneal=anneal,
    )


def study(
    out: Path,
    *,
    iterations: int = 30,
    passes: tuple[int, ...] = (1, 5, 20, 60),
    passes_of_schedules: int = 10,
    seeds: int = 4,
) -> list[list[Any]]:
    """Writes ``mirror_descent.csv`` and ``.png``; returns the table."""
    rows: list[list[Any]] = []
    curves: dict[str, list[float]] = {}

    def add(label: str, epochs: int, step_size: float, anneal: bool) -> None:
        runs = [
            one_run(config(epochs, step_size, anneal), iterations, seed) for seed in range(seeds)
        ]
        rows.append([label, epochs, *mean_spread([run[-1] for run in runs])])
        curves[label] = torch.tensor(runs, dtype=torch.float64).mean(0).tolist()

    for label, step_size in (("KL, t = 1", 1.0), ("no KL", math.inf)):
        for epochs in passes:
            add(label, epochs, step_size, False)
    for label, (step_size, anneal) in SCHEDULES.items():
        add(label, passes_of_schedules, step_size, anneal)
    write_table(
        out / "mirror_descent.csv", ["divergence", "passes", "return at the end", "±"], rows
    )

    def over_steps(axes: Any) -> None:
        for label in ("KL, t = 1", "no KL"):
            points = [row[1:] for row in rows[: 2 * len(passes)] if row[0] == label]
            x, mean, spread = zip(*points, strict=True)
            axes.errorbar(x, mean, spread, marker="o", label=label)
        axes.set_xscale("log")
        axes.set_xlabel("gradient steps per agent and iteration")
        axes.set_ylabel(f"return after {iterations} iterations")

    def over_time(axes: Any) -> None:
        for i, label in enumerate(SCHEDULES):
            style = "--" if SCHEDULES[label][1] else "-"
            axes.plot(curves[label], style, color=f"C{i // 2}", label=label)
        axes.set_xlabel(f"iteration, {passes_of_schedules} gradient steps each")
        axes.set_ylabel("return, 0 at the start, 1 the optimum")

    draw(out / "mirror_descent.png", [over_steps, over_time])
    return rows


if __name__ == "__main__":
    study(**arguments(__doc__, iterations=30, seeds=4))
