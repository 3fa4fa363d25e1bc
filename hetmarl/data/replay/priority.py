"""Priorities of a replay's frames: a tree of sums that is drawn from and updated in few steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hetmarl_envs.errors import ConfigError

_FAN_OUT = 64
_EPSILON = 1e-6  # a frame whose error is zero is still drawn


class Priorities:
    """Proportional priorities pᵢ = (|δᵢ| + ε)^α of places, drawn with probability pᵢ/Σp.

    Schaul et al. 2016 (arXiv 1511.05952), sections 3.3 and 3.4. Places without a priority are
    never drawn; a new one gets the greatest priority that there ever was.

    Sums and least values stand in a tree with 64 children per node: four levels hold 10⁶ places,
    each level is one operation for a whole batch, on any device. (TorchRL's segment trees are a
    compiled extension, which not every build of torch can load, and know nothing of resuming.)

    Args:
        size: number of places.
        alpha: how much priorities matter; 0: not at all; typically .4 to .7.
        device: of the tree.
    """

    def __init__(self, size: int, alpha: float, device: torch.device | str = "cpu") -> None:
        if not alpha > 0:
            raise ConfigError(f"priority_alpha={alpha}: expected more than 0.")
        self.alpha = alpha
        self.greatest = 1.0
        """The greatest priority that there ever was."""
        self._sums: list[Tensor] = []
        self._least: list[Tensor] = []  # of the levels above the places
        while len(self._sums) < 2 or len(self._sums[-1]) > _FAN_OUT:
            size = -(-size // _FAN_OUT) * _FAN_OUT
            # double precision: the sum of 10⁶ priorities must still show the least of them
            self._sums.append(torch.zeros(size, dtype=torch.float64, device=device))
            if len(self._sums) > 1:
                self._least.append(torch.full_like(self._sums[-1], float("inf")))
            size //= _FAN_OUT

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(level.nbytes for level in (*self._sums, *self._least))

    @property
    def total(self) -> Tensor:
        """Σp."""
        return self._sums[-1].sum()

    def set_new(self, places: Tensor) -> None:
        """Gives ``places [B]`` the greatest priority."""
        self._set(places, self._sums[0].new_full(places.shape, self.greatest))

    def forget(self, places: Tensor) -> None:
        """``places [B]`` are not drawn any more."""
        self._set(places, self._sums[0].new_zeros(places.shape))

    def update(self, places: Tensor, td_error: Tensor) -> None:
        """Priorities of ``places [B]`` from ``td_error [B]``; of several for one the greatest."""
        priority = (td_error.to(self._sums[0]).abs() + _EPSILON) ** self.alpha
        if len(priority):
            self.greatest = max(self.greatest, float(priority.max()))
        self._set(places, priority)

    def _set(self, places: Tensor, priority: Tensor) -> None:
        self._sums[0].scatter_reduce_(0, places, priority, "amax", include_self=False)
        for level, least in enumerate(self._least):
            places = (places // _FAN_OUT).unique()
            sums = self._sums[level].view(-1, _FAN_OUT)[places]
            self._sums[level + 1][places] = sums.sum(1)
            least[places] = self._least_below(level, places)

    def _least_below(self, level: int, nodes: Tensor | slice) -> Tensor:
        """Least priority of the children, on ``level``, of ``nodes [M]`` on the next."""
        if level:
            return self._least[level - 1].view(-1, _FAN_OUT)[nodes].amin(1)
        priority = self._sums[0].view(-1, _FAN_OUT)[nodes]
        return torch.where(priority > 0, priority, float("inf")).amin(1)

    def draw(self, share: Tensor) -> Tensor:
        """The places ``[B]`` at which ``share [B]`` of the total is reached, from 0 to under 1."""
        mass = share.to(self._sums[0]) * self.total
        place = torch.zeros_like(mass, dtype=torch.long)
        for sums in reversed(self._sums):
            reached = sums.view(-1, _FAN_OUT)[place].cumsum(1)
            # rounding must not lead past the last child that has a priority
            mass = torch.minimum(mass, reached[:, -1].nextafter(mass.new_zeros(())))
            child = (reached <= mass.unsqueeze(1)).sum(1)
            below = reached.gather(1, (child - 1).clamp_min(0).unsqueeze(1)).squeeze(1)
            mass = torch.where(child > 0, mass - below, mass)
            place = place * _FAN_OUT + child
        return place

    def weight(self, places: Tensor, beta: float) -> Tensor:
        """Importance weights ``[B]``, the greatest of all places' being 1: (pᵢ/min p)^−β."""
        return (self._sums[0][places] / self._least[-1].min()) ** -beta

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go back to this moment, plain values and tensors."""
        # the sums too: added up in another order they would round otherwise
        return {
            "alpha": self.alpha,
            "greatest": self.greatest,
            "sums": [level.to("cpu", copy=True) for level in self._sums],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to the moment of ``state_dict``."""
        sizes = [len(level) for level in state["sums"]], [len(level) for level in self._sums]
        if state["alpha"] != self.alpha or sizes[0] != sizes[1]:
            raise ConfigError(
                f"the checkpoint's replay has priority_alpha={state['alpha']} and {sizes[0][0]} "
                f"places, this run's {self.alpha} and {sizes[1][0]}. Resume with the settings of "
                "the saved run."
            )
        self.greatest = state["greatest"]
        for sums, saved in zip(self._sums, state["sums"], strict=True):
            sums.copy_(saved)
        for level, least in enumerate(self._least):
            below = self._least_below(level, slice(None))
            least[: len(below)] = below
