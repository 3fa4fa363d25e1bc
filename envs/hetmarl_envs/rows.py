"""What batched environments, their sub-environments in rows, have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
