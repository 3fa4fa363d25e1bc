"""Agents around one network, off policy: asked at once, and by one pass of the critic."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hetmarl.engines import GradientStep, OffPolicyEngine, UpdateRandomness
from hetmarl.networks import DeterministicNetworkConfig, JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import DeterministicLoss, HASACLoss, JointQLoss
from hetmarl_envs.contract import TeamSpec
from tests.teams import MIXED, UNEQUAL, batch

LOSSES: list[Any] = [(HASACLoss, NetworkConfig), (DeterministicLoss, DeterministicNetworkConfig)]
of_both = pytest.mark.parametrize(("kind", "config"), LOSSES, ids=["random", "deterministic"])
in_both = pytest.mark.parametrize("spec", [UNEQUAL, MIXED], ids=["numbers", "choices"])
TWINS = {UNEQUAL: [0, 2], MIXED: [0, 3]}
"""Who is of one group."""


def loss_of(kind: Any, config: Any, spec: TeamSpec, **network: Any) -> JointQLoss:
    network = {"hidden_sizes": [8, 6], "activation": "tanh", "sharing": "full"} | network
    settings: dict[str, Any] = {"policy_noise": 0.3}
    if kind is HASACLoss:
        settings = {"exact_choices": False, "alpha": 0.3}
    net = config(**network)
    loss: JointQLoss = kind(TeamPolicy(spec, net), JointQ(spec, net), **settings)
    return loss.double()


def one_by_one(loss: JointQLoss) -> JointQLoss:
    """The same without any of what is tested here."""
    loss = copy.deepcopy(loss)
    loss._alike = lambda actors, agents: [[i] for i in agents]  # type: ignore[method-assign]
    together = loss.actors
    loss.actors = lambda *given, present: together(*given, present=False)  # type: ignore[method-assign]
    return loss


def drawn(loss: JointQLoss, data: Any, agents: Sequence[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    samples = loss.samples(
        data, agents, lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)
    )
    return [x for sample in samples for x in sample if x is not None]


@of_both
@in_both
@pytest.mark.parametrize("agent_id", [True, False])
def test_samples_are_those_of_each(kind: Any, config: Any, spec: TeamSpec, agent_id: bool) -> None:
    loss = loss_of(kind, config, spec, agent_id=agent_id)
    data = batch(spec, deaths=True, masks=True, dtype=torch.float64)
    twins = TWINS[spec]
    assert [m for m in loss._alike(loss.policy.actors, range(spec.num_agents)) if len(m) > 1] == [
        twins
    ]
    for agents in (twins, twins[::-1], [twins[1]]):
        got, expected = drawn(loss, data, agents), drawn(one_by_one(loss), data, agents)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)
    # the noise of the first is that of the first, whoever else is asked
    first = drawn(loss, data, twins)[0]
    torch.testing.assert_close(first, drawn(loss, data, twins[:1])[0])


@of_both
@in_both
def test_losses_and_gradients_of_one_pass_are_those_of_one_each(
    kind: Any, config: Any, spec: TeamSpec
) -> None:
    loss = loss_of(kind, config, spec)
    data = batch(spec, deaths=True, masks=True, dtype=torch.float64)
    team = range(spec.num_agents)
    samples = loss.samples(data, team)
    joint = [sample.action.detach() for sample in samples]
    parameters, found, passes = list(loss.policy.parameters()), [], []
    count = loss.critic.register_forward_hook(lambda *_: passes[-1].append(1))
    for present in (True, False):
        passes.append([])
        costs = loss.actors(data, team, joint, samples, present=present)
        gradient = torch.autograd.grad(sum(costs), parameters, retain_graph=True)
        found.append((torch.stack(costs), gradient))
    count.remove()
    assert [len(p) for p in passes] == [1, spec.num_agents]
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(found[0][0], found[1][0])
    assert any(g.abs().max() > 1e-6 for g in found[0][1])


@of_both
@in_both
@pytest.mark.parametrize("sequential", [True, False])
def test_an_update_is_the_one_of_agents_asked_one_by_one(
    kind: Any, config: Any, spec: TeamSpec, sequential: bool
) -> None:
    """Two sets, so that there are predecessors; their noise comes in the same order."""
    twins = TWINS[spec]
    names = [spec.names[i] for i in twins], [n for i, n in enumerate(spec.names) if i not in twins]
    loss = loss_of(kind, config, spec, sharing=[list(n) for n in names])
    outcomes = []
    for asked in (copy.deepcopy(loss), one_by_one(loss)):

        def step(modules: nn.Module, lr: float) -> GradientStep:
            parameters = list(modules.parameters())
            return GradientStep(parameters, torch.optim.SGD(parameters, lr))

        actors = asked.policy.actors
        units = [nn.ModuleList(actors[i] for i in unit) for unit in asked.policy.units]
        steps = [step(unit, 0.5) for unit in units]
        engine = OffPolicyEngine(asked, step(asked.critic, 0.1), steps, sequential=sequential)
        torch.manual_seed(1)
        for iteration in range(4):
            data = batch(spec, deaths=True, masks=True, dtype=torch.float64)
            engine.update(data, Numbered(iteration))
        outcomes.append([p.detach() for m in (asked.policy, asked.critic) for p in m.parameters()])
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b)
    start = list(loss.policy.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(outcomes[0], start, strict=False))


class Numbered(UpdateRandomness):
    """Noise that depends on nothing but the iteration and the shape of what it is for."""

    def __init__(self, iteration: int) -> None:
        super().__init__(0, iteration)
        self.iteration = iteration

    def noise(self, like: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.iteration)
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)
