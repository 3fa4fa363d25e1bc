"""Statistics of the units that SMAC's maps use: one table, from public data.

Sources:

* `sc2-techtree <https://github.com/Dentosal/sc2-techtree>`_, ``data/data.json`` of February 2019
  (game 4.8; MIT licence): ids, life, shields, armour, attributes, radii, speeds, sights, energy and
  weapons (damage, hits, bonuses, ranges, cooldowns).
* SMAC's map ``32x32_flat`` (``UnitData.xml``; MIT licence): regeneration, the radii that units
  leave each other, and where the agents' own ``*_RL`` units differ (``RL_CHANGES``).
* Not in these data, and not checked against a source but for the burst's radius: the baneling's
  burst, the line of a colossus, the medivac's healing, the random delay between attacks. They are
  what players' guides of game 4.10 are remembered to say.

Seconds are the data's, "normal" ones of 16 game loops; distances are in map cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

LOOPS_PER_SECOND = 16.0
SHIELD_REGENERATION = 2.0  # per second, once nothing has hit the unit for the delay
SHIELD_DELAY = 10.0  # seconds
ZERG_REGENERATION = 0.2734  # life per second
ENERGY_REGENERATION = 0.5625  # per second
HEAL_RATE = 9.0  # life per second
HEAL_ENERGY = 1.0 / 3.0  # energy per point of life
HEAL_RANGE = 4.0
RANDOM_DELAY = (-0.0625, 0.125)
"""Seconds, drawn anew for every attack and added to its cooldown."""

Race = Literal["terran", "protoss", "zerg"]
Layer = Literal["ground", "cliff", "air"]
"""Whom a unit bumps into: those of its own layer. A colossus ("cliff") steps over the others."""


@dataclass(frozen=True)
class Line:
    """Splash along a line through the target, at a right angle to the attack."""

    half_length: float
    half_width: float


@dataclass(frozen=True)
class Weapon:
    """What an attack does.

    Args:
        damage: per hit, before armour.
        range: between the edges of attacker and target.
        cooldown: seconds from one attack to the next.
        hits: of one attack; armour counts against each.
        bonus: attribute to extra damage per hit.
        air: whether it reaches flying units. Everything reaches a colossus.
        line: who else is hit, in full.
        burst: radius in which all are hit when the unit dies, which is how it attacks.
    """

    damage: float
    range: float
    cooldown: float
    hits: int = 1
    bonus: Mapping[str, float] = field(default_factory=dict)
    air: bool = False
    line: Line | None = None
    burst: float | None = None


@dataclass(frozen=True)
class UnitType:
    """A row of the table; ``collision`` is the radius that others of the layer cannot enter."""

    name: str
    type_id: int
    race: Race
    health: float
    shield: float
    armor: float
    attributes: frozenset[str]
    speed: float
    radius: float
    collision: float
    sight: float
    weapon: Weapon | None = None
    layer: Layer = "ground"
    energy: tuple[float, float] = (0.0, 0.0)
    """At the start and at most."""

    @property
    def heals(self) -> bool:
        """Whether it restores the life of others instead of attacking."""
        return self.energy[1] > 0.0

    @property
    def structure(self) -> bool:
        """Whether it stays where it stands."""
        return "structure" in self.attributes

    def reaches(self, other: UnitType) -> bool:
        """Whether its weapon can be aimed at a unit of the other type."""
        return self.weapon is not None and (other.layer != "air" or self.weapon.air)

    def damage_to(self, other: UnitType) -> float:
        """Damage per hit on a type of unit, bonuses included, before armour."""
        if self.weapon is None:
            return 0.0
        bonus = sum(self.weapon.bonus.get(attribute, 0.0) for attribute in other.attributes)
        return self.weapon.damage + bonus


def _row(
    name: str,
    type_id: int,
    race: Race,
    life: tuple[float, float, float],
    attributes: str,
    body: tuple[float, float, float, float],
    weapon: Weapon | None,
    layer: Layer = "ground",
    energy: tuple[float, float] = (0.0, 0.0),
) -> UnitType:
    health, shield, armor = life
    speed, radius, collision, sight = body
    return UnitType(
        name,
        type_id,
        race,
        health,
        shield,
        armor,
        frozenset(attributes.split()),
        speed,
        radius,
        collision,
        sight,
        weapon,
        layer,
        energy,
    )


_ROWS = (
    # name, id, race, (life, shields, armour), attributes, (speed, radius, collision, sight), weapon
    _row("baneling", 9, "zerg", (30, 0, 0), "biological", (2.5, 0.375, 0.375, 8),
         Weapon(20, 0.25, 0.833, bonus={"light": 15}, burst=2.2)),
    _row("colossus", 4, "protoss", (200, 150, 1), "armored mechanical massive",
         (2.25, 1.0, 0.5625, 10),
         Weapon(10, 7, 1.5, hits=2, bonus={"light": 5}, line=Line(1.4, 0.15)), "cliff"),
    _row("hydralisk", 107, "zerg", (90, 0, 0), "light biological", (2.25, 0.625, 0.375, 9),
         Weapon(12, 5, 0.825, air=True)),
    _row("marauder", 51, "terran", (125, 0, 1), "armored biological", (2.25, 0.5625, 0.375, 10),
         Weapon(10, 6, 1.5, bonus={"armored": 10})),
    _row("marine", 48, "terran", (45, 0, 0), "light biological", (2.25, 0.375, 0.375, 9),
         Weapon(6, 5, 0.8608, air=True)),
    _row("medivac", 54, "terran", (150, 0, 1), "armored mechanical", (2.5, 0.75, 0.75, 11),
         None, "air", (50, 200)),
    _row("stalker", 74, "protoss", (80, 80, 1), "armored mechanical", (2.9531, 0.625, 0.5, 10),
         Weapon(13, 6, 1.87, bonus={"armored": 5}, air=True)),
    _row("zealot", 73, "protoss", (100, 50, 1), "light biological", (2.25, 0.5, 0.375, 9),
         Weapon(8, 0.1, 1.2, hits=2)),
    _row("zergling", 105, "zerg", (35, 0, 0), "light biological", (2.9531, 0.375, 0.375, 8),
         Weapon(5, 0.1, 0.696)),
    _row("spinecrawler", 98, "zerg", (300, 0, 2), "armored biological structure",
         (0, 1.125, 1.125, 11), Weapon(25, 7, 1.85, bonus={"armored": 5})),
)  # fmt: skip

UNITS: Mapping[str, UnitType] = MappingProxyType({row.name: row for row in _ROWS})
"""Name to type, as player 2 has them."""

RL_CHANGES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"hydralisk": {"health": 80.0}, "medivac": {"speed": 2.75}}
)
"""Where the agents' units differ from the usual ones."""


def rl_unit(name: str, type_id: int) -> UnitType:
    """The agents' own version of a unit, which never attacks by itself."""
    changes: dict[str, float] = dict(RL_CHANGES.get(name, {}))
    return replace(UNITS[name], type_id=type_id, **changes)  # type: ignore[arg-type]
