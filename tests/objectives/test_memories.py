"""Off-policy losses of actors with a memory, against loops over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from hetmarl.networks import (
    DeterministicNetworkConfig,
    GreedyNetworkConfig,
    JointQ,
    Memory,
    NetworkConfig,
    TeamPolicy,
)
from hetmarl.objectives import (
    DeterministicLoss,
    HAD3QNLoss,
    HASACLoss,
    JointQLoss,
    KLDrift,
    MEHAMLLoss,
)
from hetmarl_envs.contract import TeamSpec
from tests.choosing import CHOOSERS
from tests.teams import MIXED, UNEQUAL, batch

B, T = 5, 6
SIZES: dict[str, Any] = {"hidden_sizes": [6], "memory_size": 3}
MEMORIES = [("gru", 1), ("gru", 2), ("lstm", 1)]


def hasac(spec: TeamSpec, **memory: Any) -> JointQLoss:
    config = NetworkConfig(**SIZES, **memory)
    return HASACLoss(TeamPolicy(spec, config), JointQ(spec, config), gamma=0.9)


def mehaml(spec: TeamSpec, **memory: Any) -> JointQLoss:
    config = NetworkConfig(**SIZES, **memory)
    policy, critic = TeamPolicy(spec, config), JointQ(spec, config)
    return MEHAMLLoss(policy, critic, KLDrift(1.0), gamma=0.9)


def hatd3(spec: TeamSpec, **memory: Any) -> JointQLoss:
    config = DeterministicNetworkConfig(**SIZES, **memory)
    policy, critic = TeamPolicy(spec, config), JointQ(spec, config)
    return DeterministicLoss(policy, critic, gamma=0.9, policy_noise=0.2)


def had3qn(spec: TeamSpec, **memory: Any) -> JointQLoss:
    config = GreedyNetworkConfig(**SIZES, **memory)
    return HAD3QNLoss(TeamPolicy(spec, config), JointQ(spec, config, 1), gamma=0.9)


LOSSES: list[tuple[Callable[..., JointQLoss], TeamSpec]] = [
    (hasac, UNEQUAL),
    (hasac, MIXED),
    (mehaml, MIXED),
    (hatd3, UNEQUAL),
    (hatd3, MIXED),
    (had3qn, CHOOSERS),
]
every_loss = pytest.mark.parametrize(
    ("make", "spec"), LOSSES, ids=["hasac", "mixed", "mehaml", "hatd3", "hatd3-mixed", "had3qn"]
)


def start(make: Callable[..., JointQLoss], spec: TeamSpec, kind: str, layers: int) -> JointQLoss:
    """A loss whose slow copies differ from what they follow, as after some steps."""
    torch.manual_seed(0)
    loss = make(spec, memory=kind, memory_layers=layers).double()
    with torch.no_grad():
        for target, _ in loss.targets:
            for parameter in target.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return loss


def slices(loss: JointQLoss, steps: int = T) -> TensorDict:
    """``[B, steps]`` with episodes that begin, transitions of 1 to 3 steps, and an end of data."""
    data = batch(loss.spec, B * steps, deaths=True, masks=True, dtype=torch.float64)
    data = data.reshape(B, steps)
    data["is_init"] = torch.rand(B, steps, 1) < 0.3
    left = torch.arange(steps, 0, -1)[None, :, None]
    data["steps_to_next_obs"] = torch.minimum(torch.randint(1, 4, (B, steps, 1)), left)
    data["valid"] = torch.ones(B, steps, 1, dtype=torch.bool)
    data["valid"][1, 4:] = False
    for i, name in enumerate(loss.spec.names):
        size = loss.policy.actors[i].hidden_size
        data["hidden", name] = torch.randn(B, steps, size).double()
        data["next", "hidden", name] = torch.full((B, steps, size), torch.nan).double()
    return data


def unroll(loss: JointQLoss, actors: Any, data: TensorDict, agent: int, hidden: Tensor) -> Any:
    """The states before and after every step, ``[B, T, H]`` each, step by step."""
    observation, before, after = loss.spec.observation(data, agent), [], []
    for t in range(data.shape[1]):
        hidden = torch.where(data["is_init"][:, t], 0.0, hidden)
        before.append(hidden)
        never = torch.zeros(B, 1, dtype=torch.bool)
        _, hidden = actors[agent].output(observation[:, t], Memory(hidden, never))
        after.append(hidden)
    return torch.stack(before, 1), torch.stack(after, 1)


def flat(loss: JointQLoss, data: TensorDict) -> TensorDict:
    """The same as single steps ``[M]``, valid ones only, with the memories of ``unroll``."""
    steps = data.clone()
    where, acting_next = loss.acting_next
    last = torch.arange(data.shape[1])[None, :, None] + data["steps_to_next_obs"] - 1
    for i, name in enumerate(loss.spec.names):
        begin = data["hidden", name][:, 0]
        before, _ = unroll(loss, loss.policy.actors, data, i, begin)
        _, after = unroll(loss, acting_next, data, i, begin)
        steps["hidden", name] = before
        rows = torch.arange(B)[:, None], last.squeeze(-1)
        steps["next", where, name] = after[rows]
    steps["is_init"] = torch.zeros_like(steps["is_init"])  # done with in ``unroll``
    return steps[data["valid"].squeeze(-1)].exclude("valid")


def no_noise(like: Tensor) -> Tensor:
    return torch.zeros_like(like)


@every_loss
@pytest.mark.parametrize(("kind", "layers"), MEMORIES)
def test_losses_are_those_of_the_single_steps(
    make: Callable[..., JointQLoss],
    spec: TeamSpec,
    kind: str,
    layers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = start(make, spec, kind, layers)
    data = slices(loss)
    single = flat(loss, data)
    found, expected = [], []
    gradients = []
    for given, results in ((data, found), (single, expected)):
        if given is single:
            monkeypatch.setattr(type(loss), "following", lambda _, d: d["next"])
        value, mean = loss.qvalue(given, no_noise)
        results += [value, mean]
        samples = [loss.sample(given, i, no_noise) for i in range(spec.num_agents)]
        joint = [sample.action for sample in samples]
        total = value
        for i, sample in enumerate(samples):
            others = [action.detach() for action in joint]
            others[i] = sample.action
            total = total + loss.actor(given, i, others, sample.log_prob)
        if isinstance(loss, HASACLoss):
            total = total + loss.temperature(given, [s.log_prob for s in samples])
        results.append(total)
        parameters = [p for p in loss.parameters() if p.requires_grad]
        gradients.append(torch.autograd.grad(total, parameters, allow_unused=True))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    names = [name for name, p in loss.named_parameters() if p.requires_grad]
    moved = 0
    for name, a, b in zip(names, *gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
        moved += a is not None and bool(a.any())
    assert moved > len(names) / 2
    error = data["td_error"][data["valid"].squeeze(-1)]
    torch.testing.assert_close(error, single["td_error"])


@every_loss
@pytest.mark.parametrize(("kind", "layers"), MEMORIES)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_burn_in_brings_memories_up_to_date(
    make: Callable[..., JointQLoss], spec: TeamSpec, kind: str, layers: int, steps: int
) -> None:
    loss = start(make, spec, kind, layers)
    data = slices(loss)
    rest = loss.burn_in(data, steps)
    assert rest.shape == (B, T - steps)
    assert rest["state"].equal(data["state"][:, steps:])
    for where, actors in (("hidden", loss.policy.actors), loss.acting_next):
        for i, name in enumerate(spec.names):
            memory = rest[where, name][:, 0]
            assert not memory.requires_grad
            begin = data["hidden", name]
            if steps == 0:
                assert memory.equal(begin[:, 0])
                continue
            _, after = unroll(loss, actors, data[:, :steps], i, begin[:, 0])
            torch.testing.assert_close(memory, after[:, -1])
            assert not torch.allclose(memory, begin[:, steps])


def test_plain_actors_take_slices_too() -> None:
    """Without memories slices are their steps."""
    loss = start(hasac, MIXED, "none", 1)
    data = slices(loss).exclude("hidden", ("next", "hidden"))
    single = data[data["valid"].squeeze(-1)].exclude("valid")
    assert loss.policy.recurrent == []
    torch.testing.assert_close(loss.qvalue(data, no_noise), loss.qvalue(single, no_noise))
