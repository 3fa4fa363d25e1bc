"""Which equilibrium a team ends in, by HASAC's temperature, and beside it algorithms without one.

    python recipes/studies/temperature.py
    python recipes/studies/temperature.py --starts 100 --seeds 10

Matrix games of two agents with a good and a better equilibrium, from almost uniform policies or
from those that already play the worse one. Everything with exact updates, from many starts; and a
few runs of the algorithms themselves, with networks, a replay and what they have to estimate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from study import arguments, draw, learn, learn_from_replay, mean_spread, write_table
from torch import Tensor, nn
from torchrl.envs import ExplorationType, set_exploration_type

from hetmarl.algorithms import OnPolicyModule, get_algorithm
from hetmarl.algorithms.schedule import scheduled
from hetmarl.engines import EnumeratedTeam, Maximise, TableActor, stream
from hetmarl.objectives import ClipDrift
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.games.tabular import TabularGame

ENVS, STEPS, UPDATES, WARMUP = 32, 4, 2.0, 8
"""Off-policy: games side by side, vector steps an iteration, gradient steps for each, and
iterations of random actions."""
CRITIC_FIRST = 64
"""Gradient steps before any actor moves: the game shall move them, not a critic's first guess."""
START = 0.9
"""Probability of the suboptimal equilibrium's choice where a case begins there."""


@dataclass
class Case:
    """A game, and the choice of both agents that policies begin with; None: almost uniform."""

    task: str
    options: dict[str, Any]
    begin: int | None = None

    @property
    def game(self) -> TabularGame:
        """Its tables."""
        return make_env(self.task, **self.options).game


@dataclass
class Learner:
    """An algorithm and its settings."""

    algorithm: str
    config: dict[str, Any]


CASES = {
    "climbing": Case("games/climbing", {}),
    "penalty, k = 0, from 2": Case("games/penalty", {"k": 0.0}, begin=1),
    "penalty, k = -30": Case("games/penalty", {"k": -30.0}),
}
FIXED = (0.1, 0.3, 1.0, 3.0, 10.0)
LEARNERS = {
    "HAPPO": Learner("happo", {}),
    "HAD3QN": Learner("had3qn", {}),
    "HATD3": Learner("hatd3", {}),
} | {
    f"HASAC, α = {alpha:g}": Learner("hasac", {"auto_alpha": False, "alpha": alpha})
    for alpha in FIXED
}
for _share in (0.98, 0.3):
    _adapted = {"auto_alpha": True, "alpha": 1.0, "target_entropy_choices": _share}
    LEARNERS[f"HASAC, adapted to {_share:g}"] = Learner("hasac", _adapted)
LEARNERS["HASAC, scheduled 10 to .05"] = Learner(
    "hasac", {"auto_alpha": False, "alpha": 10.0, "alpha_final": 0.05}
)
SAMPLED = ("HAPPO", "HAD3QN", "HATD3", "HASAC, α = 0.1", "HASAC, α = 1", "HASAC, adapted to 0.98")
"""Those that are run with networks too."""


# ---------------------------------------------------------------------- exact
def first_policies(case: Case, seed: int) -> list[Tensor]:
    """Both agents' ``[1, K]``, a little different for each seed."""
    count = case.game.actions[0]
    logits = 0.3 * torch.randn(2, 1, count, generator=stream(seed, "start")).double()
    if case.begin is not None:
        logits[..., case.begin] += math.log(START / (1 - START) * (count - 1))
    return list(logits.softmax(-1))


def exact_run(case: Case, learner: Learner, turns: int, seed: int) -> float:
    """The return of the most probable joint action after updates with nothing estimated.

    HAPPO's are the maximum of its clipped objective, found numerically, 3 for 10 of the others'.
    """
    game, policies = case.game, first_policies(case, seed)
    if learner.algorithm == "happo":
        actors = [TableActor(policy) for policy in policies]
        update = partial(Maximise, steps=3)
        team = EnumeratedTeam(game, ClipDrift(0.2), actors=actors, update=update, seed=seed)
        for _ in range(max(1, 3 * turns // 10)):
            team.step()
        policies = team.policies
    elif learner.algorithm in ("had3qn", "hatd3"):
        # an actor that climbs Q to its top plays the best reply, as one that compares all choices
        policies = [nn.functional.one_hot(p.argmax(-1), p.shape[1]).double() for p in policies]
        in_turn(policies, turns, seed, lambda i, _: game.best_response(policies, i, 1.0)[0])
    else:
        in_turn(policies, turns, seed, soft_reply(game, policies, learner.config, turns))
    return game.reward[0][tuple(int(policy.argmax()) for policy in policies)].item()


def in_turn(
    policies: list[Tensor], turns: int, seed: int, reply: Callable[[int, int], Tensor]
) -> None:
    """Replaces one agent's policy after the other's by ``reply(agent, turn)``, in random order."""
    generator = stream(seed, "order")
    for turn in range(turns):
        for i in torch.randperm(len(policies), generator=generator).tolist():
            policies[i] = reply(i, turn)


def soft_reply(
    game: TabularGame, policies: list[Tensor], config: dict[str, Any], turns: int
) -> Callable[[int, int], Tensor]:
    """HASAC's argmax, softmax(E[Q]/α), with α constant, scheduled, or adapted."""
    alphas = [config["alpha"]] * len(policies)

    def reply(i: int, turn: int) -> Tensor:
        if config["auto_alpha"]:
            entropy = float(torch.special.entr(policies[i]).sum())
            target = config["target_entropy_choices"] * math.log(game.actions[i])
            alphas[i] *= math.exp(0.1 * (target - entropy))
        elif "alpha_final" in config:
            alphas[i] = scheduled(
                config["alpha"], config["alpha_final"], turn, turns // 2, "exponential"
            )
        return game.quantal_response(policies, i, 1.0, alphas[i])

    return reply


# ---------------------------------------------------------------------- sampled
def sampled_run(case: Case, learner: Learner, iterations: int, seed: int) -> float:
    """As ``exact_run``, learned by networks from what they see."""
    entry = get_algorithm(learner.algorithm)
    on_policy = issubclass(entry.load("module"), OnPolicyModule)
    env = make_env(case.task, num_envs=4 * ENVS if on_policy else ENVS, seed=seed, **case.options)
    rate = 5e-3 if on_policy else 2e-2
    settings: dict[str, Any] = {"actor_lr": rate, "critic_lr": rate} | learner.config
    if not on_policy:
        settings |= {"batch_size": 64, "updates_per_step": UPDATES, "polyak": 0.1}
    module = entry.load("module")(
        TeamSpec.from_env(env),
        entry.load("config")(**settings),
        entry.load("network")(hidden_sizes=[32]),
        seed=seed,
    )
    if case.begin is not None:
        begin_at(module.policy.actors, case.begin)
    if on_policy:
        for _ in learn(module, env, iterations, 1):
            pass
    else:
        module.moves_actors = lambda update: update > CRITIC_FIRST
        learn_from_replay(module, env, iterations, STEPS, WARMUP)
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        played = env.step(module.policy(env.reset()))
    return played["next", "reward"][0].item()


def begin_at(actors: nn.ModuleList, choice: int) -> None:
    """Lets every agent play ``choice`` with probability ``START``, the others equally often."""
    for actor in actors:
        last: Any = [m for m in actor.modules() if isinstance(m, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()
            last.bias[choice] = math.log(START / (1 - START) * (len(last.bias) - 1))


# ---------------------------------------------------------------------- the study
def study(
    out: Path, *, starts: int = 10, turns: int = 100, iterations: int = 30, seeds: int = 1
) -> list[list[Any]]:
    """Writes ``temperature.csv`` and ``.png``; returns the table.

    Args:
        out: directory.
        starts: policies that exact updates start from.
        turns: exact updates of each agent.
        iterations: rollouts of a run with networks.
        seeds: runs with networks of each kind that has some; 0: none.
    """
    rows: list[list[Any]] = []
    panels = []
    for where, case in CASES.items():
        best, returns = case.game.optimal_return(1.0), {}
        for label, learner in LEARNERS.items():
            ends = [exact_run(case, learner, turns, seed) for seed in range(starts)]
            runs = range(seeds if label in SAMPLED else 0)
            sampled = [sampled_run(case, learner, iterations, seed) for seed in runs]
            returns[label] = mean_spread(ends)[0]
            rows.append(
                [
                    where,
                    label,
                    *mean_spread(ends),
                    f"{sum(end == best for end in ends)} of {starts}",
                    ", ".join(f"{value:g}" for value in sampled),
                ]
            )
        panels.append(partial(panel, returns=returns, best=best, title=where))
    header = ["game", "algorithm", "return", "±", "at the optimum", "with networks, each seed"]
    write_table(out / "temperature.csv", header, rows)
    draw(out / "temperature.png", panels)
    return rows


def panel(axes: Any, returns: dict[str, float], best: float, title: str) -> None:
    """Mean return of exact updates against HASAC's fixed temperature, the others as lines."""
    axes.plot(FIXED, [returns[f"HASAC, α = {a:g}"] for a in FIXED], "o-", label="HASAC, fixed α")
    styles = {"HAPPO": ":", "HAD3QN": "-.", "HASAC, scheduled 10 to .05": "--"}
    for number, (label, style) in enumerate(styles.items(), start=1):
        axes.axhline(returns[label], color=f"C{number}", linestyle=style, label=label)
    axes.axhline(best, color="black", linewidth=0.7, label="optimum")
    axes.set_xscale("log")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("temperature α")
    axes.set_ylabel("return of the most probable joint action")


if __name__ == "__main__":
    study(**arguments(__doc__, starts=10, turns=100, iterations=30, seeds=1))
