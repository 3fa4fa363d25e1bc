"""The sequential off-policy update: who moves, whose actions are seen, and what it amounts to."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.nn import functional as F

from hetmarl.engines import GradientStep, OffPolicyEngine, UpdateRandomness, sequential_update
from hetmarl.networks import (
    DeterministicNetworkConfig,
    JointQ,
    NetworkConfig,
    Sample,
    TeamPolicy,
)
from hetmarl.objectives import DeterministicLoss, HASACLoss, JointQLoss
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError
from tests.teams import ALONE, UNEQUAL, agent, batch


def engine_of(loss: JointQLoss, lr: float, polyak: float) -> OffPolicyEngine:
    def step(parameters: Any) -> GradientStep:
        parameters = list(parameters)
        return GradientStep(parameters, torch.optim.Adam(parameters, lr=lr))

    temperatures = None
    if isinstance(loss, HASACLoss):
        temperatures = step([*loss.log_alpha, loss.log_alpha_joint])
    actors = [step(a.parameters()) for a in loss.policy.actors]
    return OffPolicyEngine(loss, step(loss.critic.parameters()), actors, temperatures, polyak)


def make(
    spec: TeamSpec = UNEQUAL, lr: float = 1e-2, polyak: float = 0.1, **settings: Any
) -> tuple[HASACLoss, OffPolicyEngine]:
    network = NetworkConfig([8], activation="tanh")
    loss = HASACLoss(TeamPolicy(spec, network), JointQ(spec, network), **settings).double()
    return loss, engine_of(loss, lr, polyak)


def make_deterministic(
    spec: TeamSpec = UNEQUAL, lr: float = 1e-2, polyak: float = 0.1
) -> tuple[DeterministicLoss, OffPolicyEngine]:
    network = DeterministicNetworkConfig([8], activation="tanh")
    policy, critic = TeamPolicy(spec, network), JointQ(spec, network)
    loss = DeterministicLoss(policy, critic, policy_noise=0.2).double()
    return loss, engine_of(loss, lr, polyak)


Make = Callable[..., tuple[Any, OffPolicyEngine]]
both = pytest.mark.parametrize("make", [make, make_deterministic], ids=["hasac", "hatd3"])
"""Kinds of policies that the engine updates, random and deterministic."""


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(map(torch.equal, a, b))


class Spy:
    """Notes what the engine asks a loss for, with the policies as they were then."""

    def __init__(self, loss: JointQLoss, engine: OffPolicyEngine) -> None:
        self.events: list[dict[str, Any]] = []
        self.loss = loss
        self._samples, self._actor = loss.samples, loss.actor
        loss.samples, loss.actor = self.samples, self.actor  # type: ignore[method-assign]
        for index, step in enumerate(engine.actor_steps):
            engine.actor_steps[index] = self.stepping(index, step)  # type: ignore[index]

    def samples(self, data: Any, agents: Sequence[int], noise: Any) -> list[Sample]:
        return [self.sample(data, i, noise) for i in agents]

    def sample(self, data: Any, i: int, noise: Any) -> Sample:
        drawn: list[Tensor] = []

        def kept(like: Tensor) -> Tensor:
            drawn.append(noise(like))
            return drawn[-1]

        (sample,) = self._samples(data, [i], kept)
        self.events.append(
            {
                "what": "sample",
                "agent": i,
                "action": sample.action.detach().clone(),
                "noise": drawn[0] if drawn else None,
                "weights": weights(self.loss.policy.actors[i]),
                "data": data,
            }
        )
        return sample

    def actor(self, data: Any, i: int, joint: Sequence[Tensor], log_prob: Tensor) -> Tensor:
        self.events.append(
            {
                "what": "loss",
                "agent": i,
                "joint": [a.detach().clone() for a in joint],
                "gradient": [a.requires_grad for a in joint],
                "data": data,
            }
        )
        return self._actor(data, i, joint, log_prob)

    def stepping(self, i: int, step: GradientStep) -> Any:
        def stepped(value: Tensor) -> Tensor:
            before = [weights(a) for a in self.loss.policy.actors]
            critic = weights(self.loss.critic)
            others = [m for pair in self.loss.targets for m in pair[:1]]
            others += [m for m in (getattr(self.loss, "log_alpha", None),) if m is not None]
            still = [weights(module) for module in others]
            norm = step(value)
            after = [weights(a) for a in self.loss.policy.actors]
            moved = [not same(a, b) for a, b in zip(before, after, strict=True)]
            assert same(critic, weights(self.loss.critic))
            assert all(same(a, weights(m)) for a, m in zip(still, others, strict=True))
            self.events.append({"what": "step", "agent": i, "moved": moved, "before": before[i]})
            return norm

        stepped.reduce = step.reduce  # type: ignore[attr-defined]
        return stepped


@both
def test_nobody_else_moves_by_one_bit(make: Make) -> None:
    """Also with Adam's momentum, that would move a parameter without a gradient."""
    loss, engine = make()
    spy = Spy(loss, engine)
    for i in range(6):
        engine.update(batch(UNEQUAL, dtype=torch.float64), UpdateRandomness(0, i))
    steps = [e for e in spy.events if e["what"] == "step"]
    assert len(steps) == 18
    for event in steps:
        assert event["moved"] == [i == event["agent"] for i in range(3)]


@both
def test_each_agent_sees_its_predecessors_new_policies(make: Make) -> None:
    """Predecessors' actions are drawn again, from the updated policy; successors' are current."""
    loss, engine = make()
    spy = Spy(loss, engine)
    for iteration in range(8):
        spy.events.clear()
        data = batch(UNEQUAL, dtype=torch.float64)
        engine.update(data, UpdateRandomness(1, iteration))
        events = [e for e in spy.events if e.get("data", data) is data]  # not the critic's target
        turns = [e for e in events if e["what"] == "loss"]
        order = [e["agent"] for e in turns]
        assert sorted(order) == [0, 1, 2]
        first = {e["agent"]: e for e in events[:3]}  # drawn before anyone is updated
        assert [e["what"] for e in events[:3]] == ["sample"] * 3
        for turn in turns:
            at = events.index(turn)
            assert turn["gradient"] == [i == turn["agent"] for i in range(3)]
            for i in range(3):
                if order.index(i) >= order.index(turn["agent"]):
                    source = first[i]
                else:
                    after = [
                        k for k, e in enumerate(events) if e["what"] == "step" and e["agent"] == i
                    ]
                    source = next(
                        e
                        for e in events[after[0] : at]
                        if e["what"] == "sample" and e["agent"] == i
                    )
                    assert same(source["weights"], weights(loss.policy.actors[i]))
                    assert not torch.equal(source["action"], first[i]["action"])
                assert torch.equal(turn["joint"][i], source["action"])
                # and that action is what that policy says to that noise
                actor = copy.deepcopy(loss.policy.actors[i])
                for parameter, value in zip(actor.parameters(), source["weights"], strict=True):
                    parameter.data.copy_(value)
                observation = UNEQUAL.observation(data, i)
                redone = actor.sample(observation, lambda _, s=source: s["noise"]).action
                assert torch.equal(redone, source["action"])


@both
def test_simultaneous_agents_see_what_the_others_did(make: Make) -> None:
    """Its own new action with gradient, everybody else's from the batch; one agent moves a step."""
    loss, engine = make()
    engine.sequential = False
    spy = Spy(loss, engine)
    data = batch(UNEQUAL, dtype=torch.float64)
    engine.update(data, UpdateRandomness(1, 0))
    events = [e for e in spy.events if e.get("data", data) is data]
    first = {e["agent"]: e for e in events[:3]}
    turns = [e for e in events if e["what"] == "loss"]
    assert [e["agent"] for e in turns] == [0, 1, 2]
    replayed = UNEQUAL.joint_action(data)
    for turn in turns:
        assert turn["gradient"] == [i == turn["agent"] for i in range(3)]
        for i in range(3):
            expected = first[i]["action"] if i == turn["agent"] else replayed[i]
            assert torch.equal(turn["joint"][i], expected)
    steps = [e for e in events if e["what"] == "step"]
    assert [e["moved"] for e in steps] == torch.eye(3, dtype=torch.bool).tolist()
    assert len([e for e in events if e["what"] == "sample"]) == 3  # nobody is drawn again


@both
def test_every_update_has_a_fresh_order(make: Make) -> None:
    loss, engine = make()
    spy = Spy(loss, engine)
    data, randomness = batch(UNEQUAL, dtype=torch.float64), UpdateRandomness(0, 0)
    for _ in range(60):
        engine.update(data, randomness)
    agents = [e["agent"] for e in spy.events if e["what"] == "loss"]
    orders = {tuple(agents[i : i + 3]) for i in range(0, 180, 3)}
    assert len(orders) == 6


def test_temperatures_use_the_samples_from_before() -> None:
    loss, engine = make()
    seen: list[Tensor] = []
    temperature = loss.temperature

    def spied(data: Any, log_probs: Sequence[Tensor]) -> Tensor:
        seen.extend(log_probs)
        return temperature(data, log_probs)

    loss.temperature = spied  # type: ignore[method-assign]
    data, before = batch(UNEQUAL, dtype=torch.float64), copy.deepcopy(loss.policy)
    spy = Spy(loss, engine)
    engine.update(data, UpdateRandomness(0, 0))
    drawn = [e for e in spy.events if e.get("data") is data][:3]
    for i, event in enumerate(drawn):
        observation = UNEQUAL.observation(data, i)
        redone = before.actors[i].sample(observation, lambda _, e=event: e["noise"])
        assert torch.equal(redone.log_prob, seen[i])


@both
@pytest.mark.parametrize("polyak", [0.005, 0.3, 1.0])
def test_targets_move_by_their_share(make: Make, polyak: float) -> None:
    loss, engine = make(polyak=polyak)
    before = [weights(target) for target, _ in loss.targets]
    engine.update(batch(UNEQUAL, dtype=torch.float64), UpdateRandomness(0, 0))
    for old, (target, followed) in zip(before, loss.targets, strict=True):
        pairs = zip(old, weights(followed), strict=True)
        torch.testing.assert_close(weights(target), [a.lerp(b, polyak) for a, b in pairs])
        assert not same(old, weights(target))


@both
def test_a_delayed_step_moves_the_critic_alone(make: Make) -> None:
    loss, engine = make()
    before, critic = weights(loss), weights(loss.critic)
    data = batch(UNEQUAL, dtype=torch.float64)
    metrics = engine.update(data, UpdateRandomness(0, 0), actors=False)
    assert set(metrics) == {"loss_qvalue", "q_mean", "grad_norm_qvalue"}
    assert not same(critic, weights(loss.critic))
    for p, value in zip(loss.critic.parameters(), critic, strict=True):
        p.data.copy_(value)
    assert same(before, weights(loss))


def test_deterministic_policies_have_no_entropy_to_report() -> None:
    _, engine = make_deterministic()
    metrics = engine.update(batch(UNEQUAL, dtype=torch.float64), UpdateRandomness(0, 0))
    names = {f"{q}/{n}" for q in ("loss_actor", "grad_norm") for n in UNEQUAL.names}
    assert set(metrics) == names | {"loss_qvalue", "q_mean", "grad_norm_qvalue"}


def test_metrics_name_agents_and_leave_out_the_dead() -> None:
    _, engine = make()
    data = batch(UNEQUAL, deaths=True, dtype=torch.float64)
    data["body", "alive"].zero_()
    metrics = engine.update(data, UpdateRandomness(0, 0))
    names = {f"{q}/{n}" for q in ("loss_actor", "grad_norm", "entropy") for n in UNEQUAL.names}
    assert set(metrics) == names | {"loss_qvalue", "q_mean", "grad_norm_qvalue"}
    assert not any(value.requires_grad for value in metrics.values())
    assert metrics["entropy/body"].item() == 0 and metrics["loss_actor/body"].item() == 0
    assert metrics["entropy/left"].item() != 0
    assert metrics["grad_norm/body"].item() == 0 and metrics["grad_norm/left"].item() > 0


def test_sequential_update_draws_nothing_for_the_last() -> None:
    samples = [Sample(torch.full((1, 1), float(i)), torch.zeros(1, 1)) for i in range(3)]
    seen, drawn = [], []

    def resample(unit: Sequence[int]) -> list[Tensor]:
        drawn.extend(unit)
        return [torch.full((1, 1), 10.0 + i) for i in unit]

    sequential_update(
        [[2], [0], [1]], samples, lambda u, a: seen.append((u, [x.item() for x in a])), resample
    )
    assert seen == [([2], [0.0, 1.0, 2.0]), ([0], [0.0, 1.0, 12.0]), ([1], [10.0, 1.0, 12.0])]
    assert drawn == [2, 0]


# ---------------------------------------------------------------------- units
PAIR = NetworkConfig([8], activation="tanh", sharing=[["left", "right"], ["body"]])


def sharing(**settings: Any) -> tuple[HASACLoss, OffPolicyEngine]:
    """Left and right share their parameters; one gradient step moves by exactly the gradient."""
    loss = HASACLoss(TeamPolicy(UNEQUAL, PAIR), JointQ(UNEQUAL, PAIR), **settings).double()

    def step(module: nn.Module, lr: float) -> GradientStep:
        parameters = list(module.parameters())
        return GradientStep(parameters, torch.optim.SGD(parameters, lr=lr))

    units = [nn.ModuleList(loss.policy.actors[i] for i in unit) for unit in loss.policy.units]
    steps = [step(unit, 1.0) for unit in units]
    return loss, OffPolicyEngine(loss, step(loss.critic, 0.0), steps)


@pytest.mark.parametrize("deaths", [False, True])
def test_a_unit_descends_the_loss_of_its_joint_policy(deaths: bool) -> None:
    """Σᵢ E[αⁱ·log πⁱ] − E[min Q(s, a)] with the gradient through all of its actions at once."""
    loss, engine = sharing(alpha=0.3)
    data = batch(UNEQUAL, deaths=deaths, dtype=torch.float64)
    before = copy.deepcopy(loss)
    asked = []
    for iteration in range(20):  # one in which the pair comes first
        if UpdateRandomness(0, iteration).order(2) == [0, 1]:
            break
    samples = loss.samples

    def kept(seen: Any, agents: Sequence[int], noise: Any) -> list[Sample]:
        drawn = samples(seen, agents, noise)
        asked.extend((seen, s) for s in drawn)
        return drawn

    loss.samples = kept  # type: ignore[method-assign]
    metrics = engine.update(data, UpdateRandomness(0, iteration))
    drawn = [s for seen, s in asked if seen is data]
    joint = [s.action.detach() for s in drawn[:3]]
    again = drawn[3:]
    assert len(again) == 2  # left and right, for the body, and nobody after it

    redone, costs = [], []
    for i in (0, 2):
        epsilon = _noise_of(before, data, i, joint[i])
        redone.append(before.sample(data, i, lambda _, e=epsilon: e))
    action = [redone[0].action, joint[1], redone[1].action]
    torch.testing.assert_close([a.detach() for a in action], joint)
    q = torch.minimum(*before.critic(before.state(data), action))
    weights_of = [UNEQUAL.alive(data, i) if deaths else None for i in (0, 2)]
    for sampled, i, alive in zip(redone, (0, 2), weights_of, strict=True):
        share = torch.full_like(q, 1 / len(q)) if alive is None else alive / alive.sum()
        own = [a if k == i else a.detach() for k, a in enumerate(action)]
        value = torch.minimum(*before.critic(before.state(data), own))
        costs.append((share * (0.3 * sampled.log_prob - value)).sum())
    if not deaths:  # and all of it in one
        entropy = sum((0.3 * s.log_prob).mean() for s in redone)
        costs = [entropy - q.mean()]
    parameters = list(before.policy.actors[0].parameters())
    gradient = torch.autograd.grad(sum(costs), parameters)
    after = list(loss.policy.actors[0].parameters())
    for old, new, g in zip(parameters, after, gradient, strict=True):
        torch.testing.assert_close(new, old - g)
    assert metrics["grad_norm/left"] == metrics["grad_norm/right"]
    assert metrics["loss_actor/left"] != metrics["loss_actor/right"]


def _noise_of(loss: HASACLoss, data: TensorDict, i: int, action: Tensor) -> Tensor:
    """The noise that an agent's action was drawn with."""
    actor: Any = loss.policy.actors[i]
    mean, log_std = actor(UNEQUAL.observation(data, i))
    u = ((action - actor.centre) / actor.half_width).atanh()
    return ((u - mean) / log_std.exp()).detach()


def test_as_many_steps_as_units() -> None:
    loss, engine = sharing()
    with pytest.raises(ConfigError, match="3 actor_steps for 2 units of agents"):
        OffPolicyEngine(loss, engine.critic_step, [*engine.actor_steps, engine.critic_step])


def test_a_unit_moves_alone_and_its_successors_see_all_of_it() -> None:
    loss, engine = sharing()
    turns: list[tuple[int, list[Tensor]]] = []
    actor = loss.actor

    def kept(data: Any, i: int, joint: Sequence[Tensor], log_prob: Any, **known: Any) -> Tensor:
        turns.append((i, [a.detach().clone() for a in joint]))
        return actor(data, i, joint, log_prob, **known)

    loss.actor = kept  # type: ignore[method-assign]
    orders = set()
    for iteration in range(12):
        turns.clear()
        body = weights(loss.policy.actors[1])
        engine.update(batch(UNEQUAL, dtype=torch.float64), UpdateRandomness(0, iteration))
        order = [i for i, _ in turns]
        orders.add(tuple(order))
        seen = dict(turns)
        moved = [not torch.equal(seen[0][k], seen[1][k]) for k in range(3)]
        # who came later saw the others' new actions
        assert moved == ([True, False, True] if order[0] == 0 else [False, True, False])
        assert all(torch.equal(seen[0][k], seen[2][k]) for k in range(3))
        assert not same(body, weights(loss.policy.actors[1]))
    assert orders == {(0, 2, 1), (1, 0, 2)}


# ---------------------------------------------------------------------- what it amounts to
def sac(loss: HASACLoss, batches: list[TensorDict], lr: float, polyak: float, gamma: float) -> list:
    """Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), written straight down."""
    loss = copy.deepcopy(loss)
    actor, (q1, q2) = loss.policy.actors[0], loss.critic.values
    t1, t2 = copy.deepcopy(q1), copy.deepcopy(q2)
    log_alpha, log_alpha_q = loss.log_alpha[0], loss.log_alpha_joint
    pi = torch.optim.Adam(actor.parameters(), lr)
    qs = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr)
    temperatures = torch.optim.Adam([log_alpha, log_alpha_q], lr)
    centre, half = torch.tensor([0.0, 2.5]).double(), torch.tensor([1.0, 2.5]).double()

    def policy(o: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = actor.net(o).chunk(2, -1)
        u = mean + log_std.exp() * noise
        a = torch.tanh(u)
        normal = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
        return centre + half * a, (normal - (half * (1 - a**2)).log()).sum(-1, keepdim=True)

    for i, data in enumerate(batches):
        randomness, following = UpdateRandomness(0, i), data["next"]
        like = data["agents", "action"][:, 0]
        o, o2 = data["agents", "observation"][:, 0], following["agents", "observation"][:, 0]
        s, s2, a = data["state"], following["state"], like
        with torch.no_grad():
            a2, log_prob = policy(o2, randomness.noise(like))
            x = torch.cat([s2, a2], -1)
            soft = torch.minimum(t1(x), t2(x)) - log_alpha_q.exp() * log_prob
            k = data["steps_to_next_obs"]
            y = following["reward"] + gamma**k * torch.where(following["terminated"], 0.0, soft)
        x = torch.cat([s, a], -1)
        qs.zero_grad()
        (F.mse_loss(q1(x), y) + F.mse_loss(q2(x), y)).backward()
        qs.step()
        new, log_prob = policy(o, randomness.noise(like))
        x = torch.cat([s, new], -1)
        pi.zero_grad()
        (log_alpha.exp().detach() * log_prob - torch.minimum(q1(x), q2(x))).mean().backward()
        pi.step()
        temperatures.zero_grad()
        gap = (log_prob.detach() - 2.0).mean()
        (-(log_alpha + log_alpha_q) * gap).backward()
        temperatures.step()
        for slow, fast in ((t1, q1), (t2, q2)):
            for p, q in zip(slow.parameters(), fast.parameters(), strict=True):
                p.data.mul_(1 - polyak).add_(polyak * q.data)
    parts = (actor, q1, q2, t1, t2)
    return [p.detach() for part in parts for p in part.parameters()] + [log_alpha, log_alpha_q]


def test_one_agent_is_soft_actor_critic() -> None:
    loss, engine = make(ALONE, lr=1e-2, polyak=0.1, gamma=0.9, alpha=0.3)
    batches = [batch(ALONE, 16, dtype=torch.float64) for _ in range(12)]
    expected = sac(loss, batches, lr=1e-2, polyak=0.1, gamma=0.9)
    start = weights(loss)
    for i, data in enumerate(batches):
        engine.update(data, UpdateRandomness(0, i))
    critic, target = loss.critic, loss.target_critic
    parts = (loss.policy.actors[0], *critic.values, *target.values)
    got = [p.detach() for part in parts for p in part.parameters()]
    got += [loss.log_alpha[0], loss.log_alpha_joint]
    assert not same(start, weights(loss))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


class Quadratic(nn.Module):
    """In place of the critic the true value of a game: −½ (a−m)ᵀK(a−m)."""

    def __init__(self, curvature: Tensor, best: Tensor) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))
        self.curvature, self.best = curvature, best

    def forward(self, state: Tensor, actions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        d = torch.cat(list(actions), -1) - self.best
        q = -0.5 * torch.einsum("bi,ij,bj->b", d, self.curvature, d)[:, None]
        return q, q


def solve(alpha: float, updates: int = 500) -> list[tuple[float, float]]:
    """Mean and log of the standard deviation of each agent's action, after learning."""
    spec = TeamSpec(tuple(agent(f"a{i}", "g", i, 1, [-5.0], [5.0]) for i in range(2)), 1)
    curvature, best = torch.tensor([[1.0, 0.5], [0.5, 4.0]]), torch.tensor([1.0, -1.0])
    policy = TeamPolicy(spec, NetworkConfig([4]))
    loss = HASACLoss(policy, Quadratic(curvature, best), alpha=alpha, auto_alpha=False)  # type: ignore[arg-type]
    steps = []
    for actor in policy.actors:
        optimizer = torch.optim.Adam(actor.parameters(), lr=0.03, fused=True)
        steps.append(GradientStep(list(actor.parameters()), optimizer))
    schedules = [torch.optim.lr_scheduler.LinearLR(s.optimizer, 1.0, 0.02, updates) for s in steps]
    idle = GradientStep([], torch.optim.SGD([{"params": []}]))
    idle.__class__ = type("Idle", (GradientStep,), {"__call__": lambda self, loss: loss.detach()})
    engine = OffPolicyEngine(loss, idle, steps)
    data, randomness = batch(spec, 200), UpdateRandomness(0, 0)
    data["g", "observation"].fill_(1.0)
    for _ in range(updates):
        engine.update(data, randomness)
        for schedule in schedules:
            schedule.step()
    with torch.no_grad():
        actions = [a.act(torch.ones(20_000, 1))[0] for a in policy.actors]
    return [(a.mean().item(), a.std().log().item()) for a in actions]


@pytest.mark.slow
def test_quantal_response_moves_with_the_temperature() -> None:
    """At a fixed α each agent's best reply is exp(E[Q]/α), here a Gaussian of variance α/Kᵢᵢ."""
    cold, warm = solve(0.05), solve(0.4)
    for results, alpha in ((cold, 0.05), (warm, 0.4)):
        for (mean, log_std), best, k in zip(results, (1.0, -1.0), (1.0, 4.0), strict=True):
            assert mean == pytest.approx(best, abs=0.1)
            assert log_std == pytest.approx(0.5 * math.log(alpha / k), abs=0.12)
