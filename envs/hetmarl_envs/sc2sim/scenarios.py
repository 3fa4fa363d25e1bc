"""What stands on SMAC's maps, by the file's name: the teams, and where they start.

Numbers and places are those of the maps' own scripts (``MapScript.galaxy``, ``Objects``). Every map
is flat, open ground of 32 by 32 cells here: cliffs, ramps and the narrow way of ``corridor`` are
left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hetmarl_envs.sc2sim.units import UNITS, UnitType, rl_unit

SIZE = 32
FIRST_RL_ID = 128
"""Ids below are the game's own; the nine units of agents come last, in the order of their names."""
RL_NAMES = tuple(sorted(name for name in UNITS if name != "spinecrawler"))
FLAT_MAP = "32x32_flat"
"""SMACv2's map: empty until the client creates units."""


@dataclass(frozen=True)
class Squad:
    """Units of one type that start at one point."""

    count: int
    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Scenario:
    """A map: what player 1, the agents, and player 2 start with, and the point that the latter's
    units attack their way to; None: they stay, or are ordered otherwise."""

    name: str
    agents: tuple[Squad, ...] = ()
    enemies: tuple[Squad, ...] = ()
    goal: tuple[float, float] | None = None

    @property
    def agent_types(self) -> dict[str, UnitType]:
        """The agents' units: on SMAC's own maps their ids follow each other without gaps."""
        if not self.agents:
            return dict(RL_TYPES)
        names = sorted({squad.name for squad in self.agents})
        return {name: rl_unit(name, FIRST_RL_ID + i) for i, name in enumerate(names)}


RL_TYPES: Mapping[str, UnitType] = MappingProxyType(
    {name: rl_unit(name, FIRST_RL_ID + i) for i, name in enumerate(RL_NAMES)}
)

_LETTERS = {"m": "marine", "z": "zealot", "s": "stalker", "c": "colossus"}
_LEFT, _RIGHT, _CORNER = (9.0, 16.0), (23.0, 16.0), (4.47, 4.33)


def _squads(text: str, at: tuple[float, float]) -> tuple[Squad, ...]:
    """Reads ``"3 stalker, 5 zealot"``, a squad's own place behind an @: ``"1 marine @13;12"``."""
    squads = []
    for part in text.split(", "):
        count, name, *place = part.split(" ")
        x, y = map(float, place[0].removeprefix("@").split(";")) if place else at
        squads.append(Squad(int(count), name, x, y))
    return tuple(squads)


def _symmetric(name: str) -> Scenario:
    """A map whose name says it all, ``3s5z`` or ``5m_vs_6m``, left against right."""
    sides = []
    for side in name.split("_vs_"):
        found = re.findall(r"(\d+)([a-z])", side)
        sides.append(", ".join(f"{count} {_LETTERS[letter]}" for count, letter in found))
    return Scenario(name, _squads(sides[0], _LEFT), _squads(sides[-1], _RIGHT), _LEFT)


def _placed(name: str, agents: str, enemies: str, goal: tuple[float, float] | None) -> Scenario:
    return Scenario(name, _squads(agents, _LEFT), _squads(enemies, _RIGHT), goal)


_NAMED = """3m 8m 25m 5m_vs_6m 8m_vs_9m 10m_vs_11m 27m_vs_30m 2s3z 3s5z 3s5z_vs_3s6z 1c3s5z
3s_vs_3z 3s_vs_4z 3s_vs_5z"""
_ALL = (
    Scenario(FLAT_MAP),
    *map(_symmetric, _NAMED.split()),
    _placed(
        "MMM", "7 marine, 2 marauder, 1 medivac", "7 marine, 2 marauder, 1 medivac", _LEFT
    ),
    _placed(
        "MMM2", "7 marine, 2 marauder, 1 medivac", "8 marine, 3 marauder, 1 medivac", _LEFT
    ),
    _placed("2m_vs_1z", "1 marine @13;12, 1 marine @19;12", "1 zealot @16;19", (16, 12)),
    _placed("2s_vs_1sc", "1 stalker @11.12;10.34, 1 stalker @16.98;10.37",
            "1 spinecrawler @13.92;20.04", None),
    _placed("6h_vs_8z", "6 hydralisk @14.6;9.49", "8 zealot @14.41;16.76", (14.6, 9.49)),
    _placed("2c_vs_64zg", "2 colossus @16;16", "64 zergling @16;9", (16, 16)),
    _placed("corridor", "6 zealot @19.04;19.12", "24 zergling @27.91;28.24", _CORNER),
    _placed("so_many_baneling", "7 zealot @11.47;12.02", "32 baneling @27.91;28.24", _CORNER),
    _placed("bane_vs_bane", "20 zergling @16;11, 4 baneling @16;8",
            "20 zergling @16;21, 4 baneling @16;24", (16, 8)),
)  # fmt: skip

SCENARIOS: Mapping[str, Scenario] = MappingProxyType({each.name: each for each in _ALL})
"""Map's name to what stands on it."""
