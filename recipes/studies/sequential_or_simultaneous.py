"""Two agents that earn the product of their actions: stepping at once, or one after the other.

    python recipes/studies/sequential_or_simultaneous.py

From means −.25 and .25 each agent moves its mean by Δ: the return against Δ, as the formulas say,
and as one iteration of HAPPO and of MAPPO has it from samples. How far these move follows from the
bound ε of their clipping.
"""

from pathlib import Path
from typing import Any

import torch
from study import arguments, draw, learn, mean_spread, write_table

from hetmarl.algorithms import HAPPO, MAPPO, HAPPOConfig
from hetmarl.networks import OnPolicyNetworkConfig
from hetmarl_envs import TeamSpec, make_env

START = 0.25
BEFORE = -(START**2)
EPSILONS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)


def simultaneous(delta: float) -> float:
    """J where each steps towards where the other was."""
    return -((delta - START) ** 2)


def sequential(delta: float) -> float:
    """J where the second steps to where the first now is."""
    return simultaneous(delta) if delta < START else delta**2 - START**2


def one_update(
    kind: type[HAPPO], epsilon: float, samples: int, passes: int, seed: int
) -> tuple[float, float]:
    """How far the means moved, on average, and J, after one iteration."""
    # bounds of ±1 and a scale of 2 make a Gaussian with σ = 1 and a mean in the game's own units
    env = make_env("games/product", num_envs=samples, seed=seed, bound=1.0)
    config = HAPPOConfig(clip_epsilon=epsilon, actor_lr=0.05, epochs=passes, entropy_coef=0.0)
    network = OnPolicyNetworkConfig(hidden_sizes=[8], std_scale=2.0, std_init=0.0)
    module = kind(TeamSpec.from_env(env), config, network, seed=seed)
    seen = torch.ones(1, 1)
    actors: Any = module.policy.actors
    with torch.no_grad():
        for actor, mean in zip(actors, (-START, START), strict=True):
            actor.net.head.bias.fill_(mean)
    for _ in learn(module, env, 1, 1):
        pass
    with torch.no_grad():
        first, second = (actor(seen)[0][0, 0].item() for actor in actors)
    return (abs(first + START) + abs(second - START)) / 2, first * second


def study(out: Path, *, samples: int = 4096, passes: int = 40, seeds: int = 3) -> list[list[Any]]:
    """Writes ``sequential_or_simultaneous.csv`` and ``.png``; returns the table."""
    rows: list[list[Any]] = []
    for kind, exact in ((HAPPO, sequential), (MAPPO, simultaneous)):
        for epsilon in EPSILONS:
            moves, returns = zip(
                *(one_update(kind, epsilon, samples, passes, seed) for seed in range(seeds)),
                strict=True,
            )
            move = mean_spread(moves)[0]
            rows.append([kind.name, epsilon, move, *mean_spread(returns), exact(move)])
    header = ["algorithm", "ε", "move Δ", "J after", "± (seeds)", "J of the formula"]
    write_table(out / "sequential_or_simultaneous.csv", header, rows)
    largest = max(row[2] for row in rows) + 0.1

    def panel(axes: Any) -> None:
        line = torch.linspace(0, largest, 200).tolist()
        for kind, exact, colour in ((HAPPO, sequential, "C0"), (MAPPO, simultaneous, "C1")):
            axes.plot(line, [exact(d) for d in line], color=colour, label=exact.__name__)
            points = [row for row in rows if row[0] == kind.name]
            x, y, spread = ([row[i] for row in points] for i in (2, 3, 4))
            axes.errorbar(x, y, spread, fmt="o", color=colour, label=f"{kind.name}, sampled")
        axes.axhline(BEFORE, color="grey", linestyle=":", label="before the step")
        axes.axvline(2 * START, color="grey", linewidth=0.8)
        axes.set_xlabel("Δ: how far each mean moves")
        axes.set_ylabel("J after the step")

    draw(out / "sequential_or_simultaneous.png", [panel])
    return rows


if __name__ == "__main__":
    study(**arguments(__doc__, samples=4096, seeds=3))
