"""Player 2: what its map's script orders, and what units do by themselves.

SMAC's maps send their units off once: each marches to a point (``Scenario.goal``) and attacks what
it meets on the way (``march``). SMACv2's flat map looks every half second for units without an
order and has each attack the agent that is nearest then, armed or not (``hunt``). Such an order
holds until one of the two is dead, whoever else comes near or shoots.

By themselves, marching or without an order, units attack what comes near, and medivacs, whom no
script can order to attack, heal who is hurt near them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hetmarl_envs.sc2sim.combat import can_heal
from hetmarl_envs.sc2sim.world import Order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hetmarl_envs.sc2sim.world import Unit, World

PLAYER = 2
EVERY = 8
"""Loops, half a second, between two runs of the flat map's trigger. A unit whose target is out of
reach looks around as often."""
NEAR = 5.0
"""Cells, edge to edge, in which a unit finds something to attack or to heal by itself; its weapon's
range where that is longer."""


def march(world: World) -> None:
    """Orders of SMAC's maps: to the point (``Unit.goal``), attacking what comes near."""
    _heal(world)
    for unit, others in _fighters(world):
        if not _finds(world, unit, others) and unit.order is None and unit.goal is not None:
            unit.order = Order("move", *unit.goal)


def hunt(world: World) -> None:
    """Orders of SMACv2's map: those without one attack the nearest agent."""
    _heal(world)
    for unit, others in _fighters(world):
        order = unit.order
        if order is not None and order.told and order.target is not None and order.target.alive:
            continue
        if _finds(world, unit, others) or world.age % EVERY or not others:
            continue
        nearest = min(others, key=lambda other: math.hypot(other.x - unit.x, other.y - unit.y))
        if unit.kind.reaches(nearest.kind):  # otherwise the game does not take the order
            unit.order = Order("attack", target=nearest, told=True)


def choose_target(unit: Unit, others: Sequence[Unit]) -> Unit | None:
    """Whom a unit attacks by itself: the nearest of those near it, armed ones before the others."""
    weapon = unit.kind.weapon
    if weapon is None:
        return None
    around = max(weapon.range, NEAR)
    near = [
        other for other in others if unit.kind.reaches(other.kind) and unit.gap(other) <= around
    ]
    return min(near, key=lambda other: (other.kind.weapon is None, unit.gap(other)), default=None)


def _fighters(world: World) -> Iterator[tuple[Unit, list[Unit]]]:
    """Player 2's units that do not heal, each with the agents."""
    others = [unit for unit in world.units if unit.owner != PLAYER]
    for unit in world.units:
        if unit.owner == PLAYER and not unit.kind.heals:
            yield unit, others


def _heal(world: World) -> None:
    """Player 2's units that heal see to the nearest of those hurt near them."""
    for unit in world.units:
        if unit.owner == PLAYER and unit.kind.heals:
            hurt = [m for m in world.units if can_heal(unit, m) and m.health < m.kind.health]
            near = [patient for patient in hurt if unit.gap(patient) <= NEAR]
            patient = min(near, key=unit.gap, default=None)
            unit.order = None if patient is None else Order("heal", target=patient)


def _finds(world: World, unit: Unit, others: Sequence[Unit]) -> bool:
    """Whether a unit attacks something by itself; gives it the order."""
    order, weapon = unit.order, unit.kind.weapon
    target = None if order is None else order.target
    if order is not None and (target is None or target.alive):
        if target is not None and weapon is not None and unit.gap(target) <= weapon.range:
            return True
        if (world.age + unit.number) % EVERY:
            return target is not None
    target = choose_target(unit, others)
    unit.order = None if target is None else Order("attack", target=target)
    return target is not None
