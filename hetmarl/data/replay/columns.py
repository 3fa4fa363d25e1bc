"""How the entries of a TensorDict stand side by side in rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from hetmarl.networks.body import HIDDEN
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.observation_index import ObservationIndex

Key = tuple[str, ...]
Rows = dict[str, Tensor]
"""``[*B, width]`` by the name of the dtype."""


class _Column(NamedTuple):
    key: Key
    dtype: str
    start: int
    stop: int
    shape: tuple[int, ...]


class Columns:
    """Entries ``[*B, ...]`` of some keys as one row ``[*B, width]`` per dtype, and back.

    A frame's entries stand together, so that one read finds what would take one per key.

    Args:
        example: data with these keys.
        keys: which; a key that the index puts together must be among them.
        index: puts observations together from the state: they take no columns of their own.
    """

    def __init__(
        self, example: TensorDictBase, keys: Sequence[Key], index: ObservationIndex | None = None
    ) -> None:
        self._index = index
        derived: list[Key] = []
        self.dtypes: dict[str, torch.dtype] = {}
        self.widths: dict[str, int] = {}
        if index is not None:
            derived = [(group, "observation") for group in index.groups]
            self._source = str(example[derived[0]].dtype).removeprefix("torch.")
            self.dtypes[self._source] = example[derived[0]].dtype
            self.widths[self._source] = index.width
            if index.state_dim:
                derived.append(("state",))
        self._columns: list[_Column] = []
        for key in keys:
            if key in derived:
                continue
            value = example[key]
            name = str(value.dtype).removeprefix("torch.")
            self.dtypes[name] = value.dtype
            shape = tuple(value.shape[example.batch_dims :])
            start = self.widths.get(name, 0)
            self.widths[name] = start + torch.Size(shape).numel()
            self._columns.append(_Column(key, name, start, self.widths[name], shape))

    @property
    def bytes(self) -> int:
        """Of one row."""
        return sum(self.widths[name] * dtype.itemsize for name, dtype in self.dtypes.items())

    def pack(self, data: TensorDictBase) -> Rows:
        """The rows ``[*B, width]`` of ``data [*B]``.

        Raises:
            ContractError: the index does not say what the observations are.
        """
        dims = data.batch_dims
        parts: dict[str, list[Tensor]] = {name: [] for name in self.widths}
        if self._index is not None:
            parts[self._source].append(self._index.compress(data))
        for column in self._columns:
            value = data.get(column.key)
            size = (*value.shape[:dims], column.stop - column.start)
            parts[column.dtype].append(value.reshape(size))
        return {
            n: found[0] if len(found) == 1 else torch.cat(found, -1) for n, found in parts.items()
        }

    def unpack(self, rows: Mapping[str, Tensor], into: dict[str, Any]) -> dict[str, Any]:
        """The entries of ``rows [*B, width]``, written into nested dicts.

        What the index puts together is new; the other entries are views of the rows.
        """
        if self._index is not None:
            source = rows[self._source]
            for group, observation in self._index.expand(source).items():
                into.setdefault(group, {})["observation"] = observation
            if self._index.state_dim:
                into["state"] = source[..., : self._index.state_dim]
        for key, dtype, start, stop, shape in self._columns:
            tree = into
            for name in key[:-1]:
                tree = tree.setdefault(name, {})
            tree[key[-1]] = rows[dtype][..., start:stop].unflatten(-1, shape or (1,))
            if not shape:
                tree[key[-1]] = tree[key[-1]].squeeze(-1)
        return into


def observed_keys(example: TensorDictBase, spec: TeamSpec) -> list[Key]:
    """Keys of what is there before acting: dead or alive, legal or not, what is remembered."""
    leaves = set(example.keys(True, True))
    names = ("observation", "alive", "action_mask")
    keys: list[Key] = [(group, name) for group in spec.groups for name in names]
    keys = [("state",), *keys]
    if HIDDEN in example.keys() and ("next", HIDDEN) in example.keys(True):
        keys += [(HIDDEN, str(name)) for name in example[HIDDEN].keys()]
    return [key for key in keys if key in leaves or (len(key) == 1 and key[0] in leaves)]
