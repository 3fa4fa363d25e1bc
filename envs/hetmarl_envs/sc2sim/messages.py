"""Parts of responses: units, the map, the list of types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hetmarl_envs.sc2sim.units import UnitType
from hetmarl_envs.sc2sim.world import Unit

SELF, ENEMY = 1, 4
VISIBLE = 1
_RACES = {"terran": 1, "zerg": 2, "protoss": 3}


def fill_unit(message: Any, unit: Unit) -> None:
    """Writes a ``raw_pb2.Unit``."""
    kind = unit.kind
    message.display_type = VISIBLE
    message.alliance = SELF if unit.owner == 1 else ENEMY
    message.tag = unit.tag
    message.unit_type = kind.type_id
    message.owner = unit.owner
    position = message.pos
    position.x, position.y = unit.x, unit.y
    message.radius = kind.radius
    message.build_progress = 1.0
    message.health, message.health_max = unit.health, kind.health
    if kind.shield:
        message.shield, message.shield_max = unit.shield, kind.shield
    if kind.energy[1]:
        message.energy, message.energy_max = unit.energy, kind.energy[1]
    message.weapon_cooldown = max(0.0, unit.cooldown)
    message.is_flying = kind.layer == "air"


def map_info(message: Any, size: int) -> None:
    """Writes a ``raw_pb2.StartRaw``: a square of flat ground, all of it walkable."""
    message.map_size.x = message.map_size.y = size
    message.playable_area.p1.x = message.playable_area.p1.y = size
    message.playable_area.p0.x = message.playable_area.p0.y = 0
    for grid, bits, data in (
        (message.pathing_grid, 1, b"\xff" * (size * size // 8)),
        (message.placement_grid, 1, bytes(size * size // 8)),
        (message.terrain_height, 8, b"\x7f" * (size * size)),
    ):
        grid.bits_per_pixel = bits
        grid.size.x = grid.size.y = size
        grid.data = data


def type_data(message: Any, types: Mapping[int, UnitType]) -> None:
    """Writes a ``ResponseData``: every id up to the last, those in between without a name.

    SMACv2 finds the agents' units by counting back from the end.
    """
    for type_id in range(max(types) + 1):
        kind = types.get(type_id)
        if kind is None:
            message.units.add(unit_id=type_id)
            continue
        message.units.add(
            unit_id=type_id,
            name=kind.name.capitalize(),
            available=True,
            race=_RACES[kind.race],
            movement_speed=kind.speed,
            armor=kind.armor,
            sight_range=kind.sight,
        )
