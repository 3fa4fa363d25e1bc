"""HADDPG, HATD3, MADDPG, MATD3 against TorchRL's DDPG and TD3, and against plain loops.

Whole modules learn, so that the schedule of actors and targets is compared too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.objectives import DDPGLoss, SoftUpdate, TD3Loss

from hetmarl.algorithms import HADDPG, HATD3, MADDPG, MATD3
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import DeterministicNetworkConfig
from hetmarl_envs.contract import TeamSpec
from tests.teams import UNEQUAL, agent, batch

GAMMA, POLYAK, LR = 0.9, 0.1, 1e-2
NOISE, CLIP, DELAY = 0.4, 0.5, 3
# equal half-widths: TorchRL has one noise for all dimensions
LOW, HIGH = [-2.0, 0.0], [2.0, 4.0]
SOLO = TeamSpec((agent("solo", "agents", 0, 3, LOW, HIGH),))


def make(algorithm: type[HADDPG], spec: TeamSpec) -> Any:
    """A module in double whose targets are others than what they follow."""
    config: dict[str, Any] = {"gamma": GAMMA, "polyak": POLYAK, "actor_lr": LR, "critic_lr": LR}
    if issubclass(algorithm, HATD3):
        config |= {"policy_noise": NOISE, "noise_clip": CLIP, "policy_delay": DELAY}
    torch.manual_seed(1)
    module = algorithm(spec, config, DeterministicNetworkConfig([8], activation="tanh")).double()
    with torch.no_grad():
        for parameter in (p for target, _ in module.loss.targets for p in target.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    module.optimizers_of_team()
    return module


def learn(module: Any, batches: list[TensorDict]) -> None:
    """Two gradient steps per iteration, so that delays run across iterations."""
    rows: Iterator[TensorDict] = iter(batches)
    given = SimpleNamespace(
        learning_steps=2, update_priority=None, sample=lambda *_, **__: next(rows).clone()
    )
    for iteration in range(len(batches) // 2):
        module.learn(given, UpdateRandomness(0, iteration))
    assert next(rows, None) is None


def noises(count: int) -> Iterator[UpdateRandomness]:
    """What the module draws from at each of ``count`` gradient steps."""
    for iteration in range(count // 2):
        randomness = UpdateRandomness(0, iteration)
        yield randomness
        yield randomness


def numbers(*modules: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])


# ---------------------------------------------------------------------- one agent
class Value(nn.Module):
    """A value of the observation, which is all there is to see, and the action."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = nn.Sequential(*copy.deepcopy(net))  # a plain one, that has a vmap

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([observation, action], -1))


def theirs(module: Any) -> tuple[Any, SoftUpdate]:
    """TorchRL's loss with the module's weights, those of its targets too, and what moves them."""
    loss = module.loss
    solo = TensorDictModule(copy.deepcopy(loss.policy.actors[0]), ["observation"], ["action"])
    values = [
        TensorDictModule(Value(net), ["observation", "action"], ["state_action_value"])
        for net in loss.critic.values
    ]
    if isinstance(module, HATD3):
        bounds = (torch.tensor(LOW).double(), torch.tensor(HIGH).double())
        half = 2.0
        reference: Any = TD3Loss(
            solo,
            values,
            bounds=bounds,
            policy_noise=half * NOISE,
            noise_clip=half * CLIP,
            loss_function="l2",
        )
        parameters = reference.target_qvalue_network_params
    else:
        reference = DDPGLoss(
            solo, values[0], loss_function="l2", delay_actor=True, delay_value=True
        )
        parameters = reference.target_value_network_params
    reference.make_value_estimator(gamma=GAMMA)
    updater = SoftUpdate(reference, tau=POLYAK)  # begins with equal ones
    targets = [TensorDict.from_module(Value(net)) for net in loss.target_critic.values]
    stacked = torch.stack(targets) if isinstance(module, HATD3) else targets[0]
    parameters.data.update_(TensorDict({"module": stacked}, parameters.batch_size).data)
    actor = TensorDict.from_module(loss.target_actors[0])
    reference.target_actor_network_params.data.update_(TensorDict({"module": actor}, []).data)
    return reference, updater


def as_theirs(data: TensorDict) -> TensorDict:
    """The batch of the team of one as TorchRL's losses read it."""
    following = data["next"]
    return TensorDict(
        {
            "observation": data["agents", "observation"][:, 0],
            "action": data["agents", "action"][:, 0],
            "steps_to_next_obs": data["steps_to_next_obs"],
            "next": {
                "observation": following["agents", "observation"][:, 0],
                "terminated": following["terminated"],
                "done": following["terminated"],
                "reward": following["reward"],
            },
        },
        data.batch_size,
    )


@pytest.mark.parametrize("algorithm", [HADDPG, HATD3, MADDPG, MATD3])
def test_one_agent_has_torchrls_losses_and_gradients(algorithm: type[HADDPG]) -> None:
    """Alone there is nobody to follow: sequential and simultaneous are the same."""
    module, data = make(algorithm, SOLO), batch(SOLO, 16, dtype=torch.float64)
    (reference, _), loss = theirs(module), module.loss
    noise = torch.randn(16, 2, dtype=torch.float64)
    with mock.patch("torch.randn_like", return_value=noise):
        out = reference(as_theirs(data))
    twin = isinstance(module, HATD3)
    critic_loss, _ = loss.qvalue(data, lambda _: noise)
    torch.testing.assert_close(critic_loss, out["loss_qvalue" if twin else "loss_value"])
    sample = loss.sample(data, 0)
    actor_loss = loss.actor(data, 0, [sample.action])
    torch.testing.assert_close(actor_loss, out["loss_actor"])
    mine = torch.autograd.grad(actor_loss, list(loss.policy.actors[0].parameters()))
    params = reference.actor_network_params.flatten_keys(".")
    wanted = torch.autograd.grad(
        out["loss_actor"],
        [params[f"module.{n}"] for n, _ in loss.policy.actors[0].named_parameters()],
    )
    for a, b in zip(mine, wanted, strict=True):
        torch.testing.assert_close(a, b)
    mine = torch.autograd.grad(critic_loss, list(loss.critic.parameters()))
    name = "qvalue_network_params" if twin else "value_network_params"
    params = [v for _, v in sorted(getattr(reference, name).items(True, True))]
    total = sum(g.square().sum() for g in mine)
    grads = torch.autograd.grad(out["loss_qvalue" if twin else "loss_value"], params)
    torch.testing.assert_close(total, sum(g.square().sum() for g in grads))


@pytest.mark.parametrize("algorithm", [HADDPG, HATD3, MADDPG, MATD3])
def test_one_agent_learns_as_torchrls_does(algorithm: type[HADDPG]) -> None:
    """Twelve gradient steps: Adam, the delay of actors and targets, the targets' share."""
    module = make(algorithm, SOLO)
    batches = [batch(SOLO, 16, dtype=torch.float64) for _ in range(12)]
    (reference, updater), start = theirs(module), numbers(module)
    twin = isinstance(module, HATD3)
    name = "qvalue" if twin else "value"
    values = [p for n, p in reference.named_parameters() if n.startswith(f"{name}_network")]
    actors = [p for n, p in reference.named_parameters() if n.startswith("actor_network")]
    critic_adam, actor_adam = (torch.optim.Adam(p, LR) for p in (values, actors))
    for number, (data, randomness) in enumerate(zip(batches, noises(12), strict=True), start=1):
        td = as_theirs(data)
        with mock.patch("torch.randn_like", lambda like, r=randomness, **_: r.noise(like)):
            loss = reference(td)[f"loss_{name}"] if twin else reference.loss_value(td)[0]
        critic_adam.zero_grad()
        loss.backward()
        critic_adam.step()
        if number % (DELAY if twin else 1) == 0:
            loss = (reference.actor_loss if twin else reference.loss_actor)(td)[0]
            actor_adam.zero_grad()
            loss.backward()
            actor_adam.step()
            updater.step()
    learn(module, batches)
    assert not torch.equal(start, numbers(module))
    mine = module.loss
    for theirs_, ours in (
        (reference.actor_network_params, mine.policy.actors[0]),
        (reference.target_actor_network_params, mine.target_actors[0]),
    ):
        flat = theirs_.flatten_keys(".")
        for key, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.data, flat[f"module.{key}"].data)
    for prefix, nets in (("", mine.critic.values), ("target_", mine.target_critic.values)):
        flat = getattr(reference, f"{prefix}{name}_network_params").flatten_keys(".")
        for i, net in enumerate(nets):
            for key, parameter in net.named_parameters():
                value = flat[f"module.net.{key}"].data
                torch.testing.assert_close(parameter.data, value[i] if twin else value)


# ---------------------------------------------------------------------- a team
def plainly(module: Any, batches: list[TensorDict]) -> Tensor:
    """The four algorithms for the team ``UNEQUAL``, written straight down per agent."""
    twin, sequential = isinstance(module, HATD3), module.sequential
    delay, noise_scale = (DELAY, NOISE) if twin else (1, 0.0)
    loss = copy.deepcopy(module.loss)
    nets = [actor.net for actor in loss.policy.actors]
    slow_nets = [actor.net for actor in loss.target_actors]
    qs, slow_qs = list(loss.critic.values), list(loss.target_critic.values)
    places = [("legs", 0), ("body", 0), ("legs", 1)]
    leg = (torch.tensor([0.0, 2.5]).double(), torch.tensor([1.0, 2.5]).double())
    boxes = [leg, (torch.tensor([0.0]).double(), torch.tensor([0.4]).double()), leg]
    adams = [torch.optim.Adam(net.parameters(), LR) for net in nets]
    critic_adam = torch.optim.Adam([p for q in qs for p in q.parameters()], LR)

    def pi(net: Any, i: int, part: Any) -> Tensor:
        group, index = places[i]
        centre, half = boxes[i]
        return centre + half * torch.tanh(net(part[group, "observation"][:, index]))

    for number, (data, randomness) in enumerate(
        zip(batches, noises(len(batches)), strict=True), start=1
    ):
        following = data["next"]
        with torch.no_grad():
            actions = []
            for i, net in enumerate(slow_nets):
                centre, half = boxes[i]
                action = pi(net, i, following)
                if noise_scale:
                    smooth = (noise_scale * randomness.noise(action)).clamp(-CLIP, CLIP) * half
                    action = torch.max(torch.min(action + smooth, centre + half), centre - half)
                actions.append(action)
            x = torch.cat([following["state"], *actions], -1)
            value = torch.stack([q(x) for q in slow_qs]).amin(0)
            value = torch.where(following["terminated"], 0.0, value)
            y = following["reward"] + GAMMA ** data["steps_to_next_obs"] * value
        replayed = [data[group, "action"][:, index] for group, index in places]
        x = torch.cat([data["state"], *replayed], -1)
        critic_adam.zero_grad()
        sum(((q(x) - y) ** 2).mean() for q in qs).backward()
        critic_adam.step()
        if number % delay:
            continue
        with torch.no_grad():
            seen = [pi(net, i, data) for i, net in enumerate(nets)] if sequential else replayed
        order = randomness.order(3) if sequential else [0, 1, 2]
        for i in order:
            joint = list(seen)
            joint[i] = pi(nets[i], i, data)
            adams[i].zero_grad()
            (-qs[0](torch.cat([data["state"], *joint], -1)).mean()).backward()
            adams[i].step()
            if sequential:
                with torch.no_grad():
                    seen[i] = pi(nets[i], i, data)
        for slow, fast in zip([*slow_nets, *slow_qs], [*nets, *qs], strict=True):
            for p, q in zip(slow.parameters(), fast.parameters(), strict=True):
                p.data.mul_(1 - POLYAK).add_(POLYAK * q.data)
    return numbers(*nets, *slow_nets, *qs, *slow_qs)


@pytest.mark.parametrize("algorithm", [HADDPG, HATD3, MADDPG, MATD3])
def test_a_team_learns_as_it_does_written_plainly(algorithm: type[HADDPG]) -> None:
    module = make(algorithm, UNEQUAL)
    batches = [batch(UNEQUAL, 16, dtype=torch.float64) for _ in range(8)]
    expected, start = plainly(module, batches), numbers(module.loss.policy)
    learn(module, batches)
    loss = module.loss
    parts = (loss.policy, loss.target_actors, loss.critic, loss.target_critic)
    torch.testing.assert_close(numbers(*parts), expected, rtol=1e-6, atol=1e-7)
    assert (numbers(loss.policy) - start).abs().min() > 1e-4


def test_the_four_are_four() -> None:
    """The reference would not tell them apart if they were one."""
    batches = [batch(UNEQUAL, 16, dtype=torch.float64) for _ in range(6)]
    results = []
    for algorithm in (HADDPG, HATD3, MADDPG, MATD3):
        module = make(algorithm, UNEQUAL)
        learn(module, batches)
        results.append(numbers(module.loss.policy))
    gaps = [(a - b).abs().max() for k, a in enumerate(results) for b in results[:k]]
    assert min(gaps) > 1e-4
