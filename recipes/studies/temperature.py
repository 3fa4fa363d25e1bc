"""Which equilibrium a team ends in, by HASAC's temperature, and beside it algorithms without one.

    python recipes/studies/temperature.py
    python recipes/studies/temperature.py --cases "penalty k=-30" --seeds 30

Matrix games of two agents with a good and a better equilibrium, from new networks or from policies
that already play the worse one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from study import arguments, draw, learn, learn_from_replay, mean_spread, write_table
from torch import nn
from torchrl.envs import ExplorationType, set_exploration_type

from hetmarl.algorithms import OnPolicyModule, get_algorithm
from hetmarl.algorithms.schedule import scheduled
from hetmarl_envs import TeamSpec, make_env

ENVS, STEPS, UPDATES, WARMUP = 32, 4, 2.0, 8
"""Off-policy: games side by side, vector steps an iteration, gradient steps for each, and
iterations of random actions."""
CRITIC_FIRST = 64
"""Gradient steps before any actor moves: the game shall move them, not a critic's first guess."""
START = 0.9
"""Probability of the suboptimal equilibrium's choice where a case begins there."""


@dataclass
class Case:
    """A game, and the choice of both agents that policies begin with; None: new networks."""

    task: str
    options: dict[str, Any]
    begin: int | None = None


CASES = {
    "climbing": Case("games/climbing", {}),
    "penalty k=0, from 2": Case("games/penalty", {"k": 0.0}, begin=1),
    "penalty k=-30": Case("games/penalty", {"k": -30.0}),
}
HASAC: dict[str, dict[str, Any]] = {
    f"HASAC, α = {alpha:g}": {"auto_alpha": False, "alpha": alpha} for alpha in (0.1, 1.0)
}
HASAC["HASAC, adapted"] = {"auto_alpha": True, "alpha": 1.0, "alpha_lr": 1e-2}
HASAC["HASAC, scheduled 3 to .05"] = {"auto_alpha": False, "alpha": 3.0, "alpha_final": 0.05}
OTHERS = {"HAPPO": "happo", "HAD3QN": "had3qn"}


def begin_at(actors: nn.ModuleList, choice: int) -> None:
    """Lets every agent play ``choice`` with probability ``START``, the others equally often."""
    for actor in actors:
        last: Any = [m for m in actor.modules() if isinstance(m, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()
            last.bias[choice] = math.log(START / (1 - START) * (len(last.bias) - 1))


def one_run(
    case: Case, algorithm: str, config: dict[str, Any], iterations: int, seed: int
) -> float:
    """The return of the joint action that is most probable after training."""
    entry = get_algorithm(algorithm)
    on_policy = issubclass(entry.load("module"), OnPolicyModule)
    env = make_env(case.task, num_envs=8 * ENVS if on_policy else ENVS, seed=seed, **case.options)
    rate = 5e-3 if on_policy else 2e-2
    settings: dict[str, Any] = {"actor_lr": rate, "critic_lr": rate} | config
    if not on_policy:
        settings |= {"batch_size": 64, "updates_per_step": UPDATES, "polyak": 0.1}
        frames = iterations * STEPS * ENVS
        for name in ("alpha_decay_frames", "epsilon_decay_frames"):
            if hasattr(entry.load("config"), name):
                settings[name] = frames // 2
    module = entry.load("module")(
        TeamSpec.from_env(env),
        entry.load("config")(**settings),
        entry.load("network")(hidden_sizes=[32]),
        seed=seed,
    )
    if case.begin is not None:
        begin_at(module.policy.actors, case.begin)
    if on_policy:
        for _ in learn(module, env, 2 * iterations, 1):
            pass
    else:
        module.moves_actors = lambda update: update > CRITIC_FIRST
        learn_from_replay(module, env, iterations, STEPS, WARMUP)
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        played = env.step(module.policy(env.reset()))
    return played["next", "reward"][0].item()


def exact(case: Case, alpha: Callable[[float], float]) -> float:
    """As ``one_run`` without networks and samples: 400 soft best replies to one another.

    From new policies: almost uniform ones, which of two equal choices comes first drawn at random.
    """
    payoff = make_env(case.task, **case.options).game.reward[0]
    count = len(payoff)
    begin = torch.full((2, count), 1 / count).double()
    if case.begin is not None:
        begin.fill_((1 - START) / (count - 1))[:, case.begin] = START
    rows, columns = begin + 1e-3 * torch.rand(2, count, generator=torch.Generator().manual_seed(0))
    for step in range(400):
        rows = (payoff @ columns / alpha(step / 400)).softmax(0)
        columns = (rows @ payoff / alpha(step / 400)).softmax(0)
    return payoff[rows.argmax(), columns.argmax()].item()


def temperature_of(config: dict[str, Any]) -> Callable[[float], float] | None:
    """α as a function of the share of training done; None where it is adapted."""
    if config["auto_alpha"]:
        return None
    start, final = config["alpha"], config.get("alpha_final", config["alpha"])
    return lambda share: scheduled(start, final, round(400 * share), 200, "exponential")


def study(
    out: Path,
    *,
    cases: str = ";".join(CASES),
    iterations: int = 30,
    seeds: int = 5,
) -> list[list[Any]]:
    """Writes ``temperature.csv`` and ``.png``; returns the table.

    Args:
        out: directory.
        cases: of ``CASES``, several separated by semicolons.
        iterations: rollouts of a run; on-policy twice as many, of one step.
        seeds: runs of each kind.
    """
    learners = {label: (algorithm, {}) for label, algorithm in OTHERS.items()}
    learners |= {label: ("hasac", config) for label, config in HASAC.items()}
    rows: list[list[Any]] = []
    panels = []
    for where in cases.split(";"):
        case, shares = CASES[where], {}
        best = make_env(case.task, **case.options).optimal_return
        for label, (algorithm, config) in learners.items():
            ends = [one_run(case, algorithm, config, iterations, seed) for seed in range(seeds)]
            shares[label] = ends.count(best) / seeds
            alpha = temperature_of(config) if algorithm == "hasac" else None
            theory: float | str = "" if alpha is None else exact(case, alpha)
            reached = f"{ends.count(best)} of {seeds}"
            rows.append([where, label, *mean_spread(ends), reached, theory])
        panels.append(partial(panel, shares=shares, title=f"{where} (best: {best:g})"))
    header = ["game", "algorithm", "return", "±", "at the optimum", "exact updates"]
    write_table(out / "temperature.csv", header, rows)
    draw(out / "temperature.png", panels)
    return rows


def panel(axes: Any, shares: dict[str, float], title: str) -> None:
    """Share of the seeds that end at the optimum."""
    labels = list(shares)[::-1]
    axes.barh(labels, [shares[label] for label in labels], label="share of seeds at the optimum")
    axes.set_xlim(0, 1)
    axes.set_title(title, fontsize=9)


if __name__ == "__main__":
    study(**arguments(__doc__, cases=";".join(CASES), iterations=30, seeds=5))
