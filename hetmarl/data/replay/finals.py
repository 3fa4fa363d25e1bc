"""The true final observations of finished episodes, wherever there is room."""

from __future__ import annotations

import torch
from torch import Tensor

from hetmarl.data.replay.columns import Rows


class Finals:
    """Rows at places that are used again when the frame they belong to is gone.

    There are few: one per episode. In files the arrays have room for the worst case, since there
    what is not written takes none; in memory they grow.

    Args:
        arrays: ``[M, width]`` by dtype.
    """

    def __init__(self, arrays: Rows) -> None:
        self.arrays = arrays
        self.taken = 0
        """Places that were ever taken."""
        self._free = torch.zeros(0, dtype=torch.long)

    def put(self, rows: Rows | None, gone: Tensor) -> Tensor:
        """Takes over ``rows [K, width]`` and returns their places ``[K]``.

        Args:
            rows: None: there are none.
            gone: places ``[L]`` that nobody needs any more.
        """
        count = 0 if rows is None else len(next(iter(rows.values())))
        free = torch.cat([self._free.to(gone.device), gone.long()])
        new = torch.arange(self.taken, self.taken + max(0, count - len(free)), device=gone.device)
        self.taken += len(new)
        self._grow()
        places = torch.cat([free[:count], new])
        self._free = free[count:]
        for name, array in self.arrays.items():
            if rows is not None:
                array[places] = rows[name].to(array.device)
        return places

    def _grow(self) -> None:
        for name, array in self.arrays.items():
            if len(array) < self.taken:
                larger = array.new_zeros(max(self.taken, 2 * len(array)), array.shape[1])
                larger[: len(array)] = array
                self.arrays[name] = larger

    def load(self, rows: Rows) -> None:
        """Has ``rows [K, width]`` at places 0 to K − 1 and nothing else."""
        self.taken, self._free = len(next(iter(rows.values()))), self._free[:0]
        self._grow()
        for name, array in self.arrays.items():
            array[: self.taken] = rows[name].to(array.device)

    def keep_only(self, places: Tensor) -> None:
        """Every place but ``places [K]`` may be taken."""
        self.taken = int(places.max()) + 1 if len(places) else 0
        free = torch.ones(self.taken, dtype=torch.bool, device=places.device)
        free[places] = False
        self._free = free.nonzero().squeeze(1)
