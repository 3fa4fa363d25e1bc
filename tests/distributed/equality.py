"""HASAC's updates in two processes and in one; a script, so that it can fork.

    python tests/distributed/equality.py <directory>

Leaves a line of JSON per case in ``<directory>/found.jsonl``: greatest differences of weights.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from hetmarl.engines import GradientStep, OffPolicyEngine, UpdateRandomness, stream
from hetmarl.lightning.strategy import average
from hetmarl.networks import NetworkConfig, TeamPolicy, TwinQ
from hetmarl.objectives import HASACLoss
from hetmarl.objectives.reduce import Reduce, identity
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec

BATCH, ITERATIONS, UPDATES = 24, 2, 3
SPEC = TeamSpec(
    (
        AgentSpec("a", "leg", 0, (3,), ActionSpace("continuous", (-1.0, -2.0), (1.0, 3.0))),
        AgentSpec("b", "arm", 0, (5,), ActionSpace("continuous", (-1.0,), (1.0,))),
        AgentSpec("c", "leg", 1, (3,), ActionSpace("continuous", (-1.0, -2.0), (1.0, 3.0))),
    ),
    state_dim=4,
)


def batch(rank: int, iteration: int, update: int, deaths: bool) -> TensorDict:
    """A process's replay batch ``[BATCH]``, float64; with ``deaths`` fewer live in process 1."""
    g = stream("batch", rank, iteration, update)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(BATCH, *shape, generator=g, dtype=torch.float64)

    def observed() -> dict[str, Any]:
        groups = {"leg": {"observation": normal(2, 3)}, "arm": {"observation": normal(1, 5)}}
        if deaths:
            for name, size in (("leg", 2), ("arm", 1)):
                alive = torch.rand(BATCH, size, 1, generator=g) > (0.2 + 0.5 * rank)
                # nobody of this process lives
                groups[name]["alive"] = alive & (rank == 0 or update != 1)
        return {**groups, "state": normal(4)}

    data = TensorDict(observed(), [BATCH])
    data["leg", "action"], data["arm", "action"] = normal(2, 2).tanh(), normal(1, 1).tanh()
    following = observed()
    following["reward"] = normal(1)
    following["terminated"] = torch.rand(BATCH, 1, generator=g) < 0.2
    data["next"] = TensorDict(following, [BATCH])
    data["steps_to_next_obs"] = torch.randint(1, 4, (BATCH, 1), generator=g)
    return data


def learn(shards: tuple[int, ...], reduce: Reduce, deaths: bool) -> torch.Tensor:
    """All weights after the updates of the given shards, as one vector."""
    torch.manual_seed(0)
    network = NetworkConfig(hidden_sizes=[16, 16])
    policy, critic = TeamPolicy(SPEC, network), TwinQ(SPEC, network)
    loss = HASACLoss(policy, critic, auto_alpha=True, reduce=reduce).double()

    def step(parameters: list[torch.nn.Parameter], norm: float | None) -> GradientStep:
        return GradientStep(parameters, torch.optim.Adam(parameters, lr=1e-3), reduce, norm)

    engine = OffPolicyEngine(
        loss,
        step(list(critic.parameters()), 0.5),
        [step(list(actor.parameters()), 0.5) for actor in policy.actors],
        step([*loss.log_alpha, loss.log_alpha_joint], None),
    )
    for iteration in range(ITERATIONS):
        randomness = UpdateRandomness(3, iteration, shards)
        for update in range(UPDATES):
            parts = [batch(rank, iteration, update, deaths) for rank in shards]
            engine.update(torch.cat(parts), randomness)  # type: ignore[arg-type]
    return torch.nn.utils.parameters_to_vector(loss.parameters()).detach()


def process(rank: int, directory: Path, deaths: bool) -> None:
    """One of two."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/store{deaths}", rank=rank, world_size=2
    )
    torch.save(learn((rank,), average, deaths), directory / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def main() -> None:
    """Both cases."""
    directory = Path(sys.argv[1])
    torch.set_num_threads(1)
    for deaths in (False, True):
        children = []
        for rank in range(2):
            pid = os.fork()
            if pid == 0:
                process(rank, directory, deaths)
                os._exit(0)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
        two = [torch.load(directory / f"rank{rank}.pt") for rank in range(2)]
        one = learn((0, 1), identity, deaths)
        alone = learn((0,), identity, deaths)
        line = {
            "deaths": deaths,
            "between processes": (two[0] - two[1]).abs().max().item(),
            "to one process": (two[0] - one).abs().max().item(),
            "to one shard": (alone - one).abs().max().item(),
        }
        with (directory / "found.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
