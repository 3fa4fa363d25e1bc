"""Orders carried out: attacks, splash, healing, and what heals by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hetmarl_envs.sc2sim.movement import walk
from hetmarl_envs.sc2sim.units import (
    ENERGY_REGENERATION,
    HEAL_ENERGY,
    HEAL_RANGE,
    HEAL_RATE,
    LOOPS_PER_SECOND,
    RANDOM_DELAY,
    SHIELD_DELAY,
    SHIELD_REGENERATION,
    ZERG_REGENERATION,
    Line,
    Weapon,
)

if TYPE_CHECKING:
    import random

    from hetmarl_envs.sc2sim.world import Unit

LEAST_DAMAGE = 0.5
"""Armour never takes more of a hit than this leaves."""


def act(units: Sequence[Unit], delays: random.Random | None = None) -> None:
    """One loop of everybody's orders, all at once: blows fall after everyone has acted.

    Args:
        units: all on the map.
        delays: draws what is added to each attack's cooldown; None: nothing.
    """
    blows: list[tuple[Unit, Unit]] = []
    for unit in units:
        if unit.cooldown > 0.0:
            unit.cooldown -= 1.0
        unit.anchored = False
        order = unit.order
        if order is None:
            continue
        target = order.target
        if order.kind == "move":
            if walk(unit, order.x, order.y):
                unit.order = None
        elif target is None or not target.alive:
            unit.order = None
        elif order.kind == "heal":
            _heal(unit, target)
        else:
            _attack(unit, target, blows, delays)
    for attacker, target in blows:
        _strike(attacker, target, units)
    _burst(units)


def _attack(
    unit: Unit, target: Unit, blows: list[tuple[Unit, Unit]], delays: random.Random | None
) -> None:
    weapon = unit.kind.weapon
    if weapon is None or not unit.kind.reaches(target.kind):
        unit.order = None
        return
    if unit.gap(target) > weapon.range + 1e-6:
        stop = weapon.range + unit.kind.radius + target.kind.radius
        walk(unit, target.x, target.y, stop)
        return
    unit.anchored = True
    if unit.cooldown <= 0.0:
        # the fraction of the last loop is not lost: attacks per second are the data's on average
        delay = 0.0 if delays is None else delays.uniform(*RANDOM_DELAY)
        unit.cooldown += (weapon.cooldown + delay) * LOOPS_PER_SECOND
        blows.append((unit, target))


def _heal(unit: Unit, target: Unit) -> None:
    """Life for energy, to living matter of one's own side."""
    if not can_heal(unit, target):
        unit.order = None
        return
    if unit.gap(target) > HEAL_RANGE + 1e-6:
        walk(unit, target.x, target.y, HEAL_RANGE + unit.kind.radius + target.kind.radius)
        return
    missing = target.kind.health - target.health
    given = min(HEAL_RATE / LOOPS_PER_SECOND, missing, unit.energy / HEAL_ENERGY)
    target.health += given
    unit.energy -= given * HEAL_ENERGY


def can_heal(unit: Unit, target: Unit) -> bool:
    """Whether the one may heal the other, hurt or not."""
    return (
        unit.kind.heals
        and target is not unit
        and target.owner == unit.owner
        and "biological" in target.kind.attributes
    )


# ---------------------------------------------------------------------- damage
def _strike(attacker: Unit, target: Unit, units: Sequence[Unit]) -> None:
    weapon = attacker.kind.weapon
    assert weapon is not None
    if weapon.burst is not None:
        attacker.alive = False  # which is how it attacks
        return
    _hit(attacker, target, weapon)
    if weapon.line is None:
        return
    for unit in units:
        if unit is target or unit.owner != target.owner or not attacker.kind.reaches(unit.kind):
            continue
        if in_line(attacker, target, unit, weapon.line):
            _hit(attacker, unit, weapon)


def _burst(units: Sequence[Unit]) -> None:
    """Those that burst in dying, by their own attack or another's, and whom that kills in turn."""
    waiting = [unit for unit in units if not unit.alive]
    while waiting:
        unit = waiting.pop(0)
        weapon = unit.kind.weapon
        if weapon is None or weapon.burst is None:
            continue
        for other in units:
            if other.owner == unit.owner or not unit.kind.reaches(other.kind):
                continue
            if math.hypot(other.x - unit.x, other.y - unit.y) > weapon.burst + other.kind.radius:
                continue
            lived = other.alive
            _hit(unit, other, weapon)
            if lived and not other.alive:
                waiting.append(other)


def _hit(attacker: Unit, victim: Unit, weapon: Weapon) -> None:
    for _ in range(weapon.hits):
        hurt(victim, attacker.kind.damage_to(victim.kind))


def hurt(unit: Unit, damage: float) -> None:
    """One hit: shields take it first and whole, life what is left of it less the armour."""
    absorbed = min(unit.shield, damage)
    unit.shield -= absorbed
    unit.unhurt = 0.0
    rest = damage - absorbed
    if rest > 0.0:
        unit.health -= max(LEAST_DAMAGE, rest - unit.kind.armor)
        if unit.health <= 0.0:
            unit.health = 0.0
            unit.alive = False


def in_line(attacker: Unit, target: Unit, unit: Unit, line: Line) -> bool:
    """Whether a unit's edge reaches the line through the target, across the attack."""
    dx, dy = target.x - attacker.x, target.y - attacker.y
    length = math.hypot(dx, dy)
    if length < 1e-6:
        dx, dy, length = 1.0, 0.0, 1.0
    ux, uy = dx / length, dy / length
    ox, oy = unit.x - target.x, unit.y - target.y
    along, across = abs(ox * ux + oy * uy), abs(oy * ux - ox * uy)
    radius = unit.kind.radius
    return along <= line.half_width + radius and across <= line.half_length + radius


# ---------------------------------------------------------------------- regeneration
def regenerate(units: Sequence[Unit]) -> None:
    """One loop of shields, life and energy coming back."""
    for unit in units:
        kind = unit.kind
        unit.unhurt += 1.0
        if unit.shield < kind.shield and unit.unhurt > SHIELD_DELAY * LOOPS_PER_SECOND:
            unit.shield = min(kind.shield, unit.shield + SHIELD_REGENERATION / LOOPS_PER_SECOND)
        if kind.race == "zerg" and unit.health < kind.health:
            unit.health = min(kind.health, unit.health + ZERG_REGENERATION / LOOPS_PER_SECOND)
        if kind.energy[1]:
            gain = ENERGY_REGENERATION / LOOPS_PER_SECOND
            unit.energy = min(kind.energy[1], unit.energy + gain)
