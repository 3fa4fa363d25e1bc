"""How much a team needs different behaviour, against who can give it: separate policies, or one.

    python recipes/studies/heterogeneity.py

On games/roles heterogeneity is a number h, and the best returns are known: 1 for any team of
policies, 1 − h(1 − 1/n) for one policy of all agents that is not told which agent it acts for.
"""

from pathlib import Path
from typing import Any

from study import arguments, draw, learn, mean_spread, write_table

from hetmarl.algorithms import HAPPO, MAPPO, HAPPOConfig
from hetmarl.networks import OnPolicyNetworkConfig
from hetmarl_envs import TeamSpec, make_env

TEAMS: dict[str, tuple[type[HAPPO], dict[str, Any]]] = {
    "HAPPO, separate": (HAPPO, {}),
    "MAPPO, shared with id": (MAPPO, {"sharing": "full"}),
    "MAPPO, shared without id": (MAPPO, {"sharing": "full", "agent_id": False}),
}


def one_run(
    kind: type[HAPPO], network: dict[str, Any], h: float, agents: int, iterations: int, seed: int
) -> tuple[float, float]:
    """The last tenth's mean return, and the task's best of one policy for all."""
    env = make_env("games/roles", num_envs=256, seed=seed, num_agents=agents, heterogeneity=h)
    config = HAPPOConfig(actor_lr=5e-3, critic_lr=5e-3, entropy_coef=0.0)
    sizes = OnPolicyNetworkConfig(hidden_sizes=[32], **network)
    module = kind(TeamSpec.from_env(env), config, sizes, seed=seed)
    returns = [value for value, _ in learn(module, env, iterations, 1)]
    last = returns[-max(1, iterations // 10) :]
    return sum(last) / len(last), env.shared_return


def study(
    out: Path, *, points: int = 5, agents: int = 4, iterations: int = 60, seeds: int = 3
) -> list[list[Any]]:
    """Writes ``heterogeneity.csv`` and ``.png``; returns the table."""
    degrees = [i / (points - 1) for i in range(points)]
    rows: list[list[Any]] = []
    for h in degrees:
        row: list[Any] = [h]
        for kind, network in TEAMS.values():
            runs = [one_run(kind, network, h, agents, iterations, s) for s in range(seeds)]
            row += mean_spread([run[0] for run in runs])
        rows.append([*row, 1.0, runs[0][1]])
    header = ["h"]
    for name in TEAMS:
        header += [name, "±"]
    header += ["best team", "best one policy"]
    write_table(out / "heterogeneity.csv", header, rows)

    def panel(axes: Any) -> None:
        for i, name in enumerate(TEAMS):
            mean, spread = ([row[1 + 2 * i + k] for row in rows] for k in (0, 1))
            # the first, open and large, stays visible behind the others
            style = {"marker": "o", "markersize": 11, "fillstyle": "none"} if i == 0 else {}
            axes.errorbar(degrees, mean, spread, **{"marker": "s^"[i - 1], **style}, label=name)
        axes.plot(degrees, [row[-2] for row in rows], "k--", label="best team")
        axes.plot(degrees, [row[-1] for row in rows], "k:", label="best one policy")
        axes.set_xlabel("heterogeneity h")
        axes.set_ylabel("return per step")

    draw(out / "heterogeneity.png", [panel])
    return rows


if __name__ == "__main__":
    study(**arguments(__doc__, points=5, agents=4, iterations=60, seeds=3))
