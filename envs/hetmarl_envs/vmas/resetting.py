"""First states of episodes, made in one go and dealt out one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hetmarl_envs.vmas import graph
from hetmarl_envs.vmas.agents import Team
from hetmarl_envs.vmas.simulator import observe

if TYPE_CHECKING:
    from vmas.simulator.environment import Environment

MIN_FRESH = 64


def fresh_size(num_envs: int) -> int:
    """How many first states to make at a time: never ``num_envs``, see ``graph.RowCopier``."""
    return max(num_envs + 1, MIN_FRESH + (num_envs == MIN_FRESH))


class FreshRows:
    """Starts new episodes in some sub-environments of a simulator.

    A second simulator of the same scenario is reset as a whole whenever all its rows were dealt,
    so that one vectorised reset serves as many finished episodes as it has rows. Resetting them
    one by one, ``reset_at``, costs a whole vectorised reset for each.

    Args:
        simulator: whose episodes end.
        fresh: the second one, of ``fresh_size`` sub-environments, stepped once.
        team: whose observations to return.
    """

    def __init__(self, simulator: Environment, fresh: Environment, team: Team) -> None:
        self._simulator, self._fresh, self._team = simulator, fresh, team
        self.size: int = fresh.num_envs
        self._copier = graph.RowCopier(simulator.scenario, fresh.scenario)
        # VMAS's scenarios are tested for rows that depend on what the whole batch shares, such as
        # a position in a ring buffer; others' are copied only while nothing shared differs
        self._tested = type(simulator.scenario).__module__.startswith("vmas.")
        self.discard()

    def discard(self) -> None:
        """Forgets the rows that are left."""
        self._next = self.size
        self._observation: dict[str, Tensor] = {}
        self.compare_again()

    def compare_again(self) -> None:
        """To be called when state that all sub-environments share may have changed."""
        self._alike: bool | None = None

    def deal(self, rows: Tensor) -> dict[str, Tensor] | None:
        """Puts fresh first states into ``rows`` of the simulator.

        Args:
            rows: sub-environments ``[k]``.

        Returns:
            Their observations ``[k, n_g, O_g]`` per group, or None where rows cannot be copied.
        """
        if not self._copier.provable():
            return None
        if not self._tested:
            self.compare_again()
        parts: list[dict[str, Tensor]] = []
        while len(rows) > 0:
            if self._next == self.size:
                self._observation = self._team.stack(self._fresh._reset())
                self._next = 0
                self.compare_again()
            if self._alike is None:
                self._alike = not self._copier.shared_state_differs()
            if not self._alike and not self._tested:
                return None
            count = min(len(rows), self.size - self._next)
            now, rows = rows[:count], rows[count:]
            source = torch.arange(self._next, self._next + count, device=now.device)
            if not self._copier.copy(now, source):
                return None
            self._next += count
            if self._alike:
                parts.append({g: o.index_select(0, source) for g, o in self._observation.items()})
            else:
                parts.append(self._look(now))
        return {group: torch.cat([part[group] for part in parts]) for group in parts[0]}

    def reset_one_by_one(self, rows: Tensor) -> dict[str, Tensor]:
        """The same as VMAS does it, for where rows cannot be copied."""
        for row in rows.tolist():
            self._simulator.scenario.env_reset_world_at(row)
        return self._look(rows)

    def _look(self, rows: Tensor) -> dict[str, Tensor]:
        """The simulator's present observations of some sub-environments."""
        stacked = self._team.stack(observe(self._simulator))
        return {group: value.index_select(0, rows) for group, value in stacked.items()}

    def state_dict(self) -> dict[str, Any]:
        """The simulator with the rows that are left, as tensors and plain values."""
        return {
            "simulator": graph.save(self._fresh.scenario),
            "next": self._next,
            "alike": self._alike,
            "observation": {group: value.clone() for group, value in self._observation.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        graph.load(self._fresh.scenario, state["simulator"])
        self._next = state["next"]
        device = self._fresh.device
        self._observation = {g: o.to(device, copy=True) for g, o in state["observation"].items()}
        # kept, not found anew: observations from either simulator may differ in their last bits
        self._alike = state["alike"]
