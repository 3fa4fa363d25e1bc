"""The off-policy update with drift and neighbourhood: HASAC where they are trivial, a ball kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hetmarl.engines import (
    GradientStep,
    OffPolicyEngine,
    Projection,
    SoftMirrorEngine,
    UpdateRandomness,
)
from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import HASACLoss, KLBall, KLDrift, MEHAMLLoss
from tests.teams import UNEQUAL, batch
from tests.theory.drifts import Tsallis


def make(kind: type[HASACLoss], *parts: Any, sequential: bool = True, lr: float = 1e-2) -> Any:
    torch.manual_seed(0)
    network = NetworkConfig([8])
    loss = kind(TeamPolicy(UNEQUAL, network), JointQ(UNEQUAL, network), *parts)

    def step(parameters: Any) -> GradientStep:
        parameters = list(parameters)
        return GradientStep(parameters, torch.optim.Adam(parameters, lr=lr))

    engine = SoftMirrorEngine if kind is MEHAMLLoss else OffPolicyEngine
    return engine(
        loss,
        step(loss.critic.parameters()),
        [step(a.parameters()) for a in loss.policy.actors],
        step([*loss.log_alpha, loss.log_alpha_joint]),
        0.1,
        sequential,
    )


def train(engine: Any, updates: int = 5, interval: int = 2) -> list[dict[str, Tensor]]:
    torch.manual_seed(1)
    randomness, found = UpdateRandomness(0, 0), []
    for update in range(updates):
        if update % interval == 0 and isinstance(engine.loss, MEHAMLLoss):
            engine.loss.remember()
        found.append(engine.update(batch(UNEQUAL, 32, deaths=True), randomness))
    return found


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize(
    "parts",
    [(), (KLDrift(math.inf),), (Tsallis(2.0, 0.0),), (None, KLBall(math.inf))],
    ids=["neither", "weightless KL", "weightless Tsallis", "infinite ball"],
)
def test_the_trivial_instance_is_hasac_bit_for_bit(parts: Any, sequential: bool) -> None:
    """Also with a drift that draws actions: its noise is nobody else's."""
    plain, mirror = (
        make(HASACLoss, sequential=sequential),
        make(MEHAMLLoss, *parts, sequential=sequential),
    )
    expected, found = train(plain), train(mirror)
    for a, b in zip(expected, found, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    state = mirror.loss.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.loss.state_dict().items())


def kl_to_old(loss: MEHAMLLoss, data: Any, agent: int) -> float:
    """Mean KL(old ‖ new) over the living, without the code under test."""
    group, index = UNEQUAL.agents[agent].group, UNEQUAL.agents[agent].index
    seen = data[group, "observation"][:, index]
    with torch.no_grad():
        mean, log_std = loss.policy.actors[agent](seen)
        old_mean, old_log_std = loss.old_actors[agent](seen)
    variance = ((old_log_std - log_std) * 2).exp()
    kl = log_std - old_log_std + (variance + ((old_mean - mean) / log_std.exp()) ** 2 - 1) / 2
    return kl.sum(-1)[data[group, "alive"][:, index, 0]].mean().item()


@pytest.mark.parametrize("sequential", [True, False])
def test_the_ball_is_never_left_on_the_batch(sequential: bool) -> None:
    radius = 0.02
    held, free = (
        make(MEHAMLLoss, None, KLBall(r), sequential=sequential, lr=0.03) for r in (radius, 100.0)
    )
    randomness, reached = UpdateRandomness(0, 0), {id(held): [], id(free): []}
    for update in range(12):
        data = batch(UNEQUAL, 32, deaths=True)
        for engine in (held, free):
            if update % 4 == 0:
                engine.loss.remember()
            found = engine.update(data.clone(), randomness)
            for agent, name in enumerate(UNEQUAL.names):
                kl = kl_to_old(engine.loss, data, agent)
                assert found[f"distance/{name}"].item() == pytest.approx(kl, abs=1e-5)
                reached[id(engine)].append(kl)
    assert max(reached[id(held)]) <= radius * (1 + 1e-3)
    assert max(reached[id(held)]) > 0.5 * radius  # it moves, to near the edge
    assert max(reached[id(free)]) > 5 * radius  # what it would have done


def test_successors_see_the_projected_policy() -> None:
    """A ball so small that nothing is left of a step: agents re-sample what they had drawn from."""
    engine = make(MEHAMLLoss, None, KLBall(1e-12), lr=0.1)
    loss, resampled = engine.loss, []
    samples = loss.samples

    def noting(data: Any, agents: Any, noise: Any) -> Any:
        for agent in agents:
            mean = loss.policy.actors[agent](UNEQUAL.observation(data, agent))[0]
            resampled.append((agent, mean))
        return samples(data, agents, noise)

    loss.samples = noting
    data = batch(UNEQUAL, 16)
    found = engine.update(data, UpdateRandomness(0, 0))
    assert len(resampled) == 3 + 3 + 2  # of the target, of everybody, again of all but the last
    for agent, mean in resampled[6:]:
        first = next(m for a, m in resampled[3:6] if a == agent)
        torch.testing.assert_close(mean, first, atol=1e-5, rtol=0)
    assert all(found[f"step_fraction/{name}"] < 0.01 for name in UNEQUAL.names)


def test_a_drift_holds_agents_near_the_old_policies() -> None:
    def furthest(step_size: float) -> float:
        engine = make(MEHAMLLoss, KLDrift(step_size))
        train(engine, updates=10, interval=100)
        data = batch(UNEQUAL, 64, deaths=True)
        return max(kl_to_old(engine.loss, data, agent) for agent in range(3))

    assert furthest(1e-3) < 0.1 * furthest(math.inf)


def test_the_drift_is_in_the_loss_and_named_before_it() -> None:
    engine = make(MEHAMLLoss, KLDrift(0.1))
    found = train(engine, updates=3, interval=10)[-1]
    keys = list(found)
    for name in UNEQUAL.names:
        assert found[f"drift/{name}"] > 0
        assert keys.index(f"drift/{name}") < keys.index(f"loss_actor/{name}")
        assert f"distance/{name}" not in found


def test_side_noise_has_streams_of_its_own() -> None:
    like = torch.zeros(6, 2)
    a, b, one, other = (UpdateRandomness(0, 3, s) for s in ((0, 1), (0, 1), (0,), (1,)))
    a.side_noise(like)
    assert torch.equal(a.noise(like), b.noise(like))
    both = UpdateRandomness(0, 3, (0, 1)).side_noise(like)
    parts = [r.side_noise(torch.zeros(3, 2)) for r in (one, other)]
    assert torch.equal(both, torch.cat(parts))
    assert not torch.equal(both, b.noise(like))


# ---------------------------------------------------------------------- the projection itself
def projected(start: list[float], radius: float, **settings: Any) -> tuple[Tensor, dict[str, Any]]:
    """With old parameters 1, 1 and the squared length as the distance."""
    theta, old = nn.Parameter(torch.tensor(start)), nn.Parameter(torch.ones(2))
    project = Projection([theta], [old], radius, **settings)
    found = project(lambda: (theta - old).square().sum())
    return theta.detach() - 1, {k: v.item() for k, v in found.items()}


def test_a_quadratic_distance_takes_one_step_to_the_edge() -> None:
    moved, found = projected([4.0, 5.0], 1.0)
    assert moved.tolist() == pytest.approx([0.6, 0.8])
    assert found["distance"] <= 1.0 and found["distance"] == pytest.approx(1.0, abs=0.2)
    # at the edge or, where rounding left it over, a tenth within
    assert found["step_fraction"] in (pytest.approx(0.2), pytest.approx(0.18))


def test_what_is_within_stays_and_what_never_is_goes_back() -> None:
    moved, found = projected([1.5, 1.0], 1.0)
    assert moved.tolist() == [0.5, 0.0] and found == {"distance": 0.25, "step_fraction": 1.0}
    theta, old = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.ones(1))
    # a cliff: anything but the old policy is far away
    found_ = Projection([theta], [old], 0.5)(lambda: (theta != old).double().sum())
    assert theta.item() == 1.0 and found_["distance"] == 0 and found_["step_fraction"] == 0


def test_an_infinite_distance_goes_back_and_nan_stays_to_be_seen() -> None:
    theta, old = nn.Parameter(torch.tensor([1e30])), nn.Parameter(torch.ones(1))
    found = Projection([theta], [old], 0.5)(lambda: (theta - old).square().sum())
    assert theta.item() == 1.0 and found["distance"] == 0
    moved, values = projected([math.nan, 1.0], 1.0)
    assert math.isnan(values["distance"]) and moved.isnan().any()
