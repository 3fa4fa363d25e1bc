"""Every algorithm's updates in two processes and in one; a script, so that it can fork.

    python tests/distributed/equality.py <directory>

Leaves a line of JSON per case in ``<directory>/found.jsonl``: greatest differences of weights, and
what one process sent on its way (see ``Sent``).
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from hetmarl.algorithms import get_algorithm
from hetmarl.engines import UpdateRandomness, stream
from hetmarl.lightning.strategy import average
from hetmarl.objectives import PolicyChange
from hetmarl.objectives.reduce import Reduce, identity
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec

BATCH, ITERATIONS, UPDATES = 24, 2, 3
ENVS, STEPS, SLICE = 3, 8, 6
LEG = ActionSpace("continuous", (-1.0, -2.0), (1.0, 3.0))
CONTINUOUS = ActionSpace("continuous", (-1.0,), (1.0,))
CHOICE = ActionSpace("discrete", choices=(4,))


def team(arm: ActionSpace, leg: ActionSpace = LEG) -> TeamSpec:
    """Two legs and an arm between them."""
    agents = (
        AgentSpec("a", "leg", 0, (3,), leg),
        AgentSpec("b", "arm", 0, (5,), arm),
        AgentSpec("c", "leg", 1, (3,), leg),
    )
    return TeamSpec(agents, state_dim=4)


SIZES = {"leg": (2, 3), "arm": (1, 5)}
"""Members and observations of each group."""


class Sent:
    """``average`` that counts how many tensors of which number of elements were sent."""

    def __init__(self) -> None:
        self.sizes: Counter[int] = Counter()

    def __call__(self, tensor: Tensor) -> Tensor:
        self.sizes[tensor.numel()] += 1
        return average(tensor)


def in_process(name: str, reduce: Reduce) -> Any:
    """The algorithm's module where there is neither a Trainer nor its processes."""
    module = get_algorithm(name).load("module")
    return type("InProcess", (module,), {"reduce": staticmethod(reduce)})


# ---------------------------------------------------------------------- off-policy
def replayed(
    rank: int, iteration: int, update: int, deaths: bool, arm: ActionSpace, leg: ActionSpace
) -> TensorDict:
    """A process's replay batch ``[BATCH]``, float64; with ``deaths`` fewer live in process 1.

    An arm that chooses may not choose everything.
    """
    g = stream("batch", rank, iteration, update)

    def normal(*shape: int) -> Tensor:
        return torch.randn(BATCH, *shape, generator=g, dtype=torch.float64)

    def observed() -> dict[str, Any]:
        groups = {name: {"observation": normal(*shape)} for name, shape in SIZES.items()}
        if deaths:
            for name, (size, _) in SIZES.items():
                alive = torch.rand(BATCH, size, 1, generator=g) > (0.2 + 0.5 * rank)
                # nobody of this process lives
                groups[name]["alive"] = alive & (rank == 0 or update != 1)
        if arm.choices:
            legal = torch.rand(BATCH, 1, arm.width, generator=g) < 0.6
            legal[..., 0] = True
            groups["arm"]["action_mask"] = legal
        return {**groups, "state": normal(4)}

    data = TensorDict(observed(), [BATCH])
    data["leg", "action"], data["arm", "action"] = normal(2, 2).tanh(), normal(1, 1).tanh()
    if arm.choices:
        data["arm", "action"] = torch.randint(arm.width, (BATCH, 1), generator=g)
    if leg.choices:
        data["leg", "action"] = torch.randint(leg.width, (BATCH, 2), generator=g)
    following = observed()
    following["reward"] = normal(1)
    following["terminated"] = torch.rand(BATCH, 1, generator=g) < 0.2
    data["next"] = TensorDict(following, [BATCH])
    data["steps_to_next_obs"] = torch.randint(1, 4, (BATCH, 1), generator=g)
    return data


def as_slices(data: TensorDict, module: Any, rank: int) -> TensorDict:
    """``[BATCH]`` as slices in time with memories, of which process 1 has fewer valid steps."""
    data = data.reshape(-1, SLICE)
    g = stream("slices", rank)
    for name, actor in zip(module.spec.names, module.policy.actors, strict=True):
        shape = (*data.shape, actor.hidden_size)
        data["hidden", name] = torch.randn(shape, generator=g, dtype=torch.float64)
    data["is_init"] = torch.rand(*data.shape, 1, generator=g) < 0.2
    data["valid"] = torch.ones(*data.shape, 1, dtype=torch.bool)
    data["valid"][: 1 + rank, 3:] = False
    data["steps_to_next_obs"] = torch.ones_like(data["steps_to_next_obs"])
    return module.loss.burn_in(data, 2)


def off_policy(name: str, shards: tuple[int, ...], reduce: Reduce, case: dict[str, Any]) -> Any:
    """The loss after an algorithm's updates of the given shards, its gradients' numbers."""
    arm, leg = case.get("arm", CONTINUOUS), case.get("leg", LEG)
    module = in_process(name, reduce)(
        team(arm, leg),
        {"max_grad_norm": 0.5} | case.get("config", {}),
        {"hidden_sizes": [16, 16], "memory_size": 4} | case.get("network", {}),
    ).double()
    if "drift" in case:
        module.loss.drift = case["drift"]
    module.optimizers_of_team()
    gradients: Counter[int] = Counter()
    for iteration in range(ITERATIONS):
        randomness = UpdateRandomness(3, iteration, shards)
        for update in range(UPDATES):
            moves = module.moves_actors(1 + iteration * UPDATES + update)
            parts = [replayed(r, iteration, update, case["deaths"], arm, leg) for r in shards]
            if module.policy.recurrent:
                pairs = zip(parts, shards, strict=True)
                parts = [as_slices(part, module, rank) for part, rank in pairs]
            module.engine.update(torch.cat(parts), randomness, actors=moves)
            units = module.policy.units if moves else ()
            actors = [torch.nn.ModuleList(module.policy.actors[i] for i in u) for u in units]
            gradients.update(map(numel, (module.critic, *actors)))
    return module.loss, gradients


# ---------------------------------------------------------------------- on-policy
def rollout(rank: int, iteration: int, spec: TeamSpec, module: Any, deaths: bool) -> TensorDict:
    """A process's rollout ``[ENVS, STEPS]``, float64, some choices illegal, episodes ending.

    With ``deaths`` legs die, more of them in process 1, and there agent c never lives; the arm has
    no mask of its own.
    """
    g = stream("rollout", rank, iteration)
    batch = (ENVS, STEPS)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*batch, *shape, generator=g, dtype=torch.float64)

    def observed() -> dict[str, Any]:
        groups = {name: {"observation": normal(*shape)} for name, shape in SIZES.items()}
        if deaths:
            alive = torch.rand(*batch, 2, 1, generator=g) > (0.2 + 0.3 * rank)
            alive[..., 1, :] &= rank == 0
            groups["leg"]["alive"] = alive
        legal = torch.rand(*batch, 1, 4, generator=g) < 0.6
        legal[..., 0] = True
        groups["arm"]["action_mask"] = legal
        return {**groups, "state": normal(4)}

    data = TensorDict(observed(), batch)
    data["leg", "sample"] = normal(2, 2)
    data["leg", "action"] = data["leg", "sample"].clamp(-1, 1)
    scores = torch.rand(*batch, 1, 4, generator=g).masked_fill(~data["arm", "action_mask"], -1)
    data["arm", "action"] = scores.argmax(-1)
    following = observed()
    following["reward"] = normal(1)
    following["done"] = torch.rand(*batch, 1, generator=g) < 0.2
    following["terminated"] = following["done"] & (torch.rand(*batch, 1, generator=g) < 0.5)
    data["next"] = TensorDict(following, batch)
    data["is_init"] = data["next", "done"].roll(1, dims=1)
    data["is_init"][:, 0] = True
    for network in (module.policy, module.critic):
        if network.recurrent:
            first = TensorDict({}, [ENVS])
            network.start(first)
            for name, zero in first["hidden"].items():
                for where in (data, data["next"]):
                    where["hidden", name] = normal(zero.shape[-1])
    return data


def on_policy(name: str, shards: tuple[int, ...], reduce: Reduce, case: dict[str, Any]) -> Any:
    """The loss after an algorithm's updates of the given shards, its gradients' numbers."""
    entry = get_algorithm(name)
    parts = {"max_grad_norm": 0.5, "critic_epochs": 2, "critic_minibatches": 2, "chunk_length": 4}
    if name != "hatrpo":
        parts |= {"epochs": 2, "minibatches": 3}
    module = in_process(name, reduce)(
        team(CHOICE),
        entry.load("config")(**parts | case.get("config", {})),
        entry.load("network")(hidden_sizes=[8], memory_size=4, **case.get("network", {})),
    ).double()
    module.optimizers_of_team()
    for iteration in range(ITERATIONS):
        module.anneal(iteration, ITERATIONS)
        rollouts = [
            rollout(rank, iteration, module.spec, module, case["deaths"]) for rank in shards
        ]
        module.engine.update(
            torch.cat(rollouts),
            UpdateRandomness(3, iteration, shards),
        )
    gradients = Counter({numel(module.critic): ITERATIONS * 2 * 2})
    for unit in module.policy.units:
        actors = torch.nn.ModuleList(module.policy.actors[i] for i in unit)
        # how many products HATRPO needs is open
        gradients[numel(actors)] += 0 if name == "hatrpo" else ITERATIONS * 2 * 3
    return module.loss, gradients


def sampled_kl(change: PolicyChange) -> Tensor:
    """KL(old ‖ new) from samples and exactly, so that both draws and sums are compared."""
    return (change.ratio - 1 - change.log_ratio) + change.old.kl(change.new)


GRU = {"memory": "gru"}
FULL = {"sharing": "full"}
CASES: dict[str, dict[str, Any]] = {
    "hasac": {"deaths": False},
    "hasac, deaths": {"deaths": True},
    "hasac, choices": {"deaths": True, "arm": CHOICE},
    "hasac, recurrent": {"deaths": True, "arm": CHOICE, "network": GRU},
    "hatd3, recurrent": {"deaths": True, "network": GRU},
    "masac, deaths": {"deaths": True},
    "hasac, shared": {
        "deaths": True,
        "arm": CHOICE,
        "network": {"sharing": [["a", "c"], ["b"]]},
        "config": {"allow_shared_sequential": True},
    },
    "hasac_ball, shared": {
        "deaths": True,
        "network": FULL,
        "config": {"allow_shared_sequential": True, "radius": 1e-5},
    },
    "matd3, shared": {"deaths": True, "network": FULL},
    "haddpg, choices": {"deaths": True, "arm": CHOICE},
    "hatd3": {"deaths": True},
    "hatd3, choices": {"deaths": False, "arm": CHOICE},
    "had3qn": {"deaths": True, "arm": CHOICE, "leg": CHOICE},
    "had3qn, shared": {
        "deaths": True,
        "arm": CHOICE,
        "leg": CHOICE,
        "network": {"sharing": [["a", "c"], ["b"]]},
        "config": {"allow_shared_sequential": True},
    },
    "maddpg": {"deaths": True},
    "matd3": {"deaths": True},
    "hasac_kl, sampled": {"deaths": True, "arm": CHOICE, "drift": sampled_kl},
    "hasac_ball": {"deaths": True, "arm": CHOICE, "config": {"radius": 1e-5}},
    "happo": {"deaths": True},
    "happo, nobody dies": {"deaths": False},
    "happo, shared": {
        "deaths": True,
        "network": FULL,
        "config": {"allow_shared_sequential": True},
    },
    "hatrpo": {"deaths": True},
    "hatrpo, recurrent": {"deaths": True, "network": GRU},
    "haa2c, recurrent": {"deaths": True, "network": GRU},
    "hamdpo": {"deaths": True},
    "mappo, shared": {"deaths": True, "network": GRU | FULL},
    "ippo": {"deaths": True},
    "ippo, recurrent": {"deaths": False, "network": GRU},
    "maa2c, sets": {"deaths": True, "network": {"sharing": [["a", "c"], ["b"]]}},
    "ia2c, recurrent": {"deaths": True, "network": GRU, "config": {"value_norm": False}},
}


def learn(case: str, shards: tuple[int, ...], reduce: Reduce) -> tuple[Tensor, Counter[int]]:
    """All weights and statistics after the updates of the given shards, as one vector."""
    name, settings = case.partition(",")[0], CASES[case]
    replays = get_algorithm(name).data.endswith(":ReplayData")
    run: Callable[..., Any] = off_policy if replays else on_policy
    loss, gradients = run(name, shards, reduce, settings)
    values = [v.detach().double().flatten() for v in loss.state_dict().values()]
    return torch.cat(values), gradients


def numel(module: torch.nn.Module) -> int:
    """Numbers of its parameters."""
    return sum(p.numel() for p in module.parameters())


def process(rank: int, directory: Path) -> None:
    """One of two: every case, one after the other."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/store", rank=rank, world_size=2
    )
    found = {}
    for case in CASES:
        sent = Sent()
        weights, gradients = learn(case, (rank,), sent)
        found[case] = (weights, dict(gradients), dict(sent.sizes))
    torch.save(found, directory / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def main() -> None:
    """Both processes, then one."""
    directory = Path(sys.argv[1])
    torch.set_num_threads(1)
    children = []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            process(rank, directory)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    first, second = (torch.load(directory / f"rank{rank}.pt") for rank in range(2))
    with (directory / "found.jsonl").open("w") as file:
        for case in CASES:
            two, gradients, sent = first[case]
            one, alone = (learn(case, shards, identity)[0] for shards in ((0, 1), (0,)))
            line = {
                "case": case,
                "between processes": (two - second[case][0]).abs().max().item(),
                "to one process": (two - one).abs().max().item(),
                "to one shard": (alone - one).abs().max().item(),
                "gradients": gradients,
                "sent": sent,
            }
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
