"""A tabular game played: matrix games and random Markov games as one environment."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hetmarl_envs.contract import ActionSpace
from hetmarl_envs.games.base import GameEnv
from hetmarl_envs.games.tabular import ROUNDING, TabularGame


class TableEnv(GameEnv):
    """``num_envs`` plays of one ``TabularGame``.

    Every agent sees the state as a one-hot vector, all zeros once the game has terminated; so does
    the critic. Matrix games have one state: what is seen is the number 1.

    =================================  ==============  =======================================
    key                                shape           meaning
    =================================  ==============  =======================================
    ``(group, "observation")``         ``[N, n_g, S]`` the state, one-hot
    ``(group, "action")``              ``[N, n_g]``    int64
    ``"state"``                        ``[N, S]``      the state, one-hot
    ``("next", "reward")``             ``[N, 1]``      R(s, a), in float32
    ``("next", "terminated")``         ``[N, 1]``      the transition's missing probability
    ``("next", "truncated")``          ``[N, 1]``      ``max_steps`` are over
    =================================  ==============  =======================================

    Args:
        game: the tables; also at ``env.game``, for exact solutions.
        max_steps: time limit in steps, None for none.
        where: name of the task, for messages.
        shared_return: the best return of one policy for all agents, where it is known.
        num_envs, seed, device: see ``GameEnv``.
    """

    def __init__(
        self,
        game: TabularGame,
        *,
        max_steps: int | None = None,
        where: str = "games/markov",
        shared_return: float | None = None,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
    ) -> None:
        spaces = [ActionSpace("discrete", choices=(k,)) for k in game.actions]
        states = game.num_states
        super().__init__(
            where,
            spaces,
            states,
            states,
            num_envs=num_envs,
            seed=seed,
            device=device,
            max_steps=max_steps,
        )
        self.game, self.shared_return = game, shared_return
        # Tables over joint actions J, with one more state: the end, which is never left.
        self._reward = _with_end(game.reward.flatten(1), 0.0).to(self.device)
        next_state = _thresholds(game.transition.flatten(1, -2))
        self._next_state = _with_end(next_state, -1.0).to(self.device)
        self._first_state = _thresholds(game.initial).to(self.device)
        self._strides = [math.prod(game.actions[i + 1 :]) for i in range(game.num_agents)]
        self._memory = {"state": torch.full((num_envs,), states, device=self.device)}

    @property
    def optimal_return(self) -> float | None:
        """The best undiscounted return of an episode; None without a limit that ends it."""
        if self.max_steps is not None:
            return self.game.finite_horizon_return(self.max_steps)
        if bool((self.game.transition.sum(-1) < 1 - ROUNDING).all()):
            return self.game.optimal_return(1.0)
        return None

    def _begin(self, rows: Tensor) -> None:
        fresh = self._draw(self._first_state.expand(self.num_envs, -1))
        self._memory["state"] = torch.where(rows, fresh, self._memory["state"])

    def _play(self, actions: list[Tensor]) -> tuple[Tensor, Tensor]:
        state = self._memory["state"]
        joint = torch.zeros_like(state)
        for action, stride in zip(actions, self._strides, strict=True):
            joint = joint + action * stride
        self._memory["state"] = self._draw(self._next_state[state, joint])
        return self._reward[state, joint], self._memory["state"] == self.game.num_states

    def _draw(self, thresholds: Tensor) -> Tensor:
        """States ``[N]`` drawn from cumulative probabilities ``[N, S]``; S stands for the end."""
        return (self._uniform(self.num_envs, 1) >= thresholds).sum(-1)

    def _look(self) -> dict[str, Tensor]:
        states = self.game.num_states
        seen = torch.nn.functional.one_hot(self._memory["state"], states + 1)[:, :states].float()
        return {"observation": seen.unsqueeze(1).expand(-1, len(self.spaces), -1), "state": seen}

    def to(self, device: torch.device | str) -> TableEnv:
        """Moves the environment and its tables; ``game`` stays on the CPU."""
        super().to(device)
        for name in ("_reward", "_next_state", "_first_state"):
            setattr(self, name, getattr(self, name).to(self.device))
        return self


def _thresholds(probabilities: Tensor) -> Tensor:
    """Cumulative probabilities ``[..., S]``, infinite from the last possible state on if they reach
    1: rounding must not end a game that never ends."""
    total = probabilities.cumsum(-1)
    certain = (total[..., -1:] > 1 - ROUNDING) & (total >= total[..., -1:])
    return total.masked_fill(certain, torch.inf)


def _with_end(table: Tensor, value: float) -> Tensor:
    return torch.cat([table, torch.full_like(table[:1], value)])
