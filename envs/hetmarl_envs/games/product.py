"""The product game: the smallest one in which updating all agents at once makes the team worse."""

from __future__ import annotations

import torch
from torch import Tensor

from hetmarl_envs.contract import ActionSpace
from hetmarl_envs.games.base import GameEnv
from hetmarl_envs.options import check, number


class ProductEnv(GameEnv):
    """Two agents choose a real number each; the team earns ``a1 * a2``, once.

    Policies with independent actions of means ``m1``, ``m2`` earn ``m1 * m2`` in expectation,
    whatever their spreads. From means (-d, d), when each agent moves its mean by Δ up the gradient
    against the other's *old* policy, the team earns ``-(Δ - d)²``: less than the ``-d²`` that it
    had as soon as Δ > 2d. When the second agent steps against the *updated* first one, the team
    earns ``-(Δ - d)²`` up to Δ = d and ``Δ² - d²`` beyond: more than before for every Δ > 0.

    Keys: ``("agents", "observation")`` ``[N, 2, 1]`` and ``"state"`` ``[N, 1]``, always 1;
    ``("agents", "action")`` ``[N, 2, 1]``.

    Args:
        where: name of the task, for messages.
        bound: the action space is ``[-bound, bound]``. The theory has no bounds; these are there
            for squashed policies and for random actions, and an action beyond them is taken as it
            is, so that a plain Gaussian policy plays the game of the theory.
        num_envs, seed, device: see ``GameEnv``.
    """

    def __init__(
        self,
        where: str = "games/product",
        *,
        bound: float = 10.0,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
    ) -> None:
        self.bound = float(check(where, "bound", bound, number(low=1e-3)))
        space = ActionSpace("continuous", (-self.bound,), (self.bound,))
        super().__init__(where, (space, space), 1, 1, num_envs=num_envs, seed=seed, device=device)

    @property
    def optimal_return(self) -> float:
        """Both at the same bound."""
        return self.bound**2

    def _begin(self, rows: Tensor) -> None:
        pass

    def _play(self, actions: list[Tensor]) -> tuple[Tensor, Tensor]:
        first, second = actions
        reward = (first * second).squeeze(-1)
        return reward, torch.ones_like(reward, dtype=torch.bool)

    def _look(self) -> dict[str, Tensor]:
        ones = torch.ones(self.num_envs, 2, 1, device=self.device)
        return {"observation": ones, "state": ones[:, 0]}
