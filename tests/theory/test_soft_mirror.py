"""Soft mirror learning of a finite game, exactly: the soft return never falls, the limit is a QRE.

Every iteration takes the soft Q-values of the joint policy π_k; then, in a random order, each agent
takes the argmax over its policies of E[Q] + α·H(π) − E_{π_k}[D(π | π_k)], with its predecessors'
new policies in the expectation (Liu et al. 2024, arXiv 2306.10715).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from hetmarl.networks.distributions import Choices
from hetmarl.objectives import Drift, KLBall, KLDrift, PolicyChange, check_drift
from hetmarl_envs.games import payoffs
from hetmarl_envs.games.garnet import random_game
from hetmarl_envs.games.tabular import TabularGame
from tests.theory.drifts import TotalVariation, Tsallis

GAMMA, ALPHA = 0.9, 0.3
GAME = random_game(3, (2, 3), density=1.0, termination=0.0, seed=3)
Update = Callable[[Tensor, Tensor, int], Tensor]
"""From an agent's E[Q | s, a] ``[S, K]``, its policy ``[S, K]`` and the iteration to a new one."""


def drift_of(drift: Drift, logits: Tensor, old: Tensor) -> Tensor:
    """E of a drift over the old policy's actions, ``[S]``: what the sampled one estimates."""
    rows, count = old.shape
    actions = torch.arange(count).repeat(rows, 1).reshape(-1, 1)
    new, before = (Choices(x.repeat_interleave(count, 0), [count]) for x in (logits, old.log()))
    log_ratio = new.log_prob(actions) - before.log_prob(actions)
    cost = drift(PolicyChange(new, before, log_ratio, torch.zeros_like(log_ratio)))
    return (old * cost.reshape(rows, count)).sum(-1)


def argmax(drift: Drift) -> Update:
    """By L-BFGS from the old policy, with the drift of training."""

    def update(q: Tensor, old: Tensor, iteration: int) -> Tensor:
        logits = old.log().clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [logits],
            max_iter=100,
            tolerance_grad=1e-12,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            policy = logits.softmax(-1)
            soft = (policy * q).sum(-1) + ALPHA * torch.special.entr(policy).sum(-1)
            value = -(soft - drift_of(drift, logits, old)).sum()
            value.backward()
            return value

        optimizer.step(loss)  # type: ignore[arg-type]
        return logits.detach().softmax(-1)

    return update


def closed_form(step_size: Callable[[int], float]) -> Update:
    """Of KL(π ‖ π_old)/t_k: π ∝ exp((Q + log π_old/t_k)/(α + 1/t_k))."""

    def update(q: Tensor, old: Tensor, iteration: int) -> Tensor:
        weight = 1 / step_size(iteration)
        return ((q + weight * old.log()) / (ALPHA + weight)).softmax(-1)

    return update


def in_ball(radius: float) -> Update:
    """The way to the soft argmax as far as ``KLBall`` lets it go, per state: no argmax, but a
    step that improves, since the objective is concave in the policy."""
    ball = KLBall(radius)

    def update(q: Tensor, old: Tensor, iteration: int) -> Tensor:
        goal = (q / ALPHA).softmax(-1)
        low, high = torch.zeros(len(old), 1).double(), torch.ones(len(old), 1).double()
        for _ in range(25):
            middle = (low + high) / 2
            policy = old + middle * (goal - old)
            change = PolicyChange(
                *(Choices(p.log(), [p.shape[1]]) for p in (policy, old)), low, low
            )
            within = ball.distance(change) <= radius
            low, high = torch.where(within, middle, low), torch.where(within, high, middle)
        return old + low * (goal - old)

    return update


def learn(
    game: TabularGame, update: Update, iterations: int, seed: int = 0, sequential: bool = True
) -> tuple[list[Tensor], list[float]]:
    """The policies at the end, and the soft return after each iteration."""
    generator = torch.Generator().manual_seed(seed)
    policies = [
        torch.randn(game.num_states, k, generator=generator, dtype=torch.float64).softmax(-1)
        for k in game.actions
    ]
    returns = [game.soft_return(policies, GAMMA, ALPHA)]
    for iteration in range(iterations):
        values = game.soft_action_values(policies, GAMMA, ALPHA)
        new = list(policies)
        for agent in torch.randperm(len(policies), generator=generator).tolist():
            others = [i for i in range(len(policies)) if i != agent]
            q = game.average(values, new if sequential else policies, others)
            new[agent] = update(q, policies[agent], iteration)
        policies = new
        returns.append(game.soft_return(policies, GAMMA, ALPHA))
    return policies, returns


def least_change(returns: list[float]) -> float:
    return min(after - before for before, after in pairwise(returns))


HASAC = closed_form(lambda _: math.inf)
LIMIT = learn(GAME, HASAC, 200)[0]
DRIFTS: dict[str, Drift] = {
    "kl": KLDrift(2.0),
    "kl_old_new": KLDrift(2.0, "old_new"),
    "tsallis": Tsallis(2.0, 0.3),
    "squared_tv": TotalVariation(2, 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS.keys())
def test_a_valid_drift_rises_to_the_same_quantal_response_equilibrium(drift: Drift) -> None:
    check_drift(drift, kinds=["choices"], trials=2)
    policies, returns = learn(GAME, argmax(drift), 40)
    assert least_change(returns) >= -1e-9
    assert GAME.quantal_residual(policies, GAMMA, ALPHA) < 1e-3
    for found, expected in zip(policies, LIMIT, strict=True):
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_the_drifts_of_training_have_that_argmax() -> None:
    """``KLDrift``'s by optimisation is the geometric mean of the old and the soft greedy policy."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    old = torch.randn(4, 3, generator=generator, dtype=torch.float64).softmax(-1)
    found = argmax(KLDrift(2.0))(q, old, 0)
    torch.testing.assert_close(found, closed_form(lambda _: 2.0)(q, old, 0), atol=1e-6, rtol=0)
    share = 0.5 / (ALPHA + 0.5)
    between = (share * old.log() + (1 - share) * (q / ALPHA).log_softmax(-1)).softmax(-1)
    torch.testing.assert_close(found, between, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(closed_form(lambda _: 2.0), id="t = 2"),
        pytest.param(closed_form(lambda k: 2.0 / (1 + 0.02 * k)), id="t_k falls"),
        pytest.param(in_ball(0.01), id="ball", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_three_agents_rise_to_quantal_response_equilibria(update: Update, seed: int) -> None:
    game = random_game(3, (2, 3, 2), density=1.0, termination=0.0, seed=seed)
    policies, returns = learn(game, update, 200, seed)
    assert least_change(returns) >= -1e-9
    assert game.quantal_residual(policies, GAMMA, ALPHA) < 1e-4


@pytest.mark.slow
def test_a_drift_slows_the_way_and_changes_no_limit() -> None:
    far = [learn(GAME, closed_form(lambda _, t=t: t), 3)[1][-1] for t in (0.1, 1.0, math.inf)]
    assert far == sorted(far)
    for t in (0.5, 5.0):
        policies, _ = learn(GAME, closed_form(lambda _, t=t: t), 400)
        for found, expected in zip(policies, LIMIT, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_without_the_order_the_soft_return_falls() -> None:
    """The trap of heterogeneity: a drift does not repair a simultaneous update."""
    game = TabularGame.from_matrix(4 * payoffs.trap())
    falls = {
        order: min(
            least_change(learn(game, closed_form(lambda _: 10.0), 10, seed, order)[1])
            for seed in range(5)
        )
        for order in (True, False)
    }
    assert falls[True] >= -1e-9
    assert falls[False] < -0.1
