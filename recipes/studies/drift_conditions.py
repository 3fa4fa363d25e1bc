"""What becomes of a team whose drift breaks a condition of mirror learning.

    python recipes/studies/drift_conditions.py

Random Markov games, exact advantages, each agent's objective optimised to its end: the return and
the Nash gap against iterations, under three valid drifts and three that each break one condition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from study import arguments, draw, write_table
from torch import Tensor

from hetmarl.engines import EnumeratedTeam, Maximise
from hetmarl.objectives import ClipDrift, Drift, DriftError, KLDrift, PolicyChange, check_drift
from hetmarl_envs.games.garnet import random_game

DISCOUNT = 0.9


def variation(change: PolicyChange) -> Tensor:
    """Total variation of the choices, ``[*B, 1]``."""
    pairs: Any = zip(change.new.components, change.old.components, strict=True)  # type: ignore[attr-defined]
    return sum((p.probs - q.probs).abs().sum(-1, keepdim=True) / 2 for p, q in pairs)


def fee(change: PolicyChange) -> Tensor:
    """A price on the first action that the old policy pays, too."""
    pairs: Any = zip(change.new.components, change.old.components, strict=True)  # type: ignore[attr-defined]
    return sum(p.probs[..., :1] - q.probs[..., :1] for p, q in pairs)


@dataclass
class Case:
    """A drift, the condition it breaks, and where its argmax has to be looked for."""

    drift: Drift
    breaks: str = ""
    everywhere: bool = False


CASES: dict[str, Case] = {
    "clipping, ε = .2": Case(ClipDrift(0.2)),
    "KL, t = 10": Case(KLDrift(10.0)),
    "squared TV": Case(lambda change: variation(change) ** 2),
    "TV": Case(lambda change: 0.5 * variation(change), "kink at the old policy"),
    "fee on an action": Case(lambda change: 0.5 * fee(change), "slope at the old policy"),
    "−KL": Case(lambda change: -0.5 * change.new.kl(change.old), "negative", everywhere=True),
}


def verdict(drift: Drift) -> str:
    """What the checker says, up to its first comma."""
    try:
        check_drift(drift, kinds=["choices"])
    except DriftError as error:
        return str(error).split(",")[0]
    return "passes"


def one_run(case: Case, seed: int, iterations: int) -> tuple[list[float], list[float]]:
    """Return as a share of what there is to gain, and the Nash gap as a share of the first one."""
    game = random_game(3, (2, 3), density=1.0, termination=0.0, seed=seed)
    update: Callable[..., Any] = partial(Maximise, everywhere=case.everywhere)
    team = EnumeratedTeam(game, case.drift, discount=DISCOUNT, seed=seed, update=update)
    best, first, gap = game.optimal_return(DISCOUNT), team.expected_return, team.nash_gap
    returns, gaps = [0.0], [1.0]
    for _ in range(iterations):
        team.step()
        returns.append((team.expected_return - first) / (best - first))
        gaps.append(max(0.0, team.nash_gap) / gap)
    return returns, gaps


def study(out: Path, *, games: int = 10, iterations: int = 15) -> list[list[Any]]:
    """Writes ``drift_conditions.csv`` and ``.png``; returns the table."""
    rows: list[list[Any]] = []
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name, case in CASES.items():
        runs = [one_run(case, seed, iterations) for seed in range(games)]
        falls = [sum(b < a - 1e-6 for a, b in pairwise(returns)) for returns, _ in runs]
        returns, gaps = (
            torch.tensor([run[i] for run in runs], dtype=torch.float64) for i in (0, 1)
        )
        curves[name] = returns.mean(0).tolist(), gaps.mean(0).tolist()
        equilibria = int((gaps[:, -1] < 0.01).sum())
        rows.append(
            [
                name,
                case.breaks or "nothing",
                verdict(case.drift),
                returns[:, -1].mean().item(),
                f"{sum(falls)} of {games * iterations}",
                gaps[:, -1].mean().item(),
                f"{equilibria} of {games}",
            ]
        )
    header = ["drift", "breaks", "check_drift", "return at the end", "iterations that fell"]
    header += ["Nash gap at the end", "ended in an equilibrium"]
    write_table(out / "drift_conditions.csv", header, rows)

    def panel(axes: Any, which: int, label: str) -> None:
        for name, case in CASES.items():
            style = "--" if case.breaks else "-"
            axes.plot(curves[name][which], style, marker=".", label=name)
        axes.set_xlabel("iteration")
        axes.set_ylabel(label)

    draw(
        out / "drift_conditions.png",
        [
            partial(panel, which=0, label="return, 0 at the start, 1 the optimum"),
            partial(panel, which=1, label="Nash gap, 1 at the start"),
        ],
    )
    return rows


if __name__ == "__main__":
    study(**arguments(__doc__, games=10, iterations=15))
