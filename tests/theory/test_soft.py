"""Maximum entropy: exact soft updates in turn, their equilibria, and HASAC beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hetmarl.engines import GradientStep, OffPolicyEngine, UpdateRandomness
from hetmarl.networks import NetworkConfig, TeamPolicy
from hetmarl.objectives import HASACLoss
from hetmarl_envs import TeamSpec
from hetmarl_envs.games.garnet import random_game
from hetmarl_envs.games.table_env import TableEnv
from hetmarl_envs.games.tabular import TabularGame
from tests.choosing import replayed

GAMMA = 0.9
GAMES = [random_game(3, (2, 3, 2), density=0.7, termination=0.1, seed=seed) for seed in range(3)]
COORDINATION = TabularGame.from_matrix(torch.eye(2))
"""Both earn 1 where they do the same."""


def entropy(policies: Sequence[Tensor]) -> Tensor:
    """Σ_i H(π^i(·|s)), ``[S]``."""
    return torch.stack([torch.special.entr(policy).sum(-1) for policy in policies]).sum(0)


def soft_update(
    game: TabularGame, policies: list[Tensor], alpha: float, order: Sequence[int]
) -> list[float]:
    """One iteration of HASAC with nothing estimated, in place (Liu et al. 2024, algorithm 1).

    The critic is that of the old joint policy for the whole iteration; agent after agent takes
    the argmax of E[Q(s, new, a, old) − α·log π(a)], which is a softmax.

    Returns:
        E[Q_old] + α·ΣH, averaged over states, before the first turn and after each.
    """
    everyone = range(game.num_agents)
    critic = game.soft_action_values(policies, GAMMA, alpha)

    def objective() -> float:
        return float((game.average(critic, policies, everyone) + alpha * entropy(policies)).mean())

    found = [objective()]
    for i in order:
        others = [j for j in everyone if j != i]
        policies[i] = (game.average(critic, policies, others) / alpha).softmax(-1)
        found.append(objective())
    return found


def equilibrium(
    game: TabularGame, alpha: float, start: Sequence[Tensor] | None = None, seed: int = 0
) -> list[Tensor]:
    """Where soft updates in random order lead; asserts that each of them improves."""
    policies = list(start or game.uniform_policies())
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2000):
        before = game.soft_state_values(policies, GAMMA, alpha)
        order = torch.randperm(game.num_agents, generator=generator).tolist()
        objectives = soft_update(game, policies, alpha, order)
        assert min(b - a for a, b in pairwise(objectives)) >= -1e-12  # at every turn
        after = game.soft_state_values(policies, GAMMA, alpha)
        assert (after - before).min() >= -1e-12  # and in every state
        if game.quantal_residual(policies, GAMMA, alpha) < 1e-10:
            break
    return policies


@pytest.mark.parametrize("game", GAMES)
def test_soft_updates_in_turn_rise_to_a_quantal_response_equilibrium(game: TabularGame) -> None:
    for alpha in (0.05, 0.3):
        policies = equilibrium(game, alpha, seed=1)
        assert game.quantal_residual(policies, GAMMA, alpha) < 1e-8
        assert game.quantal_residual(policies, GAMMA, 2 * alpha) > 1e-3


def test_all_at_once_they_may_fall_and_never_settle() -> None:
    """The same softmax without turns: two who want to do the same each follow the other."""
    alpha = 0.1
    policies = [torch.tensor([p]).double() for p in ([0.9, 0.1], [0.1, 0.9])]
    mixed = equilibrium(COORDINATION, alpha, policies)
    assert COORDINATION.quantal_residual(mixed, GAMMA, alpha) < 1e-8
    returns = [COORDINATION.soft_return(policies, GAMMA, alpha)]
    for _ in range(50):
        policies = [COORDINATION.quantal_response(policies, i, GAMMA, alpha) for i in range(2)]
        returns.append(COORDINATION.soft_return(policies, GAMMA, alpha))
    assert min(b - a for a, b in pairwise(returns)) < -0.01
    assert COORDINATION.quantal_residual(policies, GAMMA, alpha) > 0.9


@pytest.mark.parametrize("game", GAMES)
def test_cold_it_is_nash_and_hot_it_is_uniform(game: TabularGame) -> None:
    """Followed from hot to cold, the return rises and the entropy falls.

    No agent can gain more than the entropy it would give up: the gap to Nash is at most
    α·Σ log K_i·(expected length of an episode).
    """
    policies = game.uniform_policies()
    length = float(game.visits(policies, GAMMA).sum())  # the same for all: termination is fixed
    temperatures = [100.0, 10.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003]
    returns, entropies, gaps = [], [], []
    for alpha in temperatures:
        policies = equilibrium(game, alpha, policies)
        returns.append(game.expected_return(policies, GAMMA))
        entropies.append(float(entropy(policies).mean()))
        gaps.append(game.nash_gap(policies, GAMMA))
        assert gaps[-1] <= alpha * math.log(math.prod(game.actions)) * length + 1e-9
        values = game.soft_action_values(policies, GAMMA, alpha)
        spread = float(values.max() - values.min()) / alpha
        uniform = game.uniform_policies()
        far = max(
            float((p.log() - u.log()).abs().max()) for p, u in zip(policies, uniform, strict=True)
        )
        assert far <= spread + 1e-12
    assert min(b - a for a, b in pairwise(returns)) >= -1e-9
    assert max(b - a for a, b in pairwise(entropies)) <= 1e-9
    assert gaps[-1] < 1e-3 < gaps[0]
    assert entropies[0] == pytest.approx(math.log(math.prod(game.actions)), abs=1e-3)


@pytest.mark.parametrize("alpha", [0.3, 0.4, 0.6, 1.0])
def test_coordination_below_a_critical_temperature_only(alpha: float) -> None:
    """m = P(0) − P(1) solves m = tanh(m/2α): below α = ½ two solutions besides 0, above it none."""
    start = [torch.tensor([[0.8, 0.2]]).double()] * 2
    policies = equilibrium(COORDINATION, alpha, start)
    m = 1.0 if alpha < 0.5 else 0.0
    for _ in range(10_000):
        m = math.tanh(m / (2 * alpha))
    for policy in policies:
        assert float(policy[0, 0] - policy[0, 1]) == pytest.approx(m, abs=1e-7)
    assert (m > 0.3) == (alpha < 0.5)


# ---------------------------------------------------------------------- sampled
class Payoff(nn.Module):
    """In place of a learned critic the game's own payoff of one-hot actions, linear in each."""

    def __init__(self, payoff: Tensor) -> None:
        super().__init__()
        self.payoff = nn.Parameter(payoff)  # which nobody descends

    def forward(self, state: Tensor, actions: Sequence[Tensor]) -> tuple[Tensor]:
        first, second = (action.to(self.payoff) for action in actions)
        return (torch.einsum("bi,ij,bj->b", first, self.payoff, second)[:, None],)


class Idle(GradientStep):
    """A critic that is right already."""

    def __init__(self) -> None:
        super().__init__([], torch.optim.SGD([{"params": []}]))

    def __call__(self, loss: Tensor) -> Tensor:
        return loss.detach()


def hasac(payoff: Tensor, alpha: float, updates: int = 250) -> list[Tensor]:
    """The policies ``[1, K_i]`` that HASAC's own loss and engine end with."""
    torch.manual_seed(0)
    game = TabularGame.from_matrix(payoff)
    spec = TeamSpec.from_env(TableEnv(game))
    policy = TeamPolicy(spec, NetworkConfig([4]))
    loss = HASACLoss(policy, Payoff(payoff), alpha=alpha, auto_alpha=False)  # type: ignore[arg-type]
    steps = []
    for actor in policy.actors:
        parameters = list(actor.parameters())
        steps.append(GradientStep(parameters, torch.optim.Adam(parameters, lr=0.05)))
    cool = [torch.optim.lr_scheduler.LinearLR(s.optimizer, 1.0, 0.02, updates) for s in steps]
    engine = OffPolicyEngine(loss, Idle(), steps)
    data = replayed(spec, 400, masks=False, dtype=torch.float32)
    for where in (data, data["next"]):
        for key in (("state",), *((group, "observation") for group in spec.groups)):
            where[key].fill_(1.0)
    randomness = UpdateRandomness(0, 0)
    for _ in range(updates):
        engine.update(data, randomness)
        for schedule in cool:
            schedule.step()
    with torch.no_grad():
        return [actor(torch.ones(1, 1)).softmax(-1).double() for actor in policy.actors]


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_hasac_approaches_the_quantal_response_equilibrium(alpha: float) -> None:
    """Straight-through gradients are biased, but where they vanish is not: with a critic linear in
    the agent's own choice they are E[diag(y) − yyᵀ]·(E[Q] − α·log π), 0 at the softmax only."""
    payoff = torch.tensor([[1.0, 0.0, 0.4], [0.2, 0.6, 0.0]])
    game = TabularGame.from_matrix(payoff)
    expected, found = equilibrium(game, alpha), hasac(payoff, alpha)
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, exact, atol=0.03, rtol=0)
    other = equilibrium(game, 1.3 - alpha)
    assert max(float((a - b).abs().max()) for a, b in zip(found, other, strict=True)) > 0.1
