"""HASAC, with a drift and in a ball, on the climbing game: what holding agents back does.

    python recipes/studies/maximum_entropy_members.py

Critics are learned from replay; policies are judged exactly: their expected payoff, the soft return
J = E[payoff] + α·ΣH, and how often an iteration lowered it.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from study import arguments, draw, mean_spread, write_table

from hetmarl.algorithms import HASACKL, MEHAML, HASACBall
from hetmarl.data import Replay, TeamCollector
from hetmarl.engines import UpdateRandomness, stream
from hetmarl.networks import NetworkConfig
from hetmarl_envs import TeamSpec, make_env

MEMBERS: dict[str, tuple[type[MEHAML], dict[str, Any]]] = {
    "HASAC": (MEHAML, {}),  # its trivial member
    "KL, t = 1": (HASACKL, {"step_size": 1.0}),
    "KL, t = .1": (HASACKL, {"step_size": 0.1}),
    "ball, δ = .01": (HASACBall, {"radius": 0.01}),
    "ball, δ = .001": (HASACBall, {"radius": 0.001}),
}
STEPS, ENVS, UPDATES = 4, 16, 20
"""Vector steps, environments and gradient steps of an iteration, the interval of the old policy."""


def one_run(label: str, alpha: float, iterations: int, seed: int) -> list[tuple[float, float]]:
    """Expected payoff and soft return before the first iteration and after each."""
    env: Any = make_env("games/climbing", num_envs=ENVS, seed=seed)
    spec = TeamSpec.from_env(env)
    member, settings = MEMBERS[label]
    config = {"alpha": alpha, "auto_alpha": False, "old_interval": UPDATES, "actor_lr": 1e-2}
    module = member(spec, config | settings, NetworkConfig([32]), seed)
    module.optimizers_of_team()  # which makes the engine
    collector = TeamCollector(env, module.policy, seed=seed)
    observed = env.reset()
    actors: Any = module.policy.actors

    def judge() -> tuple[float, float]:
        with torch.no_grad():
            logits = [actor(spec.observation(observed, i)[:1]) for i, actor in enumerate(actors)]
        policies = [x.double().softmax(-1) for x in logits]
        soft = env.game.soft_return(policies, 1.0, alpha)
        return env.game.expected_return(policies, 1.0), soft

    found, replay = [judge()], None
    for k in range(iterations):
        chunk, _ = collector.collect(STEPS, k)
        replay = replay or Replay(chunk, spec, 100_000, spare=STEPS)
        replay.extend(chunk)
        randomness, draws = UpdateRandomness(seed, k), stream(seed, "draw", k)
        for update in range(k * UPDATES + 1, (k + 1) * UPDATES + 1):
            module.begin_update(update)
            module.engine.update(replay.sample(64, generator=draws), randomness)
        found.append(judge())
    return found


def study(
    out: Path, *, alpha: float = 1.0, iterations: int = 50, seeds: int = 4
) -> list[list[Any]]:
    """Writes ``maximum_entropy_members.csv`` and ``.png``; returns the table."""
    rows: list[list[Any]] = []
    curves: dict[str, list[float]] = {}
    for label in MEMBERS:
        runs = [one_run(label, alpha, iterations, seed) for seed in range(seeds)]
        soft = [[value for _, value in run] for run in runs]
        falls = sum(after < before - 0.01 for run in soft for before, after in pairwise(run))
        worst = max(before - after for run in soft for before, after in pairwise(run))
        payoff = mean_spread([run[-1][0] for run in runs])
        rows.append([label, *payoff, *mean_spread([run[-1] for run in soft])])
        rows[-1] += [f"{falls} of {seeds * iterations}", max(worst, 0.0)]
        curves[label] = torch.tensor(soft, dtype=torch.float64).mean(0).tolist()
    header = ["member", "payoff at the end", "±", "soft return at the end", "±"]
    header += ["iterations that fell", "deepest fall"]
    write_table(out / "maximum_entropy_members.csv", header, rows)

    def over_time(kind: str) -> Any:
        def panel(axes: Any) -> None:
            for label, curve in curves.items():
                if label == "HASAC" or label.startswith(kind):
                    axes.plot(curve, label=label)
            axes.set_xlabel(f"iteration, {UPDATES} gradient steps each")
            axes.set_ylabel("soft return")

        return panel

    draw(out / "maximum_entropy_members.png", [over_time("KL"), over_time("ball")])
    return rows


if __name__ == "__main__":
    study(**arguments(__doc__, alpha=1.0, iterations=50, seeds=4))
