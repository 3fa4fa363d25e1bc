"""Members of MEHAML train: the trivial one is HASAC, old policies in time, settings, NaN named."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hetmarl.algorithms import (
    HASAC,
    HASACKL,
    MEHAML,
    HASACBall,
    HASACBallConfig,
    HASACKLConfig,
    MEHAMLConfig,
    get_algorithm,
)
from hetmarl.guards import NonFiniteError
from hetmarl.networks import NetworkConfig
from hetmarl.objectives import KLBall, KLDrift, PolicyChange
from hetmarl_envs.errors import ConfigError
from tests.algorithms.fitting import fit
from tests.teams import UNEQUAL, CountingEnv, HybridEnv


@pytest.mark.slow
@pytest.mark.parametrize(
    ("member", "config"),
    [(MEHAML, {}), (HASACKL, {"step_size": math.inf}), (HASACBall, {"radius": math.inf})],
)
def test_the_trivial_member_is_hasac_bit_for_bit(member: Any, config: dict[str, Any]) -> None:
    hasac, found = fit(CountingEnv), fit(CountingEnv, module=member, config=config)
    state = found.state_dict()
    assert int(state["updates"]) > 0
    for name, value in hasac.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("member", "config"), [(HASACKL, {"step_size": 0.1}), (HASACBall, {"radius": 1e-5})]
)
def test_members_train_every_kind_of_agent_and_differ_from_hasac(
    member: Any, config: dict[str, Any]
) -> None:
    """Numbers, choices, masks, deaths."""
    logged: dict[str, Tensor] = {}

    class Noting(member):  # type: ignore[misc]
        def learn(self, batch: Any, randomness: Any) -> dict[str, Tensor]:
            found = super().learn(batch, randomness)
            logged.update(found)
            return found

    settings = {"updates_per_step": 2.0, "old_interval": 4}
    plain = fit(HybridEnv, config={"updates_per_step": 2.0})
    module = fit(HybridEnv, module=Noting, config=settings | config)
    assert module.hparams["algorithm"] == member.name
    assert set(logged) == set(module.metric_names)
    names = {k.partition("/")[0] for k in logged}
    expected = {"drift"} if member is HASACKL else {"distance", "step_fraction"}
    assert expected <= names
    if member is HASACBall:
        assert all(logged[f"distance/{n}"] <= 1.001e-5 for n in module.spec.names)
        assert min(logged[f"step_fraction/{n}"] for n in module.spec.names) < 1
    state, other = module.loss.state_dict(), plain.loss.state_dict()
    assert not all(torch.equal(value, state[name]) for name, value in other.items())


def test_old_policies_are_taken_every_interval_of_gradient_steps() -> None:
    """12 steps in iterations of 3, an interval of 5: at steps 1, 6 and 11."""
    ages: list[int] = []

    class Noting(MEHAML):
        def begin_update(self, update: int) -> None:
            before = [p.clone() for p in self.loss.old_actors.parameters()]
            super().begin_update(update)
            after, now = self.loss.old_actors.parameters(), self.policy.actors.parameters()
            if all(map(torch.equal, after, now)):
                ages.append(update)
            else:
                assert all(map(torch.equal, before, self.loss.old_actors.parameters()))

    fit(CountingEnv, module=Noting, config={"old_interval": 5})
    assert ages == [1, 6, 11]


def test_a_member_is_a_method() -> None:
    class Squared:
        """(r − 1)² of old actions: the χ² divergence."""

        def __call__(self, change: PolicyChange) -> Tensor:
            return (change.ratio - 1).square()

    class Mine(MEHAML):
        name = "mine"

        def drift(self) -> Squared:
            return Squared()

        def neighbourhood(self) -> KLBall:
            return KLBall(0.01)

    module = fit(CountingEnv, module=Mine)
    metrics = {name.partition("/")[0] for name in module.metric_names}
    assert {"drift", "distance", "step_fraction"} <= metrics


def test_settings_reach_the_slots() -> None:
    network = NetworkConfig([8])
    kl = HASACKL(UNEQUAL, HASACKLConfig(step_size=3.0, kl_direction="old_new"), network)
    assert kl.loss.drift == KLDrift(3.0, "old_new") and kl.loss.neighbourhood is None
    ball = HASACBall(UNEQUAL, HASACBallConfig(radius=0.3, alpha=0.7), network)
    assert ball.loss.neighbourhood == KLBall(0.3)
    assert ball.loss.log_alpha_joint.exp().item() == pytest.approx(0.7)
    for name, member in (("hasac_kl", HASACKL), ("hasac_ball", HASACBall)):
        assert get_algorithm(name).load("module") is member
        assert get_algorithm(name).load("config") is member.config_type


@pytest.mark.parametrize(
    ("config", "given"),
    [
        (MEHAMLConfig, {"old_interval": 0}),
        (HASACKLConfig, {"step_size": 0.0}),
        (HASACBallConfig, {"radius": -1.0}),
        (HASACBallConfig, {"radius": math.nan}),
    ],
)
def test_ranges(config: Any, given: dict[str, float]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(ConfigError, match=f"{name}={value}: expected"):
        config(**given)


class NaNDrift(HASACKL):
    """From the fifth iteration on agent 'narrow' has a drift that is NaN."""

    def learn(self, batch: Any, randomness: Any) -> dict[str, Tensor]:
        cost = self.loss.drift_cost
        if self.iteration == 4:
            self.loss.drift_cost = lambda d, i, o: cost(d, i, o) * (math.nan if i else 1)  # type: ignore[method-assign]
        return super().learn(batch, randomness)


class NaNDistance(HASACBall):
    """The same of the distance."""

    def learn(self, batch: Any, randomness: Any) -> dict[str, Tensor]:
        distance = self.loss.distance
        if self.iteration == 4:
            self.loss.distance = lambda d, i, o: distance(d, i, o) * (math.nan if i else 1)  # type: ignore[method-assign]
        return super().learn(batch, randomness)


@pytest.mark.parametrize(("member", "what"), [(NaNDrift, "drift"), (NaNDistance, "distance")])
def test_what_is_not_finite_is_named(member: type[HASAC], what: str) -> None:
    with pytest.raises(NonFiniteError, match=f"NaN in {what} of agent 'narrow' at frame 40"):
        fit(CountingEnv, module=member)
