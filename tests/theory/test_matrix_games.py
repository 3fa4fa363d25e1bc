"""What goes wrong where agents step at once, or share one policy."""

from __future__ import annotations

import pytest
import torch

from hetmarl.engines import EnumeratedTeam, Maximise, TableActor
from hetmarl.objectives import KLDrift
from hetmarl_envs.games import payoffs
from hetmarl_envs.games.tabular import TabularGame


def table(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64)


@pytest.mark.parametrize(("zero", "end"), [(0.61, -1.0), (0.59, 0.0)])
def test_trap_of_heterogeneity(zero: float, end: float) -> None:
    """Both play 0 with more than .6: each one's best answer is 1, and both at once the worst."""
    game = TabularGame.from_matrix(payoffs.trap())

    def after_one_argmax(sequential: bool) -> float:
        actors = [TableActor(table(zero, 1 - zero)) for _ in range(2)]
        team = EnumeratedTeam(game, actors=actors, sequential=sequential)
        before = team.expected_return
        team.step()
        assert sequential <= (team.expected_return > before)
        return team.expected_return

    assert after_one_argmax(sequential=False) == pytest.approx(end, abs=1e-3)
    assert after_one_argmax(sequential=True) == pytest.approx(2.0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("agents", [2, 4])
def test_cost_of_sharing(agents: int) -> None:
    game = TabularGame.from_matrix(payoffs.sharing("games/sharing", agents))
    bound = 2.0 / 2**agents

    def shared_return(p: float) -> float:
        return game.expected_return([table(1 - p, p)] * agents, 1.0)

    assert max(shared_return(p) for p in torch.linspace(0, 1, 101).tolist()) == bound

    one = TableActor(table(0.8, 0.2))
    shared = EnumeratedTeam(
        game,
        KLDrift(2.0),
        actors=[one] * agents,
        update=lambda p: Maximise(p, steps=4),
        sequential=False,
    )
    for _ in range(10 * agents):
        shared.step()
        assert shared.expected_return <= bound + 1e-12
    assert shared.expected_return == pytest.approx(bound, rel=0.02)

    separate = EnumeratedTeam(game, KLDrift(100.0), seed=1)
    for _ in range(5 * agents):
        separate.step()
    assert separate.expected_return == pytest.approx(1.0, abs=1e-2)
