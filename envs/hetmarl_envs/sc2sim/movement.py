"""Walking, keeping apart, and finding room."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hetmarl_envs.sc2sim.units import UnitType
    from hetmarl_envs.sc2sim.world import Unit

GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))
SPIRAL = 0.4  # cells between neighbours on the spiral that is searched for room
SPOTS = 2000


def walk(unit: Unit, x: float, y: float, stop: float = 0.0) -> bool:
    """One loop of walking towards a point.

    Args:
        unit: it moves by its speed at most.
        x: where to.
        y: where to.
        stop: how far before the point it stops.

    Returns:
        Whether it has arrived.
    """
    dx, dy = x - unit.x, y - unit.y
    left = math.hypot(dx, dy)
    way = min(unit.speed, left - stop)
    if way > 0.0:
        unit.x += dx / left * way
        unit.y += dy / left * way
    return left - stop <= unit.speed


def separate(units: Sequence[Unit], width: float, height: float) -> None:
    """Pushes apart those of a layer that overlap, and keeps all on the map.

    Both give way by half; a unit that stands and attacks does not for one that walks, and a
    structure for nobody. All pushes are worked out before anyone is moved: who comes first in a
    list, or stands further left, has no advantage.
    """
    pushes: list[tuple[Unit, float, float]] = []
    ordered = sorted(units, key=_x)
    widest = max((unit.kind.collision for unit in units), default=0.0)
    for i, a in enumerate(ordered):
        reach = a.kind.collision + widest
        layer = a.kind.layer
        for j in range(i + 1, len(ordered)):
            b = ordered[j]
            dx = b.x - a.x
            if dx >= reach:
                break
            if b.kind.layer != layer:
                continue
            dy = b.y - a.y
            room = a.kind.collision + b.kind.collision
            if dx * dx + dy * dy < room * room:
                pushes += _push(a, b, dx, dy, room)
    for unit, px, py in pushes:
        unit.x += px
        unit.y += py
    for unit in units:
        edge = unit.kind.collision
        unit.x = min(max(unit.x, edge), width - edge)
        unit.y = min(max(unit.y, edge), height - edge)


def _x(unit: Unit) -> float:
    return unit.x


def _push(
    a: Unit, b: Unit, dx: float, dy: float, room: float
) -> Iterator[tuple[Unit, float, float]]:
    distance = math.hypot(dx, dy)
    if distance < 1e-6:  # one exactly on the other: some direction, always the same one
        angle = GOLDEN_ANGLE * (a.number + b.number)
        dx, dy, distance = math.cos(angle), math.sin(angle), 1.0
        overlap = room
    else:
        overlap = room - distance
    firm_a, firm_b = _firmness(a), _firmness(b)
    share_a = 0.5 if firm_a == firm_b else float(firm_a < firm_b)
    ux, uy = dx / distance, dy / distance
    if firm_a < 2:
        yield a, -ux * overlap * share_a, -uy * overlap * share_a
    if firm_b < 2:
        yield b, ux * overlap * (1.0 - share_a), uy * overlap * (1.0 - share_a)


def _firmness(unit: Unit) -> int:
    return 2 if unit.kind.structure else int(unit.anchored)


def free_spot(
    kind: UnitType,
    x: float,
    y: float,
    units: Sequence[Unit],
    width: float,
    height: float,
    turn: float = 0.0,
) -> tuple[float, float]:
    """The first point of a spiral around ``(x, y)`` at which a unit of this kind has room.

    ``turn``: of the spiral, in radians.
    """
    edge = kind.collision
    point = (x, y)
    for step in range(SPOTS):
        out, angle = SPIRAL * math.sqrt(step), GOLDEN_ANGLE * step + turn
        px, py = x + out * math.cos(angle), y + out * math.sin(angle)
        point = min(max(px, edge), width - edge), min(max(py, edge), height - edge)
        if all(_apart(kind, point, other) for other in units):
            break
    return point


def _apart(kind: UnitType, point: tuple[float, float], other: Unit) -> bool:
    if other.kind.layer != kind.layer:
        return True
    room = kind.collision + other.kind.collision
    return math.hypot(other.x - point[0], other.y - point[1]) >= room - 1e-9
