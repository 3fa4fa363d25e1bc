"""What our factor weighs advantages to is the multi-agent advantage, to machine precision."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from hetmarl.engines import EnumeratedTeam, TableActor, UpdateRandomness
from hetmarl.objectives import AgentBatch, MirrorLoss, PolicyChange
from hetmarl_envs.games.garnet import random_game
from hetmarl_envs.games.tabular import TabularGame

GAMMA = 0.9
GAMES = [
    random_game(3, (2, 3), density=1.0, termination=0.0, seed=1),
    random_game(2, (2, 3, 2), density=1.0, termination=0.2, seed=2),
    random_game(4, (2, 2, 2, 2), density=0.5, termination=0.0, seed=3),
]


class Jump:
    """Moves a policy anywhere, and notes r·M of every sample."""

    def __init__(self, parameters: list[nn.Parameter], seen: list[Tensor], seed: int) -> None:
        self.logits, self.seen = parameters[0], seen
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self,
        loss: MirrorLoss,
        batches: Sequence[AgentBatch],
        changes: object,
        randomness: UpdateRandomness,
    ) -> dict[str, Tensor]:
        shape, dtype = self.logits.shape, torch.float64
        with torch.no_grad():
            self.logits += torch.randn(shape, generator=self.generator, dtype=dtype)
            (change,) = changes(batches)  # type: ignore[operator]
        self.seen.append(change.ratio * change.advantage)
        return {}


def updated(game: TabularGame, seed: int) -> tuple[EnumeratedTeam, list[Tensor], list[Tensor]]:
    """A team after one round of jumps, its old policies, and r·M ``[S, K_1..K_n]`` per turn."""
    seen: list[Tensor] = []
    team = EnumeratedTeam(
        game, discount=GAMMA, seed=seed, update=lambda p: Jump(p, seen, seed + p[0].shape[1])
    )
    old = team.policies
    team.step()
    return team, old, [x.reshape(game.reward.shape) for x in seen]


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_factor_and_ratio_give_the_multi_agent_advantage(game: TabularGame, seed: int) -> None:
    """E_old[r·M | s] = E_new[A^{i_1:m}(s, a^{i_1:m})], the sum of its predecessors' and A^{i_m}.

    (Kuba et al. 2022, arXiv 2109.11251, lemma 1 and proposition 1.)
    """
    team, old, weighted = updated(game, seed)
    new, order = team.policies, UpdateRandomness(seed, 0).order(game.num_agents)
    everybody = range(game.num_agents)
    total = torch.zeros(game.num_states, dtype=torch.float64)
    for turn, agent in enumerate(order):
        found = game.average(weighted[turn], old, everybody)
        done = order[: turn + 1]
        advantage = game.multi_agent_advantages(old, GAMMA, done)
        expected = game_average(advantage, [new[i] for i in done])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        own = game.multi_agent_advantages(old, GAMMA, [agent], given=order[:turn])
        total = total + game_average(own, [new[i] for i in done])
        torch.testing.assert_close(found, total, rtol=1e-12, atol=1e-12)


def game_average(values: Tensor, policies: list[Tensor]) -> Tensor:
    """E of ``values [S, K_1..K_m]`` over the policies ``[S, K_i]``, ``[S]``."""
    for policy in reversed(policies):
        weights = policy.reshape(len(policy), *[1] * (values.dim() - 2), -1)
        values = (values * weights).sum(-1)
    return values


@pytest.mark.parametrize("game", GAMES)
def test_the_last_factor_makes_old_data_new(game: TabularGame) -> None:
    """Σ_s d_new(s)·E_old[r·M | s]/(1 − γ) = J(new) − J(old): the performance difference lemma."""
    team, old, weighted = updated(game, 0)
    gained = game.average(weighted[-1], old, range(game.num_agents))
    difference = game.visits(team.policies, GAMMA) @ gained
    expected = team.expected_return - game.expected_return(old, GAMMA)
    assert difference.item() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("game", GAMES)
def test_enumerated_advantages_and_weights_are_the_games(game: TabularGame) -> None:
    seen: list[Tensor] = []

    class Look(Jump):
        def __call__(
            self, loss: MirrorLoss, batches: Sequence[AgentBatch], changes: object, _: object
        ) -> dict[str, Tensor]:
            seen.append(batches[0].advantage)
            ones = torch.ones_like(batches[0].advantage)
            change = PolicyChange(None, None, ones, ones)  # type: ignore[arg-type]
            assert loss.mean([ones], [change]).item() == pytest.approx(1.0, abs=1e-12)
            return {}

    policies = [TableActor(p) for p in game.uniform_policies()]
    team = EnumeratedTeam(game, discount=GAMMA, actors=policies, update=lambda p: Look(p, [], 0))
    team.step()
    expected = game.advantages(team.policies, GAMMA).reshape(-1, 1)
    for found in seen:
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
