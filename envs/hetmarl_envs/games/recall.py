"""Recall: what is seen at the start must be done at the end."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hetmarl_envs.contract import ActionSpace
from hetmarl_envs.games.base import GameEnv
from hetmarl_envs.options import check, whole


class RecallEnv(GameEnv):
    """Each agent sees one of ``cues`` signals in the first step, ``delay`` blank steps follow, and
    in the last step each must name its own. The team's reward, 0 until then, is the share of the
    agents who do.

    A team without memory gets 1/cues on average, with one 1. The episode *terminates* after
    ``delay + 2`` steps.

    Keys: ``("agents", "observation")`` ``[N, n, cues + 1]``, the signal one-hot in the first step
    and zeros after it, and 1 in the last place in the last step; ``"state"``
    ``[N, n·cues + delay + 2]``, everybody's signals one-hot and the step one-hot.

    Args:
        where: name of the task, for messages.
        num_agents: n, at least 2.
        cues: signals, and choices of every agent, at least 2.
        delay: blank steps, 0 or more.
        num_envs, seed, device: see ``GameEnv``.
    """

    def __init__(
        self,
        where: str = "games/recall",
        *,
        num_agents: int = 2,
        cues: int = 2,
        delay: int = 2,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
    ) -> None:
        check(where, "num_agents", num_agents, whole(2))
        self.cues = check(where, "cues", cues, whole(2))
        self.last = check(where, "delay", delay, whole(0)) + 1
        """Number of the last step, counted from 0."""
        super().__init__(
            where,
            [ActionSpace("discrete", choices=(cues,))] * num_agents,
            cues + 1,
            num_agents * cues + self.last + 1,
            num_envs=num_envs,
            seed=seed,
            device=device,
        )
        shown = torch.zeros(num_envs, num_agents, dtype=torch.int64, device=self.device)
        self._memory = {"shown": shown}

    @property
    def optimal_return(self) -> float:
        """Of a team that remembers."""
        return 1.0

    @property
    def memoryless_return(self) -> float:
        """The best expected return of policies of the present observation."""
        return 1.0 / self.cues

    def _begin(self, rows: Tensor) -> None:
        drawn = (self._uniform(*self._memory["shown"].shape) * self.cues).long()
        self._memory = {"shown": torch.where(rows.unsqueeze(-1), drawn, self._memory["shown"])}

    def _play(self, actions: list[Tensor]) -> tuple[Tensor, Tensor]:
        over = self._steps.squeeze(-1) == self.last
        right = torch.stack(actions, dim=-1) == self._memory["shown"]
        return right.double().mean(-1) * over, over

    def _look(self) -> dict[str, Tensor]:
        step = one_hot(self._steps.squeeze(-1), self.last + 2)[:, :-1]  # none after the last
        shown = one_hot(self._memory["shown"], self.cues)
        first, now = step[:, 0].view(-1, 1, 1), step[:, -1].view(-1, 1, 1)
        seen = torch.cat([shown * first, now.expand(-1, shown.shape[1], 1)], dim=-1)
        return {"observation": seen, "state": torch.cat([shown.flatten(1), step], dim=-1)}
