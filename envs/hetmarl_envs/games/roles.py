"""Roles: a team task whose need for different behaviour is a number, with known optima."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hetmarl_envs.contract import ActionSpace
from hetmarl_envs.errors import ConfigError, ContractError
from hetmarl_envs.games.base import GameEnv
from hetmarl_envs.options import FLAG, check, choice, number, whole

KINDS = ("discrete", "continuous")
DEFAULT_AGENTS = 3
BONUS = 2.0
"""What the bonus action pays; every other action pays at most 1."""


class RolesEnv(GameEnv):
    """All see the same situation: *alike*, in which all must do the same, or *roles*, in which each
    must do its own part. ``heterogeneity`` is the probability of *roles*.

    ==============  ========================================  ===================================
    agent i         discrete: chooses one of n roles          continuous: chooses a number
    ==============  ========================================  ===================================
    alike           1 for role 0, else 0                      ``1 - a² / v``
    roles           1 for role i, else 0                      ``1 - (a - t_i)² / v``
    ==============  ========================================  ===================================

    with targets ``t_i`` evenly spaced from -.5 to .5 and ``v`` the mean of their squares. The
    team's reward is the sum over living agents divided by n, so the best team gets 1 per step
    whatever the heterogeneity, and one policy for all agents 1 - heterogeneity · (1 - 1/n)
    (discrete) or 1 - heterogeneity (continuous). Situations are drawn anew at each step; nothing
    else is carried from step to step.

    Keys: ``(group, "observation")`` ``[N, n_g, 2]`` and ``"state"`` ``[N, 2]``, the situation
    one-hot (alike, roles), zeros for a dead agent; ``(group, "action_mask")`` ``[N, n_g, n + 1]``
    with ``bonus``; ``(group, "alive")`` ``[N, n_g, 1]`` with ``death_step``. Continuous actions
    have bounds [-1, 1]; one beyond them is taken as it is.

    Args:
        where: name of the task, for messages.
        num_agents: n, at least 2; by default 3, or as many as ``actions`` lists.
        heterogeneity: 0 (all behave alike) to 1 (every agent has its own role).
        actions: ``"discrete"``, ``"continuous"``, or a list of one of these per agent. The agents
            of a kind share a group.
        bonus: discrete agents get one more action, the last. Where it is legal, for each agent
            with probability 1/2 at each step, it pays 2, more than anything else. Nothing but the
            mask tells. Taking it where it is illegal is an error.
        death_step: the last agent dies after so many steps and earns nothing from then on; what it
            does is ignored. None: nobody dies.
        repeats: None for one step that terminates, or a number of steps after which the episode is
            truncated.
        num_envs, seed, device: see ``GameEnv``.
    """

    def __init__(
        self,
        where: str = "games/roles",
        *,
        num_agents: int | None = None,
        heterogeneity: float = 1.0,
        actions: str | Sequence[str] = "discrete",
        bonus: bool = False,
        death_step: int | None = None,
        repeats: int | None = None,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
    ) -> None:
        kinds = _kinds(where, actions, num_agents)
        n = len(kinds)
        self.heterogeneity = float(check(where, "heterogeneity", heterogeneity, number(0.0, 1.0)))
        self.bonus = check(where, "bonus", bonus, FLAG)
        if bonus and "discrete" not in kinds:
            raise ConfigError(f"{where}: bonus=true needs discrete agents, actions={actions!r}.")
        if repeats is not None:
            check(where, "repeats", repeats, whole(1))
        self.steps_per_episode = 1 if repeats is None else repeats
        if death_step is not None and check(where, "death_step", death_step, whole(1)) >= (
            self.steps_per_episode
        ):
            raise ConfigError(
                f"{where}: death_step={death_step}, expected fewer than the "
                f"{self.steps_per_episode} steps of an episode; repeats=<steps> makes it longer."
            )
        self.death_step = death_step
        spaces = {
            "discrete": ActionSpace("discrete", choices=(n + self.bonus,)),
            "continuous": ActionSpace("continuous", (-1.0,), (1.0,)),
        }
        super().__init__(
            where,
            [spaces[kind] for kind in kinds],
            2,
            2,
            masked=self.bonus,
            mortal=death_step is not None,
            num_envs=num_envs,
            seed=seed,
            device=device,
            max_steps=repeats,
        )
        self.targets = torch.linspace(-0.5, 0.5, n, dtype=torch.float64).tolist()
        self._scale = sum(target**2 for target in self.targets) / n
        self._ends = repeats is None
        self._memory = {
            "roles": torch.zeros(num_envs, dtype=torch.bool, device=self.device),
            "legal": torch.zeros(num_envs, n, dtype=torch.bool, device=self.device),
        }

    # ------------------------------------------------------------------ what is known
    def _life(self) -> list[int]:
        """Steps that each agent lives, ``n`` numbers."""
        life = [self.steps_per_episode] * len(self.spaces)
        if self.death_step is not None:
            life[-1] = self.death_step
        return life

    @property
    def optimal_return(self) -> float:
        """The best expected undiscounted return of an episode, of any team of policies."""
        total = sum(
            life * ((1 + BONUS) / 2 if self._may_win_bonus(i) else 1.0)
            for i, life in enumerate(self._life())
        )
        return total / len(self.spaces)

    @property
    def shared_return(self) -> float:
        """The best expected undiscounted return when the agents of each group share one policy.

        The policy sees the observation and the mask: no agent id, no memory. Of a group with lives
        w_i, a discrete policy gets ``max_i w_i`` out of *roles* (it plays the role of whoever lives
        longest), a continuous one ``Σ w_i (1 - (t̄ - t_i)² / v)`` with t̄ the mean of the t_i
        weighted with w_i.
        """
        life, total = self._life(), 0.0
        for members in self._members.values():
            lives = [life[i] for i in members]
            alike = float(sum(lives))
            if self.spaces[members[0]].kind == "discrete":
                roles = float(max(lives))
            else:
                targets = [self.targets[i] for i in members]
                mean = sum(w * t for w, t in zip(lives, targets, strict=True)) / alike
                lost = sum(w * (t - mean) ** 2 for w, t in zip(lives, targets, strict=True))
                roles = alike - lost / self._scale
            plain = (1 - self.heterogeneity) * alike + self.heterogeneity * roles
            total += (BONUS * alike + plain) / 2 if self._may_win_bonus(members[0]) else plain
        return total / len(self.spaces)

    def _may_win_bonus(self, agent: int) -> bool:
        return self.bonus and self.spaces[agent].kind == "discrete"

    # ------------------------------------------------------------------ the game
    def _begin(self, rows: Tensor) -> None:
        self._next_situation(rows)

    def _next_situation(self, rows: Tensor) -> None:
        n = len(self.spaces)
        drawn = self._uniform(self.num_envs, 1 + n)
        roles, legal = drawn[:, 0] < self.heterogeneity, drawn[:, 1:] < 0.5
        self._memory = {
            "roles": torch.where(rows, roles, self._memory["roles"]),
            "legal": torch.where(rows.unsqueeze(-1), legal, self._memory["legal"]),
        }

    def _alive(self) -> Tensor:
        """``[N, n]``."""
        alive = torch.ones(self.num_envs, len(self.spaces), dtype=torch.bool, device=self.device)
        if self.death_step is not None:
            alive[:, -1] = self._steps[:, 0] < self.death_step
        return alive

    def _play(self, actions: list[Tensor]) -> tuple[Tensor, Tensor]:
        alive, roles, legal = self._alive(), self._memory["roles"], self._memory["legal"]
        n = len(self.spaces)
        earned = []
        for i, action in enumerate(actions):
            if self.spaces[i].kind == "continuous":
                error = action.squeeze(-1).double() - roles * self.targets[i]
                earned.append(1 - error.square() / self._scale)
                continue
            wins_bonus = action == n
            if bool((wins_bonus & ~legal[:, i] & alive[:, i]).any()):
                raise ContractError(
                    f"{self.where}: agent_{i} takes action {n} where its action_mask forbids it. "
                    "Sample and maximise over legal actions only."
                )
            right = (action == roles * i).double()
            earned.append(torch.where(wins_bonus, BONUS, right))
        reward = (torch.stack(earned, dim=-1) * alive).sum(-1) / n
        self._next_situation(torch.ones_like(roles))
        return reward, torch.full_like(roles, self._ends)

    def _look(self) -> dict[str, Tensor]:
        n, alive, roles = len(self.spaces), self._alive(), self._memory["roles"]
        seen = torch.stack([~roles, roles], dim=-1)
        look = {"state": seen, "observation": seen.unsqueeze(1) & alive.unsqueeze(-1)}
        if self._mortal:
            look["alive"] = alive
        if self._masked:
            usual = torch.ones(self.num_envs, n, n, dtype=torch.bool, device=self.device)
            look["action_mask"] = torch.cat([usual, self._memory["legal"].unsqueeze(-1)], dim=-1)
        return look


def _kinds(where: str, actions: Any, num_agents: int | None) -> list[str]:
    """One kind of action per agent."""
    if isinstance(actions, str):
        count = (
            DEFAULT_AGENTS
            if num_agents is None
            else check(where, "num_agents", num_agents, whole(2))
        )
        return [check(where, "actions", actions, choice(KINDS))] * count
    kinds = list(actions) if isinstance(actions, Sequence) else []
    count = len(kinds) if num_agents is None else check(where, "num_agents", num_agents, whole(2))
    if len(kinds) < 2 or len(kinds) != count:
        raise ConfigError(
            f"{where}: actions={actions!r}, num_agents={num_agents}: expected one of {list(KINDS)} "
            "for all agents, or a list of one of them for each of at least 2 agents."
        )
    return [check(where, "actions", kind, choice(KINDS)) for kind in kinds]
