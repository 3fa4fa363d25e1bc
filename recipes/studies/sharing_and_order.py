"""One policy for all or one for each, with an agent id or without; random order or a fixed one.

    python recipes/studies/sharing_and_order.py
    python recipes/studies/sharing_and_order.py --task mamujoco/walker2d_2x3 --algorithm hatrpo \
        --iterations 500 --num-envs 20 --steps 200

Any on-policy algorithm, any task. The sequential ones update agents that share as one joint agent.
"""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from study import arguments, draw, learn, mean_spread, write_table

from hetmarl.algorithms import get_algorithm
from hetmarl.networks import OnPolicyNetworkConfig
from hetmarl_envs import TeamSpec, make_env


@dataclass
class Team:
    """Settings of the network, and of a sequential algorithm."""

    network: dict[str, Any]
    config: dict[str, Any]


SHARED = {"sharing": "full"}
ALLOWED = {"allow_shared_sequential": True}
TEAMS = {
    "separate": Team({}, {}),
    "separate, fixed order": Team({}, {"fixed_order": True}),
    "shared with id": Team(SHARED, ALLOWED),
    "shared without id": Team(SHARED | {"agent_id": False}, ALLOWED),
}
SMALL = {"actor_lr": 5e-3, "critic_lr": 5e-3, "entropy_coef": 0.0}
"""For the games, whose networks are small."""


def one_run(
    task: str,
    algorithm: str,
    team: Team,
    *,
    iterations: int,
    num_envs: int,
    steps: int,
    seed: int,
) -> list[float]:
    """The mean return of each iteration's episodes."""
    game = task.startswith("games/")
    env = make_env(task, num_envs=num_envs, seed=seed)
    entry = get_algorithm(algorithm)
    member, kind = entry.load("module"), entry.load("config")
    settings = (team.config if member.sequential else {}) | (SMALL if game else {})
    config = kind(**{k: v for k, v in settings.items() if hasattr(kind, k)})
    sizes = {"hidden_sizes": [32]} if game else {}
    network = OnPolicyNetworkConfig(**sizes, **team.network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sharing in a sequential algorithm: that is the question
        module = member(TeamSpec.from_env(env), config, network, seed=seed)
    return [value for value, _ in learn(module, env, iterations, steps)]


def study(
    out: Path,
    *,
    task: str = "games/roles,games/sharing",
    algorithm: str = "happo,mappo",
    iterations: int = 40,
    num_envs: int = 256,
    steps: int = 1,
    seeds: int = 3,
) -> list[list[Any]]:
    """Writes ``sharing_and_order.csv`` and ``.png``; returns the table.

    Args:
        out: directory.
        task, algorithm: names, several separated by commas; a panel each.
        iterations, num_envs, steps: rollouts, and the size of each.
        seeds: runs of each kind.
    """
    rows: list[list[Any]] = []
    panels = []
    for where in task.split(","):
        for how in algorithm.split(","):
            curves = {}
            for label, team in TEAMS.items():
                sequential = get_algorithm(how).load("module").sequential
                if "fixed" in label and not sequential:
                    continue
                runs = [
                    one_run(
                        where,
                        how,
                        team,
                        iterations=iterations,
                        num_envs=num_envs,
                        steps=steps,
                        seed=seed,
                    )
                    for seed in range(seeds)
                ]
                last = max(1, iterations // 10)
                ends = [torch.tensor(run[-last:]).nanmean().item() for run in runs]
                rows.append([where, how, label, *mean_spread(ends)])
                curves[label] = torch.tensor(runs).nanmean(0).tolist()
            panels.append(partial(panel, curves=curves, title=f"{how} on {where}"))
    header = ["task", "algorithm", "policies", "return at the end", "±"]
    write_table(out / "sharing_and_order.csv", header, rows)
    draw(out / "sharing_and_order.png", panels)
    return rows


def panel(axes: Any, curves: dict[str, list[float]], title: str) -> None:
    """Return against iterations."""
    for label, values in curves.items():
        axes.plot(values, label=label)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("iteration")
    axes.set_ylabel("return")


if __name__ == "__main__":
    study(
        **arguments(
            __doc__,
            task="games/roles,games/sharing",
            algorithm="happo,mappo",
            iterations=40,
            num_envs=256,
            steps=1,
            seeds=3,
        )
    )
