"""Observations as places in one vector per frame, for environments that can say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ContractError


class ObservationIndex:
    """Puts every agent's observation together from one *source* vector ``[*B, W]`` per frame.

    Where agents see parts of one body, a number is in many observations and in the state. An
    environment says so by its attribute ``observation_index``: for each group, which number of the
    source each observed number is, ``[n_g, O_g]``. The source begins with the state's S numbers
    (S = 0 without one). Places from S on are numbers that are observed and not in the state; each
    is read where it is first observed. What is stored once per frame is the source.

    Args:
        index: places ``[n_g, O_g]`` by group, as the environment gives them; groups may be left
            out.
        spec: the team.

    Raises:
        ContractError: a group, shape or place does not fit the team.
    """

    def __init__(self, index: Mapping[str, Tensor], spec: TeamSpec) -> None:
        self.groups = tuple(index)
        self.state_dim = spec.state_dim or 0
        self._names = {g: [spec.agents[i].name for i in m] for g, m in spec.groups.items()}
        self._shapes: list[tuple[int, int]] = []
        for group, places in index.items():
            members = spec.groups.get(group)
            shape = None
            if members is not None:
                shape = (len(members), *spec.agents[members[0]].observation_shape)
            if shape is None or len(shape) != 2 or tuple(places.shape) != shape:
                raise ContractError(
                    f"observation_index['{group}'] has shape {list(places.shape)}, expected "
                    f"[agents, observed numbers] of a group of the team with flat observations: "
                    f"{ {g: list(self._expected(spec, g)) for g in spec.groups} }."
                )
            self._shapes.append((shape[0], shape[1]))
        self._sizes = [agents * numbers for agents, numbers in self._shapes]
        self._ends = [sum(self._sizes[: i + 1]) for i in range(len(self._sizes))]
        # places are small numbers; int64 is what index_select takes
        self._places = torch.cat([places.flatten().long().cpu() for places in index.values()])
        self.width = max(self.state_dim, int(self._places.max()) + 1)
        """Numbers W of the source."""
        seen, first = torch.full((self.width,), -1), torch.arange(len(self._places)).flip(0)
        if int(self._places.min()) >= 0:
            seen[self._places.flip(0)] = first
        missing = (seen[self.state_dim :] < 0).nonzero().flatten() + self.state_dim
        if int(self._places.min()) < 0 or len(missing):
            raise ContractError(
                "observation_index: expected places from 0 on, those from "
                f"{self.state_dim} (the size of the state) without a gap; the least is "
                f"{int(self._places.min())}, and nobody observes {missing.tolist()[:5]}."
            )
        self._extras = seen[self.state_dim :]

    @staticmethod
    def _expected(spec: TeamSpec, group: str) -> tuple[int, ...]:
        members = spec.groups[group]
        return (len(members), *spec.agents[members[0]].observation_shape)

    def compress(self, data: TensorDictBase) -> Tensor:
        """The source ``[*B, W]`` of ``data [*B]``.

        Raises:
            ContractError: an observation is not, bit by bit, what the source says.
        """
        dims = data.batch_dims
        seen = [data.get((group, "observation")).flatten(dims) for group in self.groups]
        joint = seen[0] if len(seen) == 1 else torch.cat(seen, -1)
        parts = [] if self.state_dim == 0 else [data.get("state")]
        if len(self._extras):
            parts.append(joint.index_select(-1, self._extras.to(joint.device)))
        source = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        said = self._gather(source)
        if source.dtype != joint.dtype or not torch.equal(_bits(joint), _bits(said)):
            self._disagree(joint, said)
        return source

    def expand(self, source: Tensor) -> dict[str, Tensor]:
        """Every group's observations ``[*B, n_g, O_g]`` from ``source [*B, W…]``."""
        parts = self._gather(source).split(self._sizes, -1)
        return {
            group: part.unflatten(-1, shape)
            for group, part, shape in zip(self.groups, parts, self._shapes, strict=True)
        }

    def _gather(self, source: Tensor) -> Tensor:
        """All observations side by side, ``[*B, Σ n_g·O_g]``."""
        if self._places.device != source.device:
            self._places = self._places.to(source.device)
        flat = source.reshape(-1, source.shape[-1])  # twice as fast in two dimensions
        return flat.index_select(1, self._places).view(*source.shape[:-1], -1)

    def _disagree(self, told: Tensor, said: Tensor) -> None:
        wrong: Any = (told != said).flatten(0, -2).any(0).nonzero().flatten()
        place = int(wrong[0]) if len(wrong) else 0
        group = next(g for g, end in zip(self.groups, self._ends, strict=True) if place < end)
        at = self.groups.index(group)
        agent, number = divmod(place - self._ends[at] + self._sizes[at], self._shapes[at][1])
        raise ContractError(
            f"observation_index['{group}'][{agent}, {number}] says that number {number} of what "
            f"agent '{self._names[group][agent]}' observes is always a certain number of the "
            "state or of another observation; in the data it is not, bit by bit. Correct the "
            "environment's observation_index; where a transform changes observations, set "
            "env.observation_index = None on the transformed environment."
        )


def _bits(values: Tensor) -> Tensor:
    """As whole numbers: equal where all bits are, NaN and −0 among them."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(values.element_size(), torch.uint8)
    return values.contiguous().view(whole)
