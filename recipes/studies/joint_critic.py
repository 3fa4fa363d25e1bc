"""What a joint critic costs as agents become more: a gradient step of HASAC and of MASAC.

    python recipes/studies/joint_critic.py

Agents that each see six numbers and do two, however many they are; without a global state the
critic reads everything. Random data: times, no learning. They are those of the processor.
"""

import math
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from study import arguments, draw, write_table
from tensordict import TensorDict

from hetmarl.algorithms import HASAC, MASAC, HASACConfig
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import NetworkConfig
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec

KINDS: dict[str, type[HASAC]] = {"HASAC": HASAC, "MASAC": MASAC}
HIDDEN = 64
SEEN, ACTIONS = 6, 2


def transitions(agents: int, size: int) -> tuple[TeamSpec, TensorDict]:
    """A team and a random batch ``[size]`` of its transitions."""
    space = ActionSpace("continuous", (-1.0,) * ACTIONS, (1.0,) * ACTIONS)
    members = [AgentSpec(f"a{i}", "agents", i, (SEEN,), space) for i in range(agents)]

    def seen() -> dict[str, Any]:
        return {"agents": {"observation": torch.randn(size, agents, SEEN)}}

    following = seen() | {"reward": torch.randn(size, 1), "terminated": torch.rand(size, 1) < 0.05}
    batch = TensorDict(seen() | {"next": following}, [size])
    batch["agents", "action"] = 2 * torch.rand(size, agents, ACTIONS) - 1
    return TeamSpec(tuple(members), None), batch


def milliseconds(module: HASAC, batch: TensorDict, steps: int) -> float:
    """The median of gradient steps of everybody on that batch."""
    module.optimizers_of_team()
    spent = []
    for k in range(steps + 1):
        data, randomness = batch.clone(), UpdateRandomness(0, k)
        start = time.process_time()
        module.engine.update(data, randomness)
        spent.append(1000 * (time.process_time() - start))
    return median(spent[1:])


def growth(counts: list[int], times: list[float]) -> tuple[float, float]:
    """a and b of the a·n + b·n² that is nearest, relatively."""
    n, t = np.array(counts, float), np.array(times)
    (a, b), *_ = np.linalg.lstsq(np.stack([n, n**2], 1) / t[:, None], np.ones(len(n)), rcond=None)
    return float(a), float(b)


def study(out: Path, *, largest: int = 256, steps: int = 5, size: int = 256) -> list[list[Any]]:
    """Writes ``joint_critic.csv`` and ``.png``; returns the table."""
    counts = [2**k for k in range(1, int(math.log2(largest)) + 1)]
    rows: list[list[Any]] = []
    for n in counts:
        spec, batch = transitions(n, size)
        inputs = spec.critic_dim + sum(agent.action.width for agent in spec.agents)
        row: list[Any] = [n, inputs]
        for kind in KINDS.values():
            module = kind(spec, HASACConfig(), NetworkConfig([HIDDEN, HIDDEN]))
            row.append(milliseconds(module, batch, steps))
        rows.append([*row, row[2] / n])
    header = ["agents", "critic's inputs", *(f"{name}: ms" for name in KINDS), "HASAC: ms/agent"]
    write_table(out / "joint_critic.csv", header, rows)
    a, b = growth(counts, [row[2] for row in rows])

    def times(axes: Any) -> None:
        for i, name in enumerate(KINDS):
            axes.loglog(counts, [row[2 + i] for row in rows], marker="o", label=name)
        axes.loglog(counts, [rows[0][2] * n / counts[0] for n in counts], "k:", label="∝ n")
        axes.loglog(
            counts, [a * n + b * n**2 for n in counts], "k--", label=f"{a:.3g}·n + {b:.2g}·n²"
        )
        axes.set_xticks(counts, counts)
        axes.minorticks_off()
        axes.set_xlabel("agents n")
        axes.set_ylabel("ms of a gradient step (processor)")

    def per_agent(axes: Any) -> None:
        axes.plot(counts, [row[-1] for row in rows], marker="o", label="HASAC")
        axes.plot(counts, [a + b * n for n in counts], "k--", label="a + b·n")
        axes.set_xlabel("agents n")
        axes.set_ylabel("ms per agent")
        axes.set_ylim(0)

    draw(out / "joint_critic.png", [times, per_agent])
    return rows


if __name__ == "__main__":
    study(**arguments(__doc__, largest=256, steps=5, size=256))
