"""What batched environments, their sub-environments in rows, have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Composite

from hetmarl_envs.errors import ConfigError


def flag(shape: Sequence[int], device: torch.device | None) -> Categorical:
    """The spec of booleans ``[*shape]``."""
    return Categorical(2, shape=torch.Size(shape), dtype=torch.bool, device=device)


def done_spec(num_envs: int, device: torch.device | None) -> Composite:
    """``done``, ``terminated`` and ``truncated``, each ``[N, 1]``."""
    ends = {key: flag((num_envs, 1), device) for key in ("done", "terminated", "truncated")}
    return Composite(ends, shape=(num_envs,), device=device)


def rows_to_reset(tensordict: TensorDictBase | None, num_envs: int) -> Sequence[int]:
    """The rows that ``"_reset"`` of ``tensordict [N]`` names; all where it is missing."""
    mask = None if tensordict is None else tensordict.get("_reset", None)
    if mask is None:
        return range(num_envs)
    return mask.reshape(num_envs).nonzero().squeeze(-1).tolist()


def read_saved(
    saved: Mapping[str, Tensor], arrays: Mapping[str, NDArray[Any]], where: str
) -> dict[str, NDArray[Any]]:
    """Saved tensors as arrays, for an environment ``where`` that has ``arrays``.

    Raises:
        ConfigError: they have other names or shapes.
    """
    theirs = {key: tuple(tensor.shape) for key, tensor in saved.items()}
    ours = {key: array.shape for key, array in arrays.items()}
    if theirs != ours:
        raise ConfigError(
            f"{where}: the saved state holds {theirs}, this environment {ours}. Make it "
            "with the options that the saved one had."
        )
    return {key: tensor.cpu().numpy() for key, tensor in saved.items()}


def picture_of(
    index: int | Sequence[int], num_envs: int, draw: Callable[[int], NDArray[Any]], where: str
) -> NDArray[np.uint8]:
    """A picture of one row, or of several in a grid.

    Args:
        index: the row; or the rows, line by line of a grid that is as wide as high or one wider.
            What is left of its last line is black.
        num_envs: how many rows there are.
        draw: gives a row's picture, uint8 ``[H, W, 3]``.
        where: what the message calls the environment.

    Returns:
        Uint8 ``[H, W, 3]``; of ``k`` rows ``[lines · H, columns · W, 3]``, ``columns`` = ⌈√k⌉.

    Raises:
        ConfigError: no such row, or none at all.
    """
    rows = list(index) if isinstance(index, Sequence) else [index]
    if not rows or not all(0 <= row < num_envs for row in rows):
        several = ", or a list of them" if isinstance(index, Sequence) else ""
        raise ConfigError(f"{where}: index={index}, expected 0 to {num_envs - 1}{several}.")
    pictures = [draw(row) for row in rows]
    if not isinstance(index, Sequence):
        return pictures[0]
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = math.ceil(math.sqrt(len(rows)))
    grid = np.zeros((math.ceil(len(rows) / columns) * height, columns * width, 3), np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * height, i % columns * width
        grid[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return grid
