"""Which parts of an observation, or of the state, speak of things that are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hetmarl_envs.errors import ContractError


@dataclass(frozen=True)
class Entities:
    """``count`` things of a kind in a vector, ``width`` numbers each, one after another.

    An environment whose observations have such blocks says so by an attribute ``entities``: for
    each group a sequence with the blocks of each of its agents, and under ``"state"`` the blocks of
    the state. Networks may then treat things alike whatever their places
    (``network.entities=true``).

    Args:
        name: what they are, such as ``"enemies"``. A block of the state with the name of a group
            lists that group's agents, in the group's order.
        start: place of the first number.
        count: how many things there are room for.
        width: numbers of each; all zero where a thing is not there.
        choices: the choice that is about each thing, such as to attack it; empty: none is. In the
            state: the choice of any agent.
    """

    name: str
    start: int
    count: int
    width: int
    choices: tuple[int, ...] = ()

    @property
    def stop(self) -> int:
        """Place after the last number."""
        return self.start + self.count * self.width

    def rows(self, vector: Any) -> Any:
        """The things in a tensor ``[*B, O]``, ``[*B, count, width]``."""
        return vector[..., self.start : self.stop].unflatten(-1, (self.count, self.width))


def check_entities(
    blocks: tuple[Entities, ...], size: int, num_choices: int, where: str
) -> tuple[Entities, ...]:
    """``blocks`` of a vector of ``size`` numbers, seen to fit.

    Raises:
        ContractError: a block lies outside of the vector, two have numbers or their name in common,
            or their choices are not one of ``num_choices`` for each thing.
    """
    names = [block.name for block in blocks]
    if len(set(names)) < len(names):
        raise ContractError(f"entities of {where}: expected a name for each block, given {names}.")
    end = 0
    for block in sorted(blocks, key=lambda block: block.start):
        if block.count < 1 or block.width < 1 or block.start < end or block.stop > size:
            raise ContractError(
                f"entities of {where}: '{block.name}' are {block.count} things of {block.width} "
                f"numbers from {block.start} on, expected some within the {size} numbers, and "
                f"after the block before, which ends at {end}."
            )
        fits = len(block.choices) in (0, block.count)
        if not fits or any(not 0 <= choice < num_choices for choice in block.choices):
            raise ContractError(
                f"entities of {where}: '{block.name}' have choices {list(block.choices)}, expected "
                f"none or {block.count}, one for each thing, of the {num_choices} that there are."
            )
        end = block.stop
    return blocks
