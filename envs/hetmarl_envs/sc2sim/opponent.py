"""Player 2: every unit attacks its way towards the nearest agent, as SMAC's maps order it to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetmarl_envs.sc2sim.combat import can_heal
from hetmarl_envs.sc2sim.world import Order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hetmarl_envs.sc2sim.world import Unit, World

PLAYER = 2
THINK = 8
"""Loops from one look around to the next, half a second, as in the maps' trigger."""
ACQUIRE = 5.0
"""Cells at least in which a unit looks for something to attack on its way."""


def attack_move(world: World) -> None:
    """Gives orders to those of player 2 that have none, or whose target is out of reach."""
    mine = [unit for unit in world.units if unit.owner == PLAYER]
    others = [unit for unit in world.units if unit.owner != PLAYER]
    for unit in mine:
        order = unit.order
        idle = order is None or order.target is None or not order.target.alive
        if not idle and (world.age + unit.number) % THINK:
            continue
        if unit.kind.heals:
            unit.order = _support(unit, mine)
            continue
        weapon = unit.kind.weapon
        if not idle and weapon is not None and unit.gap(order.target) <= weapon.range:  # type: ignore[union-attr, arg-type]
            continue
        target = choose_target(unit, others)
        unit.order = None if target is None else Order("attack", target=target)


def choose_target(unit: Unit, others: Sequence[Unit]) -> Unit | None:
    """The nearest unit that it can attack; in its surroundings, armed ones before the others."""
    weapon = unit.kind.weapon
    if weapon is None:
        return None
    around = max(weapon.range, ACQUIRE)

    def rank(other: Unit) -> tuple[bool, bool, float]:
        gap = unit.gap(other)
        near = gap <= around
        return not near, near and other.kind.weapon is None, gap

    reachable = [other for other in others if unit.kind.reaches(other.kind)]
    return min(reachable, key=rank, default=None)


def _support(unit: Unit, friends: Sequence[Unit]) -> Order | None:
    """Heals the nearest hurt friend, or follows the nearest one that it could heal."""
    patients = [friend for friend in friends if can_heal(unit, friend)]
    hurt = [friend for friend in patients if friend.health < friend.kind.health]
    nearest = min(hurt or patients, key=unit.gap, default=None)
    return None if nearest is None else Order("heal", target=nearest)
