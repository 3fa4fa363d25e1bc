"""What more agents cost: time per update, and the return after equally many frames.

    python recipes/studies/number_of_agents.py

games/roles with a role for each agent. Time is that of the processor, so that other work on the
machine does not count.
"""

import math
import time
from pathlib import Path
from statistics import median
from typing import Any

from study import arguments, draw, learn, write_table

from hetmarl.algorithms import HAPPO, MAPPO, HAPPOConfig
from hetmarl.networks import OnPolicyNetworkConfig
from hetmarl_envs import TeamSpec, make_env

KINDS: dict[str, tuple[type[HAPPO], int, dict[str, Any]]] = {
    "HAPPO": (HAPPO, 1, {}),
    "HAPPO, 8 × games": (HAPPO, 8, {}),
    "MAPPO": (MAPPO, 1, {}),
    "MAPPO, shared": (MAPPO, 1, {"sharing": "full"}),
}
"""Algorithm, how many times 256 games at once, settings of its networks."""


def one_run(
    kind: type[HAPPO], times: int, network: dict[str, Any], agents: int, iterations: int
) -> tuple[float, float, int]:
    """Milliseconds of an iteration, the last one's return, and the width of the critic's input."""
    env = make_env(
        "games/roles", num_envs=256 * times, seed=0, num_agents=agents, heterogeneity=0.5
    )
    found = TeamSpec.from_env(env)
    # no global state: the critic reads everybody's observation, as where the task has none
    spec = TeamSpec(found.agents, None)
    config = HAPPOConfig(actor_lr=5e-3, critic_lr=5e-3, entropy_coef=0.0)
    module = kind(spec, config, OnPolicyNetworkConfig(hidden_sizes=[32], **network))
    spent, returns = [], []
    runs = learn(module, env, iterations, 1)
    while True:
        start = time.process_time()
        result = next(runs, None)
        if result is None:
            break
        spent.append(1000 * (time.process_time() - start))
        returns.append(result[0])
    last = returns[-max(1, iterations // 10) :]
    return median(spent), sum(last) / len(last), spec.critic_dim


def study(out: Path, *, largest: int = 32, iterations: int = 20) -> list[list[Any]]:
    """Writes ``number_of_agents.csv`` and ``.png``; returns the table."""
    counts = [2**k for k in range(1, int(math.log2(largest)) + 1)]
    rows: list[list[Any]] = []
    for n in counts:
        row: list[Any] = [n]
        for settings in KINDS.values():
            milliseconds, value, width = one_run(*settings, n, iterations)
            row += [milliseconds, value]
        rows.append([*row, width])
    header = ["agents"]
    for name in KINDS:
        header += [f"{name}: ms", "return"]
    write_table(out / "number_of_agents.csv", [*header, "critic's inputs"], rows)

    def times(axes: Any) -> None:
        for i, name in enumerate(KINDS):
            axes.loglog(counts, [row[1 + 2 * i] for row in rows], marker="o", label=name)
        first = rows[0][1]
        axes.loglog(counts, [first * n / counts[0] for n in counts], "k:", label="proportional")
        axes.set_xticks(counts, counts)
        axes.set_yticks((30, 100, 300, 1000), (30, 100, 300, 1000))
        axes.minorticks_off()
        axes.set_xlabel("agents n")
        axes.set_ylabel("ms of an iteration (processor)")

    def returns(axes: Any) -> None:
        for i, name in enumerate(KINDS):
            axes.semilogx(counts, [row[2 + 2 * i] for row in rows], marker="o", label=name)
        axes.set_xticks(counts, counts)
        axes.minorticks_off()
        axes.set_xlabel("agents n")
        axes.set_ylabel(f"return after {iterations} iterations (1: best)")

    draw(out / "number_of_agents.png", [times, returns])
    return rows


if __name__ == "__main__":
    study(**arguments(__doc__, largest=32, iterations=20))
