"""Exact updates with a valid drift, or in a ball: the return never falls, the limit is a Nash
equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from hetmarl.engines import (
    EnumeratedTeam,
    Maximise,
    TableActor,
    TrustRegionConfig,
    TrustRegionStep,
    TrustRegionUpdate,
)
from hetmarl.objectives import ClipDrift, Drift, KLBall, KLDrift, check_drift
from hetmarl_envs.games import payoffs
from hetmarl_envs.games.garnet import random_game
from hetmarl_envs.games.tabular import TabularGame
from tests.theory.drifts import TotalVariation, Tsallis, negative

DRIFTS: dict[str, Drift] = {
    "clip": ClipDrift(0.2),
    "kl": KLDrift(20.0),
    "kl_old_new": KLDrift(20.0, "old_new"),
    "tsallis_half": Tsallis(0.5, 0.2),
    "tsallis_2": Tsallis(2.0, 0.05),
    "squared_tv": TotalVariation(2, 0.5),
}
GAMES = [random_game(3, (2, 3), density=1.0, termination=0.0, seed=seed) for seed in (1, 3)]


def learn(
    game: TabularGame,
    drift: Drift | None,
    iterations: int,
    *,
    note: Callable[[dict[str, torch.Tensor]], None] = lambda metrics: None,
    **settings: object,
) -> EnumeratedTeam:
    """From uniform policies; asserts that no iteration lowers the return. ``note`` gets metrics."""
    actors = [TableActor(policy) for policy in game.uniform_policies()]
    team = EnumeratedTeam(game, drift, actors=actors, **settings)  # type: ignore[arg-type]
    returns = [team.expected_return]
    for _ in range(iterations):
        note(team.step())
        returns.append(team.expected_return)
    falls = min(after - before for before, after in pairwise(returns))
    assert falls >= -1e-9
    return team


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS.keys())
def test_returns_rise_to_a_nash_equilibrium(drift: Drift) -> None:
    check_drift(drift, kinds=["choices"], trials=3)
    game = GAMES[1]
    team = learn(game, drift, 15)
    assert team.nash_gap < 0.01 * game.nash_gap(game.uniform_policies(), 0.9)


@pytest.mark.parametrize("drift", [None, KLDrift(20.0)], ids=["ball", "ball_and_drift"])
@pytest.mark.parametrize("game", GAMES, ids=["1", "3"])
def test_returns_rise_within_a_neighbourhood(game: TabularGame, drift: Drift | None) -> None:
    """HATRPO's step, also on what a drift leaves of the surrogate; nobody ever leaves its ball."""
    ball, search = KLBall(0.01), TrustRegionConfig(damping=1e-6)
    distances: list[float] = []

    def update(parameters: list[nn.Parameter]) -> TrustRegionUpdate:
        return TrustRegionUpdate(TrustRegionStep(parameters, ball.radius, search), ball)

    def note(metrics: dict[str, torch.Tensor]) -> None:
        distances.extend(v.item() for k, v in metrics.items() if k.startswith("kl/"))

    team = learn(game, drift, 60, update=update, note=note)
    assert team.nash_gap < 1e-3 * game.nash_gap(game.uniform_policies(), 0.9)
    assert 0.005 < max(distances) < ball.radius


def test_every_turn_of_an_agent_improves() -> None:
    """Not only whole iterations: the engine's factor is right in between, too."""
    game = random_game(3, (2, 3, 2), density=1.0, termination=0.0, seed=5)
    returns: list[float] = []

    class Noting(TableUpdate):
        def __call__(self, *arguments: object) -> dict[str, torch.Tensor]:
            returns.append(team.expected_return)
            return super().__call__(*arguments)

    team = EnumeratedTeam(game, KLDrift(2.0), update=Noting, seed=2)
    for _ in range(20):
        team.step()
    assert len(returns) == 60
    assert min(after - before for before, after in pairwise(returns)) > 0


class TableUpdate:
    """The argmax of E[r·M] − KL(new ‖ old)/t in closed form: π ∝ π_old·exp(t·E[M | s, a])."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.logits = parameters[0]

    def __call__(self, *arguments: object) -> dict[str, torch.Tensor]:
        loss, (batch,) = arguments[0], arguments[1]  # type: ignore[misc]
        mean = conditional_mean(loss, batch)
        with torch.no_grad():
            self.logits += loss.drift.step_size * mean
        return {}


def conditional_mean(loss: object, batch: object) -> torch.Tensor:
    """E[M | s, a] of an agent's samples, ``[S, K]``; 0 where a is too improbable for float64."""
    weights, states = loss.weights, batch.observation  # type: ignore[attr-defined]
    choices = nn.functional.one_hot(batch.action[:, 0]).double()  # type: ignore[attr-defined]
    both = states.T @ (weights * choices)
    sums = states.T @ (weights * batch.advantage * choices)  # type: ignore[attr-defined]
    return torch.where(both > 0, sums / both, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_three_agents_find_equilibria_from_anywhere(seed: int) -> None:
    game = random_game(3, (2, 3, 2), density=1.0, termination=0.0, seed=seed)
    team = EnumeratedTeam(game, KLDrift(5.0), update=TableUpdate, seed=seed)
    start = team.nash_gap
    returns = [team.expected_return]
    for _ in range(200):
        team.step()
        returns.append(team.expected_return)
    assert min(after - before for before, after in pairwise(returns)) >= -1e-9
    assert team.nash_gap < 1e-3 * start


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS.keys())
def test_the_same_drift_without_the_order_lowers_the_return(drift: Drift) -> None:
    """From .7 in the trap of heterogeneity: each one's way up is the team's way down."""
    game = TabularGame.from_matrix(payoffs.trap())

    def least_change(sequential: bool) -> float:
        start = torch.tensor([[0.7, 0.3]], dtype=torch.float64)
        actors = [TableActor(start) for _ in range(2)]
        team = EnumeratedTeam(game, drift, actors=actors, sequential=sequential)
        returns = [team.expected_return]
        for _ in range(3):
            team.step()
            returns.append(team.expected_return)
        return min(after - before for before, after in pairwise(returns))

    assert least_change(sequential=True) >= -1e-9
    assert least_change(sequential=False) < -1e-3


def test_a_fixed_order_is_another_run() -> None:
    """An ablation: it improves as well, the theorem's limit is for random orders."""
    game = GAMES[0]
    fixed = learn(game, KLDrift(2.0), 5, fixed_order=True, seed=1)
    drawn = learn(game, KLDrift(2.0), 5, fixed_order=False, seed=1)
    assert fixed.expected_return != drawn.expected_return


def test_a_kink_keeps_a_team_where_it_is() -> None:
    """Plain total variation, steeper than any advantage: no equilibrium, and no move."""
    game = GAMES[0]
    start = EnumeratedTeam(game, actors=[TableActor(p) for p in game.uniform_policies()])
    stuck = learn(game, TotalVariation(1, 5.0), 5)
    free = learn(game, TotalVariation(2, 5.0), 5)
    assert stuck.expected_return == pytest.approx(start.expected_return, abs=1e-6)
    assert stuck.nash_gap > 0.1
    assert free.expected_return > start.expected_return + 0.1


def test_a_negative_drift_lowers_returns() -> None:
    """Its argmax is far away: the action that is rarest, not the one that is best."""

    def change(drift: Drift) -> float:
        team = EnumeratedTeam(
            GAMES[0], drift, update=lambda p: Maximise(p, everywhere=True), seed=0
        )
        before = team.expected_return
        team.step()
        return team.expected_return - before

    assert change(KLDrift(10.0)) > 0.1
    assert change(lambda c: 10 * negative(c)) < -0.1
