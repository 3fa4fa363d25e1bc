"""What happens on the map: units, orders, and one game loop after another."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hetmarl_envs.sc2sim.combat import act, regenerate
from hetmarl_envs.sc2sim.movement import free_spot, separate
from hetmarl_envs.sc2sim.units import LOOPS_PER_SECOND, UnitType


@dataclass(frozen=True, slots=True)
class Order:
    """What a unit is about: ``"move"`` to a point, ``"attack"`` or ``"heal"`` another unit.

    ``told``: by a map's script, so that the unit does not look for anything better.
    """

    kind: str
    x: float = 0.0
    y: float = 0.0
    target: Unit | None = None
    told: bool = False


class Unit:
    """One unit on the map; rates are per game loop."""

    __slots__ = (
        "alive",
        "anchored",
        "cooldown",
        "energy",
        "goal",
        "health",
        "kind",
        "number",
        "order",
        "owner",
        "shield",
        "speed",
        "tag",
        "unhurt",
        "x",
        "y",
    )

    def __init__(
        self, tag: int, number: int, kind: UnitType, owner: int, x: float, y: float
    ) -> None:
        self.tag, self.number = tag, number
        self.kind, self.owner, self.x, self.y = kind, owner, x, y
        self.health, self.shield = float(kind.health), float(kind.shield)
        self.energy = float(kind.energy[0])
        self.speed = kind.speed / LOOPS_PER_SECOND
        self.cooldown = 0.0  # loops until it may attack again
        self.unhurt = math.inf  # loops since it was last hit
        self.order: Order | None = None
        self.goal: tuple[float, float] | None = None  # where its map's script sends it
        self.alive = True
        self.anchored = False  # stands and attacks: who walks into it gives way

    def gap(self, other: Unit) -> float:
        """Distance between the edges, negative where they overlap."""
        centres = math.hypot(other.x - self.x, other.y - self.y)
        return centres - self.kind.radius - other.kind.radius


Brain = Callable[["World"], None]


class World:
    """A rectangle of flat ground with units on it.

    What happens is a function of the commands since the map was last empty, and of the random
    delays between attacks. In one loop all units act at once: none gains by its place in a list.

    Args:
        width: cells from left to right.
        height: cells from bottom to top.
        brain: gives orders before every loop, as those of ``opponent`` to player 2.
        delays: draws the delays; None: there are none.
    """

    def __init__(
        self,
        width: float,
        height: float,
        brain: Brain | None = None,
        delays: random.Random | None = None,
    ) -> None:
        self.width, self.height, self.brain = width, height, brain
        self.delays = delays
        self.units: list[Unit] = []
        self.loop = 0
        self.age = 0
        """Loops since the map was last empty."""
        self._born: dict[int, int] = {}  # each player's units since then
        self._tag = 1 << 32  # the real game's are large numbers too; none is ever used twice

    def spawn(self, kind: UnitType, owner: int, x: float, y: float) -> Unit:
        """A new unit of a player at a point, or as near to it as there is room."""
        # player 2's formations are player 1's turned around: none has the better one
        turn = 0.0 if owner == 1 else math.pi
        x, y = free_spot(kind, x, y, self.units, self.width, self.height, turn)
        if not self.units:
            self.age, self._born = 0, {}
        self._tag += 1
        self._born[owner] = self._born.get(owner, 0) + 1
        unit = Unit(self._tag, self._born[owner], kind, owner, x, y)
        self.units.append(unit)
        return unit

    def kill(self, tags: Iterable[int]) -> None:
        """Removes units at once."""
        gone = set(tags)
        for unit in self.units:
            unit.alive = unit.alive and unit.tag not in gone
        self._bury()

    def find(self, tag: int) -> Unit | None:
        """The unit with a tag; None if it is dead or never was."""
        return next((unit for unit in self.units if unit.tag == tag), None)

    def step(self, loops: int) -> None:
        """Lets ``loops`` game loops pass."""
        for _ in range(loops):
            self.loop += 1
            if not self.units:
                continue
            self.age += 1
            if self.brain is not None:
                self.brain(self)
            act(self.units, self.delays)
            self._bury()
            separate(self.units, self.width, self.height)
            regenerate(self.units)

    def _bury(self) -> None:
        if not all(unit.alive for unit in self.units):
            self.units = [unit for unit in self.units if unit.alive]
