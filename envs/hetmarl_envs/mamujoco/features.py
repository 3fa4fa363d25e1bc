"""Numbers read from a batch of simulations: named blocks, and lists of places in them.

An observation is a list of features, a feature is (block, index), a block is an mjData field of all
simulations, possibly passed through a function. Every block in use is copied once per step into one
table ``[num_envs, width]``; all agents' observations are then gathers of columns from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hetmarl_envs.mamujoco.simulator import Array, Simulator


@dataclass(frozen=True)
class Block:
    """``function`` of the mjData field ``[num_envs, ...]``; without one the field itself."""

    field: str
    function: Callable[[Array], Array] | None = None

    def read(self, simulator: Simulator) -> Array:
        """The block's values ``[num_envs, width]``."""
        values = simulator.field(self.field)
        if self.function is not None:
            values = self.function(values)
        return values.reshape(simulator.num_envs, -1)


Feature = tuple[Block, int]  # the index may count from the block's end, as -1


def clip_1(values: Array) -> Array:
    return np.clip(values, -1.0, 1.0)


def clip_10(values: Array) -> Array:
    return np.clip(values, -10.0, 10.0)


QPOS, QVEL = Block("qpos"), Block("qvel")
QVEL_CLIPPED = Block("qvel", clip_10)
SIN, COS = Block("qpos", np.sin), Block("qpos", np.cos)
QFRC_ACTUATOR = Block("qfrc_actuator")
BODY_WIDTHS = {"cinert": 10, "cvel": 6, "cfrc_ext": 6}  # numbers per body


def span(block: Block, start: int, stop: int) -> tuple[Feature, ...]:
    """Features ``start`` up to, not including, ``stop`` of a block."""
    return tuple((block, i) for i in range(start, stop))


class FeatureTable:
    """The blocks that ``features`` name, side by side, read once per step.

    Args:
        simulator: where to read.
        features: every feature that anyone will look up.
        double: keep float64 instead of float32.
    """

    def __init__(
        self, simulator: Simulator, features: Iterable[Feature], double: bool = False
    ) -> None:
        self._simulator = simulator
        self._places: dict[Block, tuple[int, int]] = {}
        width = 0
        for block in dict.fromkeys(block for block, _ in features):
            size = block.read(simulator).shape[1]
            self._places[block] = (width, width + size)
            width += size
        dtype: Any = np.float64 if double else np.float32
        self._values = np.zeros((simulator.num_envs, width), dtype)
        self._tensor = torch.from_numpy(self._values)
        self._slices = [
            (block, self._values[:, start:stop]) for block, (start, stop) in self._places.items()
        ]

    def columns(self, features: Iterable[Feature]) -> list[int]:
        """The table's column of each feature."""
        columns = []
        for block, index in features:
            start, stop = self._places[block]
            column = start + index if index >= 0 else stop + index
            assert start <= column < stop, f"{block.field} has no element {index}"
            columns.append(column)
        return columns

    def read(self) -> Tensor:
        """The table ``[num_envs, width]`` as it stands now; the next call overwrites it."""
        for block, place in self._slices:
            place[...] = block.read(self._simulator)
        return self._tensor
