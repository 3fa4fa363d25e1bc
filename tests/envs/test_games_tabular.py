"""Exact solutions of finite games, against loops over every joint action and policy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hetmarl_envs.errors import ConfigError
from hetmarl_envs.games import payoffs
from hetmarl_envs.games.garnet import random_game
from hetmarl_envs.games.tabular import TabularGame

GAMMA = 0.9
GAMES = {
    "two": random_game(3, (2, 3), density=1.0, termination=0.0, seed=1),
    "three": random_game(2, (2, 3, 2), density=1.0, termination=0.2, seed=2),
    "sparse": random_game(5, (3, 2), density=0.2, termination=0.0, seed=3),
    "one": random_game(4, (3,), density=0.5, termination=0.1, seed=4),
    "climbing": TabularGame.from_matrix(payoffs.climbing()),
    "repeated": TabularGame.from_matrix(payoffs.climbing(), repeated=True),
}
every_game = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())


def policies(game: TabularGame, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(game.num_states, k) for k in game.actions]
    return [torch.randn(s, generator=generator).double().mul(2).softmax(-1) for s in shapes]


def pure(game: TabularGame, *actions: int) -> list[Tensor]:
    """The same action in every state."""
    one_hot = torch.nn.functional.one_hot
    return [
        one_hot(torch.full((game.num_states,), a), k).double()
        for a, k in zip(actions, game.actions, strict=True)
    ]


def joint_actions(game: TabularGame) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(k) for k in game.actions)))


def probability(team: list[Tensor], s: int, a: tuple[int, ...]) -> float:
    result = 1.0
    for policy, action in zip(team, a, strict=True):
        result *= float(policy[s, action])
    return result


def iterated_values(
    game: TabularGame, team: list[Tensor], bonus: Tensor | float = 0.0, steps: int = 400
) -> Tensor:
    """Policy evaluation by repeated backups, action by action."""
    values = torch.zeros(game.num_states, dtype=torch.float64)
    weights = {
        (s, a): probability(team, s, a) for s in range(game.num_states) for a in joint_actions(game)
    }
    reward, chain = torch.zeros_like(values), torch.zeros(game.num_states, game.num_states).double()
    for (s, a), weight in weights.items():
        reward[s] += weight * game.reward[(s, *a)]
        chain[s] += weight * game.transition[(s, *a)]
    for _ in range(steps):
        values = reward + bonus + GAMMA * chain @ values
    return values


def close(left: Any, right: Any, tolerance: float = 1e-12) -> None:
    left, right = (torch.as_tensor(value, dtype=torch.float64) for value in (left, right))
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------- evaluation
@every_game
def test_values_by_linear_solve_equal_repeated_backups(game: TabularGame) -> None:
    team = policies(game)
    values = game.state_values(team, GAMMA)
    assert values.dtype == torch.float64 and values.shape == (game.num_states,)
    close(values, iterated_values(game, team), 1e-10)
    close(game.expected_return(team, GAMMA), game.initial @ values)
    for s in range(game.num_states):
        for a in joint_actions(game):
            expected = game.reward[(s, *a)] + GAMMA * game.transition[(s, *a)] @ values
            close(game.action_values(team, GAMMA)[(s, *a)], expected)
            close(game.advantages(team, GAMMA)[(s, *a)], expected - values[s])
            close(game.joint_policy(team)[(s, *a)], probability(team, s, a))


@every_game
def test_multi_agent_values_are_averages_over_the_others(game: TabularGame) -> None:
    team = policies(game)
    everything = game.action_values(team, GAMMA)
    for size in range(game.num_agents + 1):
        for agents in itertools.permutations(range(game.num_agents), size):
            found = game.multi_agent_values(team, GAMMA, agents)
            expected = torch.zeros(game.num_states, *[game.actions[i] for i in agents]).double()
            for s in range(game.num_states):
                for a in joint_actions(game):
                    others = [i for i in range(game.num_agents) if i not in agents]
                    weight = 1.0
                    for i in others:
                        weight *= float(team[i][s, a[i]])
                    expected[(s, *(a[i] for i in agents))] += weight * everything[(s, *a)]
            close(found, expected)


@every_game
def test_advantages_decompose_in_every_order(game: TabularGame) -> None:
    """A(s, a) = Σ_j A^{i_j}(s, a^{i_1..i_{j-1}}, a^{i_j}), algorithms' one idea."""
    team = policies(game)
    joint = game.advantages(team, GAMMA)
    for order in itertools.permutations(range(game.num_agents)):
        parts = [
            game.multi_agent_advantages(team, GAMMA, [order[j]], given=order[:j])
            for j in range(game.num_agents)
        ]
        worst = 0.0
        for s in range(game.num_states):
            for a in joint_actions(game):
                total = sum(
                    float(part[(s, *(a[i] for i in order[: j + 1]))])
                    for j, part in enumerate(parts)
                )
                worst = max(worst, abs(total - float(joint[(s, *a)])))
        assert worst < 1e-12
        # each part averages to nothing over the agent's own policy
        for j, part in enumerate(parts):
            own = team[order[j]].reshape(game.num_states, *[1] * j, -1)
            assert float((part * own).sum(-1).abs().max()) < 1e-12


@every_game
def test_advantages_of_several_agents_given_others(game: TabularGame) -> None:
    team = policies(game)
    close(
        game.multi_agent_advantages(team, GAMMA, range(game.num_agents)),
        game.action_values(team, GAMMA)
        - game.state_values(team, GAMMA).reshape(-1, *[1] * game.num_agents),
    )
    if game.num_agents == 3:
        both = game.multi_agent_advantages(team, GAMMA, [2, 0], given=[1])
        assert both.shape == (2, 3, 2, 2)
        first = game.multi_agent_advantages(team, GAMMA, [2], given=[1])
        second = game.multi_agent_advantages(team, GAMMA, [0], given=[1, 2])
        close(both, first.unsqueeze(-1) + second)


@every_game
def test_visits(game: TabularGame) -> None:
    team, other = policies(game), policies(game, seed=5)
    reward, chain = game.policy_chain(team)
    visits, now = torch.zeros_like(game.initial), game.initial.clone()
    for _ in range(400):
        visits, now = visits + now, GAMMA * now @ chain
    close(game.visits(team, GAMMA), visits, 1e-10)
    close(game.visits(team, GAMMA) @ reward, game.expected_return(team, GAMMA))
    share = game.state_distribution(team, GAMMA)
    close(share.sum(), 1.0)
    if bool((game.transition.sum(-1) > 1 - 1e-12).all()):
        close(share, (1 - GAMMA) * game.visits(team, GAMMA))
    # performance difference: J(π') - J(π) = Σ η_π'(s) π'(a|s) A^π(s, a)
    gain = game.average(game.advantages(team, GAMMA), other, range(game.num_agents))
    difference = game.expected_return(other, GAMMA) - game.expected_return(team, GAMMA)
    close(game.visits(other, GAMMA) @ gain, difference)


# ---------------------------------------------------------------------- optima and equilibria
@every_game
def test_the_optimum_is_that_of_value_iteration(game: TabularGame) -> None:
    values, actions = game.optimum(GAMMA)
    iterated = torch.zeros_like(values)
    for _ in range(400):
        iterated = game.backup(iterated, GAMMA).flatten(1).amax(-1)
    close(values, iterated, 1e-10)
    assert actions.shape == (game.num_states, game.num_agents)
    attained = [
        torch.nn.functional.one_hot(actions[:, i], k).double() for i, k in enumerate(game.actions)
    ]
    close(game.state_values(attained, GAMMA), values)
    close(game.optimal_return(GAMMA), game.initial @ values)
    assert game.nash_gap(attained, GAMMA) < 1e-10


def test_the_optimum_is_the_best_of_all_policies() -> None:
    game = GAMES["three"]
    best = max(
        game.expected_return(deterministic(game, choices), GAMMA)
        for choices in itertools.product(joint_actions(game), repeat=game.num_states)
    )
    close(game.optimal_return(GAMMA), best)


def deterministic(game: TabularGame, choices: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    """Joint action ``choices[s]`` in state s."""
    table = torch.tensor(choices)
    one_hot = torch.nn.functional.one_hot
    return [one_hot(table[:, i], k).double() for i, k in enumerate(game.actions)]


@every_game
def test_best_responses_and_nash_gap(game: TabularGame) -> None:
    team = policies(game)
    gaps = []
    for i, k in enumerate(game.actions):
        policy, values = game.best_response(team, i, GAMMA)
        replaced = [*team[:i], policy, *team[i + 1 :]]
        close(game.state_values(replaced, GAMMA), values)
        best = -torch.inf
        for choice in itertools.product(range(k), repeat=game.num_states):
            mine = torch.nn.functional.one_hot(torch.tensor(choice), k).double()
            found = game.expected_return([*team[:i], mine, *team[i + 1 :]], GAMMA)
            best = max(best, found)
        close(game.initial @ values, best)
        gaps.append(best - game.expected_return(team, GAMMA))
    close(game.nash_gap(team, GAMMA), max(gaps))
    assert max(gaps) > 1e-3


def test_equilibria_of_the_climbing_and_penalty_games() -> None:
    climbing = TabularGame.from_matrix(payoffs.climbing())
    equilibria = [
        a for a in joint_actions(climbing) if climbing.nash_gap(pure(climbing, *a), 0) < 1
    ]
    assert equilibria == [(0, 0), (1, 1)]
    assert climbing.optimal_return(1.0) == 11 and climbing.optimum(1.0)[1].tolist() == [[0, 0]]
    penalty = TabularGame.from_matrix(payoffs.penalty("games/penalty", -50.0))
    equilibria = [a for a in joint_actions(penalty) if penalty.nash_gap(pure(penalty, *a), 0) == 0]
    assert equilibria == [(0, 0), (1, 1), (2, 2)]
    assert penalty.expected_return(pure(penalty, 0, 2), 0.0) == -50


@pytest.mark.parametrize("p", [0.3, 0.59, 0.61, 0.9])
def test_the_trap_springs_above_six_tenths(p: float) -> None:
    game = TabularGame.from_matrix(payoffs.trap())
    team = [torch.tensor([[p, 1 - p]]).double()] * 2
    greedy = [game.best_response(team, i, 0.0)[0] for i in range(2)]
    together = game.expected_return(greedy, 0.0)
    assert together == (-1.0 if p > 0.6 else 0.0)
    in_turn = [greedy[0], game.best_response([greedy[0], team[1]], 1, 0.0)[0]]
    assert game.expected_return(in_turn, 0.0) == 2.0


@every_game
def test_sequential_greedy_steps_never_get_worse_and_end_in_an_equilibrium(
    game: TabularGame,
) -> None:
    """One agent at a time acts greedily on its averaged Q: monotone, and Nash where it stops."""
    team = policies(game)
    before = game.expected_return(team, GAMMA)
    for sweep in range(30):
        for i in range(game.num_agents):
            agent = (i + sweep) % game.num_agents
            values = game.multi_agent_values(team, GAMMA, [agent])
            if float((values.amax(-1) - (values * team[agent]).sum(-1)).max()) > 1e-12:
                team[agent] = torch.nn.functional.one_hot(
                    values.argmax(-1), values.shape[-1]
                ).double()
            now = game.expected_return(team, GAMMA)
            assert now >= before - 1e-12
            before = now
    assert game.nash_gap(team, GAMMA) < 1e-10


# ---------------------------------------------------------------------- horizon, maximum entropy
def test_finite_horizon_return() -> None:
    game = GAMES["three"]

    def best(s: int, steps: int) -> float:
        if steps == 0:
            return 0.0
        later = torch.tensor(
            [best(t, steps - 1) for t in range(game.num_states)], dtype=torch.float64
        )
        return max(
            float(game.reward[(s, *a)] + game.transition[(s, *a)] @ later)
            for a in joint_actions(game)
        )

    expected = sum(float(game.initial[s]) * best(s, 3) for s in range(game.num_states))
    close(game.finite_horizon_return(3), expected)
    assert GAMES["repeated"].finite_horizon_return(7) == 77
    assert GAMES["climbing"].finite_horizon_return(7) == 11


@every_game
def test_soft_values(game: TabularGame) -> None:
    team, alpha = policies(game), 0.3
    entropy = sum(-(policy * policy.log()).sum(-1) for policy in team)
    values = game.soft_state_values(team, GAMMA, alpha)
    close(values, iterated_values(game, team, bonus=alpha * entropy), 1e-10)
    close(game.soft_return(team, GAMMA, alpha), game.initial @ values)
    close(game.soft_action_values(team, GAMMA, alpha), game.backup(values, GAMMA))
    certain = pure(game, *[0] * game.num_agents)  # entropy 0, without NaN
    close(game.soft_state_values(certain, GAMMA, alpha), game.state_values(certain, GAMMA))


@every_game
@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_soft_greedy_steps_in_turn_reach_a_quantal_response_equilibrium(
    game: TabularGame, alpha: float
) -> None:
    team = policies(game)
    assert game.quantal_residual(team, GAMMA, alpha) > 0.01
    before = game.soft_return(team, GAMMA, alpha)
    for _ in range(200):
        for i in range(game.num_agents):
            team[i] = game.quantal_response(team, i, GAMMA, alpha)
            now = game.soft_return(team, GAMMA, alpha)
            assert now >= before - 1e-11
            before = now
        if game.quantal_residual(team, GAMMA, alpha) < 1e-10:
            break
    assert game.quantal_residual(team, GAMMA, alpha) < 1e-10
    # no perturbation of a single agent is better
    generator = torch.Generator().manual_seed(0)
    for i, policy in enumerate(team):
        noise = torch.randn(policy.shape, generator=generator).double()
        moved = [*team[:i], (policy.log() + 0.1 * noise).softmax(-1), *team[i + 1 :]]
        if float((moved[i] - policy).abs().max()) > 1e-6:  # else it is certain, up to rounding
            assert game.soft_return(moved, GAMMA, alpha) < before


def test_quantal_response_of_one_agent_is_soft_value_iteration() -> None:
    game, alpha = GAMES["one"], 0.5
    values = torch.zeros(game.num_states).double()
    for _ in range(400):
        values = alpha * (game.backup(values, GAMMA) / alpha).logsumexp(-1)
    optimal = (game.backup(values, GAMMA) / alpha).softmax(-1)
    close(game.soft_state_values([optimal], GAMMA, alpha), values, 1e-10)
    assert game.quantal_residual([optimal], GAMMA, alpha) < 1e-10


def test_quantal_equilibrium_of_xor_by_hand() -> None:
    """Uniform at every temperature; at a low one also two lopsided ones, p = sigmoid((2p-1)/α)."""
    game = TabularGame.from_matrix(payoffs.xor())
    assert game.quantal_residual(game.uniform_policies(), 0.0, 0.1) == 0
    p = 0.9
    for _ in range(500):
        p = 1 / (1 + math.exp((1 - 2 * p) / 0.3))
    team = [torch.tensor([row], dtype=torch.float64) for row in ([p, 1 - p], [1 - p, p])]
    assert p > 0.9 and game.quantal_residual(team, 0.0, 0.3) < 1e-12


# ---------------------------------------------------------------------- random games
def test_random_games() -> None:
    game = random_game(10, (2, 3), density=0.3, termination=0.25, seed=7)
    again = random_game(10, (2, 3), density=0.3, termination=0.25, seed=7)
    other = random_game(10, (2, 3), density=0.3, termination=0.25, seed=8)
    assert torch.equal(game.transition, again.transition) and torch.equal(game.reward, again.reward)
    assert not torch.equal(game.reward, other.reward)
    assert ((game.transition > 0).sum(-1) == 3).all()
    close(game.transition.sum(-1), torch.full((10, 2, 3), 0.75))
    assert ((game.reward >= 0) & (game.reward < 1)).all()
    least = random_game(3, (2,), density=0.01, termination=0.0, seed=0)
    assert ((least.transition > 0).sum(-1) == 1).all()


# ---------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": torch.ones(2, 2, 2)}, r"sum to at most 1.*largest sum"),
        ({"transition": torch.full((2, 2, 2), -0.1)}, r"found -0.1 as the least"),
        ({"transition": torch.zeros(2, 3, 2)}, r"do not fit: expected \[S, K_1..K_n, S\]"),
        ({"reward": torch.full((2, 2), torch.nan)}, "reward holds NaN"),
        ({"initial": torch.ones(2)}, "initial: expected probabilities that sum to 1"),
    ],
)
def test_impossible_games_are_refused(change: dict[str, Tensor], message: str) -> None:
    tables = {
        "transition": torch.full((2, 2, 2), 0.5),
        "reward": torch.zeros(2, 2),
        "initial": torch.tensor([0.5, 0.5]),
    }
    TabularGame(**tables)
    with pytest.raises(ConfigError, match=message):
        TabularGame(**{**tables, **change})


def test_wrong_arguments_are_refused() -> None:
    game = GAMES["two"]
    team = policies(game)
    with pytest.raises(
        ConfigError, match=r"expected one \[S, K_i\] per agent: \[\[3, 2\], \[3, 3\]\]"
    ):
        game.state_values(team[::-1], GAMMA)
    with pytest.raises(ConfigError, match="policy of agent 1: expected rows of probabilities"):
        game.state_values([team[0], team[1] * 1.1], GAMMA)
    with pytest.raises(ConfigError, match="different numbers from 0 to 1"):
        game.multi_agent_values(team, GAMMA, [0, 0])
    with pytest.raises(ConfigError, match="different numbers from 0 to 1"):
        game.best_response(team, 2, GAMMA)
    with pytest.raises(ConfigError, match="temperature=0"):
        game.soft_state_values(team, GAMMA, 0)
    with pytest.raises(ConfigError, match="temperature=0"):
        game.quantal_response(team, 0, GAMMA, 0)
    with pytest.raises(ConfigError, match=r"discount=1\.5, expected a number from 0 to 1"):
        game.state_values(team, 1.5)
    with pytest.raises(ConfigError, match="discount=1 needs policies under which every episode"):
        game.state_values(team, 1.0)
