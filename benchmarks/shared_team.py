"""What it saves that agents around one network act and learn as one.

    python benchmarks/shared_team.py [--agents 3 5 8] [--clock cpu]

Agents with one network of 128×2, 100 numbers to see and 13 masked choices, beside a state of 192:
a vector step of 20 environments, packed and agent after agent; a gradient step of HASAC (batch 256,
straight-through draws, the team as one set) and of MASAC, against one that asks every agent by
itself; and HASAC with a network each, the same number of gradients through the critic as before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from interleaved import interleaved, parse, table
from tensordict import TensorDict

from hetmarl.algorithms import HASAC, MASAC, HASACConfig
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import NetworkConfig, TeamPolicy, for_acting
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec

OBSERVED, STATE, CHOICES, ENVS, BATCH = 100, 192, 13, 20, 256


def team(agents: int) -> TeamSpec:
    """Units of one kind."""
    space = ActionSpace("discrete", choices=(CHOICES,))
    units = [AgentSpec(f"unit_{i}", "units", i, (OBSERVED,), space) for i in range(agents)]
    return TeamSpec(tuple(units), STATE)


def observed(agents: int, size: int) -> TensorDict:
    """Random numbers; the first choice is always legal, the others half the time."""
    mask = torch.rand(size, agents, CHOICES) < 0.5
    mask[..., 0] = True
    units = {"observation": torch.randn(size, agents, OBSERVED), "action_mask": mask}
    return TensorDict({"units": units, "state": torch.randn(size, STATE)}, [size])


def replayed(agents: int) -> TensorDict:
    """A batch of transitions."""
    data = observed(agents, BATCH)
    data["units", "action"] = torch.zeros(BATCH, agents, dtype=torch.long)
    following = observed(agents, BATCH)
    following["reward"] = torch.randn(BATCH, 1)
    following["terminated"] = torch.rand(BATCH, 1) < 0.1
    return data.set("next", following)


def learner(
    algorithm: type[HASAC], agents: int, sharing: str, *, alone: bool = False
) -> Callable[[], object]:
    """A gradient step; ``alone``: agent by agent, each with its pass of the critic."""
    config: Any = HASACConfig(exact_choices=False, allow_shared_sequential=True)
    if algorithm is MASAC:
        config.allow_shared_sequential = False
    network = NetworkConfig(hidden_sizes=[128, 128], sharing=sharing)
    module = algorithm(team(agents), config, network)
    module.configure_optimizers()
    loss, data, randomness = module.loss, replayed(agents), UpdateRandomness(0, 0)
    if alone:
        losses = loss.actors
        loss._alike = lambda actors, members: [[i] for i in members]  # type: ignore[method-assign]
        loss.actors = lambda *a, present: losses(*a, present=False)  # type: ignore[method-assign]
    return lambda: module.engine.update(data, randomness)


def main() -> None:
    """Prints a table per number of agents."""
    given = parse(__doc__, agents=(3, 5, 8))
    for agents in given.agents:
        shared = NetworkConfig(hidden_sizes=[128, 128], sharing="full")
        policy, data = TeamPolicy(team(agents), shared), observed(agents, ENVS)
        work: dict[str, Callable[[], object]] = {
            "packed": torch.no_grad()(partial(for_acting(policy, ENVS), data)),
            "in turns": torch.no_grad()(partial(policy, data)),
            "HASAC": learner(HASAC, agents, "full"),
            "HASAC alone": learner(HASAC, agents, "full", alone=True),
            "MASAC": learner(MASAC, agents, "full"),
            "MASAC alone": learner(MASAC, agents, "full", alone=True),
            "own": learner(HASAC, agents, "none"),
        }
        times = interleaved(
            work,
            rounds=1 if given.quick else 15,
            slice_seconds=0.0 if given.quick else 0.2,
            clock=given.timer,
        )
        ms = {name: f"{seconds * 1e3:.2f} ms" for name, seconds in times.items()}
        rows = {
            "acting, packed": ms["packed"],
            "acting, in turns / packed": f"{times['in turns'] / times['packed']:.2f}",
            "HASAC, a network each": ms["own"],
        }
        for name in ("HASAC", "MASAC"):
            rows[f"{name}, one network"] = ms[name]
            ratio = times[f"{name} alone"] / times[name]
            rows[f"{name}, agent by agent / at once"] = f"{ratio:.2f}"
        table(f"{agents} agents, {given.threads} thread(s)", rows)


if __name__ == "__main__":
    main()
