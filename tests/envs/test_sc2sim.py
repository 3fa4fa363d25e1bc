"""The simulated battles: each rule against what can be worked out by hand. No packages needed."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest

from hetmarl_envs.errors import ConfigError
from hetmarl_envs.sc2sim.combat import hurt
from hetmarl_envs.sc2sim.install import MARKER, install
from hetmarl_envs.sc2sim.opponent import EVERY, NEAR, choose_target, hunt, march
from hetmarl_envs.sc2sim.scenarios import FLAT_MAP, RL_TYPES, SCENARIOS
from hetmarl_envs.sc2sim.units import UNITS
from hetmarl_envs.sc2sim.world import Brain, Order, Unit, World

SIZE = 32.0


def empty(**options: object) -> World:
    return World(SIZE, SIZE, **options)  # type: ignore[arg-type]


def attack(unit: Unit, target: Unit) -> None:
    unit.order = Order("attack", target=target)


def lasting(world: World, name: str, owner: int, x: float, y: float, life: float = 1e6) -> Unit:
    """A unit that survives whatever is done to it."""
    unit = world.spawn(UNITS[name], owner, x, y)
    unit.health = life
    return unit


# ---------------------------------------------------------------------- movement
def test_a_second_of_walking_is_the_speed_and_the_end_is_exact() -> None:
    world = empty()
    marine = world.spawn(UNITS["marine"], 1, 5.0, 5.0)
    marine.order = Order("move", 5.0, 20.0)
    world.step(16)
    assert (marine.x, marine.y) == pytest.approx((5.0, 7.25))
    world.step(16 * 10)
    assert (marine.x, marine.y) == pytest.approx((5.0, 20.0), abs=1e-12)
    assert marine.order is None


def test_units_of_a_layer_part_and_others_pass() -> None:
    world = empty()
    marines = [world.spawn(UNITS["marine"], 1, 10.0 + 3 * i, 10.0) for i in range(4)]
    for marine in marines:
        marine.x, marine.y = 12.0, 12.0
    world.step(40)
    for a, b in itertools.combinations(marines, 2):
        assert math.hypot(a.x - b.x, a.y - b.y) >= 2 * 0.375 - 1e-3
    medivac = world.spawn(UNITS["medivac"], 1, marines[0].x, marines[0].y)
    colossus = world.spawn(UNITS["colossus"], 1, marines[0].x, marines[0].y)
    everyone = (*marines, medivac, colossus)
    before = [pytest.approx((unit.x, unit.y), abs=1e-6) for unit in everyone]
    world.step(1)
    assert [(unit.x, unit.y) for unit in everyone] == before


def test_who_stands_and_attacks_is_not_pushed_by_who_walks() -> None:
    world = empty()
    target = lasting(world, "marauder", 2, 10.0, 10.0)
    fighter = world.spawn(UNITS["marine"], 1, 12.0, 10.0)
    attack(fighter, target)
    walker = world.spawn(UNITS["zealot"], 1, 14.0, 10.0)
    walker.order = Order("move", 4.0, 10.0)
    world.step(30)
    assert (fighter.x, fighter.y) == (12.0, 10.0)
    assert walker.x >= 12.75 - 1e-6 or abs(walker.y - 10.0) > 0


def test_nobody_leaves_the_map() -> None:
    world = empty()
    marine = world.spawn(UNITS["marine"], 1, 1.0, 1.0)
    marine.order = Order("move", -10.0, -10.0)
    world.step(200)
    assert (marine.x, marine.y) == (0.375, 0.375)


def test_units_created_on_one_point_stand_side_by_side() -> None:
    world = empty()
    crowd = [world.spawn(UNITS["zergling"], 2, 16.0, 9.0) for _ in range(64)]
    for a, b in itertools.combinations(crowd, 2):
        assert math.hypot(a.x - b.x, a.y - b.y) >= 0.75 - 1e-6
    assert max(math.hypot(unit.x - 16.0, unit.y - 9.0) for unit in crowd) < 6.0


# ---------------------------------------------------------------------- attacks
def test_an_attack_begins_where_the_range_does() -> None:
    """10 cells between the edges less 5 of range, at 2.25/16 a loop: 36 loops, then a blow."""
    world = empty()
    marine = world.spawn(UNITS["marine"], 1, 5.0, 5.0)
    target = lasting(world, "marauder", 2, 5.0 + 10.0 + 0.375 + 0.5625, 5.0)
    attack(marine, target)
    world.step(36)
    assert target.health == 1e6
    assert marine.gap(target) == pytest.approx(5.0)
    world.step(1)
    assert target.health == 1e6 - (6 - 1)


@pytest.mark.parametrize(("name", "per_attack"), [("marine", 6 - 1), ("stalker", 13 + 5 - 1)])
def test_cooldowns_hold_on_average(name: str, per_attack: float) -> None:
    world = empty()
    attacker = world.spawn(UNITS[name], 1, 10.0, 10.0)
    target = lasting(world, "marauder", 2, 12.0, 10.0)
    attack(attacker, target)
    loops = 2000
    world.step(loops)
    period = UNITS[name].weapon.cooldown * 16  # type: ignore[union-attr]
    attacks = (1e6 - target.health) / per_attack
    assert attacks == 1 + math.floor((loops - 1) / period)


def test_damage_per_second_is_what_the_unit_pages_list() -> None:
    """Liquipedia counts "faster" seconds, 1.4 of which are one of the table's."""
    listed = {"marine": 9.8, "marauder": 9.3, "zealot": 18.6, "stalker": 9.7, "colossus": 18.7}
    for name, dps in listed.items():
        weapon = UNITS[name].weapon
        assert weapon is not None
        assert weapon.damage * weapon.hits / weapon.cooldown * 1.4 == pytest.approx(dps, abs=0.1)
    speeds = {"marine": 3.15, "stalker": 4.13, "zergling": 4.13, "medivac": 3.5}
    for name, speed in speeds.items():
        assert UNITS[name].speed * 1.4 == pytest.approx(speed, abs=0.01)


def test_armour_counts_against_each_hit() -> None:
    world = empty()
    zealot = world.spawn(UNITS["zealot"], 1, 10.0, 10.0)
    marauder = world.spawn(UNITS["marauder"], 2, 11.0, 10.0)
    attack(zealot, marauder)
    world.step(1)
    assert marauder.health == 125 - 2 * (8 - 1)


def test_shields_come_first_and_know_no_armour() -> None:
    world = empty()
    stalker = world.spawn(UNITS["stalker"], 2, 10.0, 10.0)
    hurt(stalker, 20.0)
    assert (stalker.shield, stalker.health) == (60.0, 80.0)
    stalker.shield = 5.0
    hurt(stalker, 20.0)
    assert (stalker.shield, stalker.health) == (0.0, 80.0 - (15.0 - 1.0))
    hurt(stalker, 1.2)
    assert stalker.health == 66.0 - 0.5, "armour leaves half a point of a hit"


def test_bonuses_are_against_attributes() -> None:
    assert UNITS["marauder"].damage_to(UNITS["stalker"]) == 20
    assert UNITS["marauder"].damage_to(UNITS["marine"]) == 10
    assert UNITS["colossus"].damage_to(UNITS["zergling"]) == 15
    assert UNITS["baneling"].damage_to(UNITS["marine"]) == 35


def test_blows_of_one_loop_fall_together() -> None:
    """Whoever comes first in a list must not win a duel by that."""
    world = empty()
    duel = [world.spawn(UNITS["marine"], 1 + i, 10.0 + 2 * i, 10.0) for i in range(2)]
    for unit, other in (duel, duel[::-1]):
        unit.health = 6.0
        attack(unit, other)
    world.step(1)
    assert world.units == []


def test_ground_weapons_do_not_reach_the_air_but_a_colossus() -> None:
    world = empty()
    marauder = world.spawn(UNITS["marauder"], 1, 10.0, 10.0)
    medivac = world.spawn(UNITS["medivac"], 2, 12.0, 10.0)
    attack(marauder, medivac)
    world.step(5)
    assert medivac.health == 150 and marauder.order is None
    for name in ("zealot", "marine", "stalker", "hydralisk"):
        assert UNITS[name].reaches(UNITS["colossus"])
        assert UNITS[name].reaches(UNITS["medivac"]) == (name != "zealot")


# ---------------------------------------------------------------------- splash
def test_a_colossus_burns_a_line_across_its_attack() -> None:
    world = empty()
    colossus = world.spawn(UNITS["colossus"], 1, 5.0, 16.0)
    at = {"target": (11.0, 16.0), "across": (11.0, 17.7), "too far": (11.0, 17.8 + 0.1)}
    at |= {"behind": (12.0, 16.0), "other side": (11.0, 14.3)}
    marines = {key: world.spawn(UNITS["marine"], 2, *place) for key, place in at.items()}
    friend = world.spawn(UNITS["marine"], 1, 11.0, 16.8)
    attack(colossus, marines["target"])
    world.step(1)
    alive = {unit.tag for unit in world.units}
    hit = {key for key, marine in marines.items() if marine.health < 45}
    assert hit == {"target", "across", "other side"}
    assert all(marines[key].health == 45 - 2 * 15 for key in hit)
    assert friend.health == 45 and len(alive) == 7


def test_a_baneling_bursts_once_on_all_enemies_around() -> None:
    world = empty()
    baneling = world.spawn(UNITS["baneling"], 1, 10.0, 10.0)
    near = lasting(world, "marauder", 2, 11.0, 10.0)
    edge = lasting(world, "marauder", 2, 10.0, 10.0 + 2.2 + 0.5625 - 0.01)
    outside = lasting(world, "marauder", 2, 10.0, 10.0 - 2.2 - 0.5625 - 0.01)
    friend = world.spawn(UNITS["zergling"], 1, 9.0, 10.0)
    attack(baneling, near)
    world.step(1)
    assert baneling not in world.units
    damaged = [1e6 - unit.health for unit in (near, edge, outside)]
    assert damaged == [20 - 1, 20 - 1, 0]
    assert friend.health == 35


def test_a_baneling_that_is_killed_bursts_and_may_set_off_the_next() -> None:
    world = empty()
    marine = world.spawn(UNITS["marine"], 1, 10.0, 10.0)
    first = world.spawn(UNITS["baneling"], 2, 11.5, 10.0)
    mine = world.spawn(UNITS["baneling"], 1, 12.5, 10.0)
    far = lasting(world, "zergling", 2, 14.6, 10.0)
    first.health, mine.health, marine.health = 1.0, 15.0, 100.0
    attack(marine, first)
    world.step(1)
    # the enemy's burst takes 35 of the marine and kills our baneling (20), which bursts on its turn
    assert marine.health == 65.0
    assert first not in world.units and mine not in world.units
    assert far.health == 1e6 - 35


# ---------------------------------------------------------------------- what comes back
def test_shields_come_back_ten_seconds_after_the_last_hit() -> None:
    world = empty()
    zealot = world.spawn(UNITS["zealot"], 1, 10.0, 10.0)
    hurt(zealot, 20.0)
    world.step(160)
    assert zealot.shield == 30.0
    world.step(16)
    assert zealot.shield == pytest.approx(32.0)
    world.step(16 * 60)
    assert zealot.shield == 50.0


def test_zerg_heal_by_themselves_and_others_do_not() -> None:
    world = empty()
    zergling = world.spawn(UNITS["zergling"], 1, 10.0, 10.0)
    marine = world.spawn(UNITS["marine"], 1, 20.0, 10.0)
    zergling.health = marine.health = 10.0
    world.step(160)
    assert zergling.health == pytest.approx(10.0 + 10 * 0.2734)
    assert marine.health == 10.0


def test_a_medivac_gives_nine_life_a_second_for_three_energy() -> None:
    world = empty()
    medivac = world.spawn(UNITS["medivac"], 1, 10.0, 10.0)
    patient = world.spawn(UNITS["marauder"], 1, 12.0, 10.0)
    patient.health = 25.0
    medivac.order = Order("heal", target=patient)
    world.step(32)
    assert patient.health == pytest.approx(25.0 + 2 * 9.0)
    assert medivac.energy == pytest.approx(50.0 - 2 * 3.0 + 2 * 0.5625)
    world.step(16 * 20)
    assert patient.health == 125.0, "never above its full life"
    energy = medivac.energy
    world.step(16)
    assert medivac.energy == pytest.approx(energy + 0.5625), "a healthy patient costs nothing"


def test_a_medivac_without_energy_heals_with_what_comes_back() -> None:
    world = empty()
    medivac = world.spawn(UNITS["medivac"], 1, 10.0, 10.0)
    patient = world.spawn(UNITS["marauder"], 1, 12.0, 10.0)
    medivac.energy, patient.health = 0.0, 1.0
    medivac.order = Order("heal", target=patient)
    world.step(161)
    assert patient.health == pytest.approx(1.0 + 10 * 0.5625 * 3)


def test_a_medivac_heals_living_friends_within_four_cells() -> None:
    world = empty()
    medivac = world.spawn(UNITS["medivac"], 1, 5.0, 10.0)
    patients = {
        "far": world.spawn(UNITS["marine"], 1, 5.0 + 4.0 + 0.75 + 0.375 + 0.2, 10.0),
        "enemy": world.spawn(UNITS["marine"], 2, 6.0, 10.0),
        "machine": world.spawn(UNITS["stalker"], 1, 7.5, 10.0),
    }
    for patient in patients.values():
        patient.health = 10.0
    for key in ("enemy", "machine"):
        medivac.order = Order("heal", target=patients[key])
        world.step(2)
        assert patients[key].health == 10.0 and medivac.order is None
    medivac.order = Order("heal", target=patients["far"])
    world.step(1)
    assert patients["far"].health == 10.0
    world.step(2)
    assert patients["far"].health > 10.0


# ---------------------------------------------------------------------- the opponent
def test_smacs_maps_send_their_units_to_a_point_attacking_what_comes_near() -> None:
    world = empty(brain=march)
    enemy = world.spawn(UNITS["marine"], 2, 25.0, 16.0)
    enemy.goal = (9.0, 16.0)
    aside = lasting(world, "marine", 1, 9.0, 16.0 + NEAR + 1.0)
    met = lasting(world, "marine", 1, 14.0, 19.0)
    world.step(16)
    assert enemy.x == pytest.approx(25.0 - 2.25)
    world.step(16 * 5)
    assert enemy.gap(met) == pytest.approx(5.0, abs=1.2), "it stops at whom it finds near"
    assert enemy.anchored and met.health < 1e6
    assert (met.x, met.y) == (14.0, 19.0), "agents do nothing by themselves"
    met.y = 31.0
    world.step(16 * 10)
    assert (enemy.x, enemy.y) == (pytest.approx(9.0), 16.0), "and goes on when it is gone"
    assert aside.health == 1e6, "who is not near is not sought"


def test_smacv2s_map_sends_those_without_an_order_after_the_nearest() -> None:
    world = empty(brain=hunt)
    enemy = world.spawn(UNITS["marine"], 2, 28.0, 16.0)
    medivac = lasting(world, "medivac", 1, 14.0, 16.0)
    far = lasting(world, "marine", 1, 4.0, 16.0)
    world.step(EVERY - 1)
    assert enemy.order is None and enemy.x == 28.0, "it waits for the trigger"
    world.step(1)
    assert enemy.order is not None and enemy.order.target is medivac, "nearest, armed or not"
    far.x, far.y = enemy.x - 2.0, enemy.y
    world.step(16 * 8)
    assert far.health == 1e6 and medivac.health < 1e6, "until one of the two is dead"
    world.kill([medivac.tag])
    far.x, far.y = enemy.x - 2.0, enemy.y
    world.step(2)
    assert enemy.order is not None and enemy.order.target is far, "by itself, without a trigger"


def test_an_order_that_the_game_does_not_take_leaves_a_unit_idle() -> None:
    world = empty(brain=hunt)
    marauder = world.spawn(UNITS["marauder"], 2, 28.0, 16.0)
    medivac = lasting(world, "medivac", 1, 14.0, 16.0)
    marine = lasting(world, "marine", 1, 10.0, 16.0)
    world.step(16 * 3)
    assert marauder.x == 28.0, "the nearest agent flies, which a marauder cannot shoot at"
    medivac.x = 4.0
    world.step(16)
    assert marauder.order is not None and marauder.order.target is marine


def test_units_choose_by_themselves_what_shoots_back_and_what_is_near() -> None:
    world = empty()
    enemy = world.spawn(UNITS["marine"], 2, 10.0, 10.0)
    medivac = world.spawn(UNITS["medivac"], 1, 11.0, 10.0)
    near = world.spawn(UNITS["marine"], 1, 13.0, 10.0)
    world.spawn(UNITS["marine"], 1, 14.0, 10.0)
    away = world.spawn(UNITS["marine"], 1, 10.0 + NEAR + 0.75 + 0.1, 10.0)
    assert choose_target(enemy, [u for u in world.units if u.owner == 1]) is near
    assert choose_target(enemy, [medivac]) is medivac
    assert choose_target(enemy, [away]) is None
    marauder = world.spawn(UNITS["marauder"], 2, 9.0, 10.0)
    assert choose_target(marauder, [medivac]) is None


@pytest.mark.parametrize("brain", [march, hunt])
def test_the_opponents_medivac_heals_near_it_and_goes_nowhere(brain: Brain) -> None:
    world = empty(brain=brain)
    medivac = world.spawn(UNITS["medivac"], 2, 28.0, 25.0)
    medivac.goal = (9.0, 16.0)
    patient = world.spawn(UNITS["marine"], 2, 28.0, 5.0)
    patient.health = 20.0
    world.step(16 * 2)
    assert (medivac.x, medivac.y) == (28.0, 25.0) and patient.health == 20.0
    patient.y = medivac.y - NEAR - medivac.kind.radius - patient.kind.radius + 0.1
    world.step(16 * 2)
    assert medivac.y < 25.0 and patient.health > 30.0


def test_equal_sides_under_equal_control_win_about_equally() -> None:
    """Neither formation nor place in a list decides, only chance does."""

    def both(world: World) -> None:
        hunt(world)
        others = [unit for unit in world.units if unit.owner == 2]
        for unit in world.units:
            order = unit.order
            if unit.owner == 2 or (order is not None and order.target in others):
                continue
            target = choose_target(unit, others)
            if target is None and world.age % EVERY == 0:
                target = min(others, key=unit.gap, default=None)
            if target is not None:
                attack(unit, target)

    wins = {1: 0, 2: 0}
    for seed in range(40):
        world = empty(brain=both, delays=random.Random(seed))
        for owner, x in ((1, 9.0), (2, 23.0)):
            for _ in range(3):
                world.spawn(UNITS["marine"], owner, x, 16.0)
        while len({unit.owner for unit in world.units}) == 2:
            world.step(8)
        for owner in {unit.owner for unit in world.units}:
            wins[owner] += 1
    assert min(wins.values()) >= 10, wins


# ---------------------------------------------------------------------- chance, maps
def fight(seed: int | None) -> list[float]:
    delays = None if seed is None else random.Random(seed)
    world = empty(brain=hunt, delays=delays)
    for i in range(4):
        world.spawn(UNITS["stalker"], 1, 9.0, 16.0)
        world.spawn(UNITS["zealot"], 2, 23.0, 12.0 + 2 * i)
    for unit in world.units:
        if unit.owner == 1:
            attack(unit, world.units[1])
    world.step(16 * 12)
    return [unit.health + unit.shield + unit.cooldown for unit in world.units]


def test_chance_is_the_seeds_alone() -> None:
    assert fight(1) == fight(1)
    assert fight(1) != fight(2)
    assert fight(None) == fight(None)


def test_random_delays_keep_to_their_bounds() -> None:
    world = empty(delays=random.Random(3))
    marine = world.spawn(UNITS["marine"], 1, 10.0, 10.0)
    target = lasting(world, "marauder", 2, 12.0, 10.0)
    attack(marine, target)
    world.step(16 * 500)
    attacks = (1e6 - target.health) / 5
    mean = 0.8608 + (0.125 - 0.0625) / 2
    assert attacks == pytest.approx(500 / mean, rel=0.01)
    assert 500 / (0.8608 + 0.125) < attacks < 500 / (0.8608 - 0.0625)


def test_an_episode_does_not_depend_on_those_before() -> None:
    def episode(world: World) -> list[tuple[float, float, float]]:
        world.spawn(UNITS["marine"], 1, 9.0, 16.0)
        for _ in range(5):
            world.spawn(UNITS["zergling"], 2, 23.0, 16.0)
        world.step(150)
        seen = [(unit.x, unit.y, unit.health) for unit in world.units]
        world.kill([unit.tag for unit in world.units])
        return seen

    world = empty(brain=hunt)
    first = episode(world)
    world.step(5)
    assert episode(world) == first
    assert first == episode(empty(brain=hunt))


def test_maps_hold_what_their_names_say() -> None:
    def counts(name: str) -> tuple[dict[str, int], dict[str, int]]:
        scenario = SCENARIOS[name]
        sides = [{s.name: s.count for s in side} for side in (scenario.agents, scenario.enemies)]
        return sides[0], sides[1]

    assert counts("3s5z_vs_3s6z") == ({"stalker": 3, "zealot": 5}, {"stalker": 3, "zealot": 6})
    assert counts("27m_vs_30m") == ({"marine": 27}, {"marine": 30})
    assert counts("1c3s5z")[0] == {"colossus": 1, "stalker": 3, "zealot": 5}
    assert counts(FLAT_MAP) == ({}, {})


def test_where_maps_send_their_units() -> None:
    goals = {name: scenario.goal for name, scenario in SCENARIOS.items()}
    assert goals["3s5z"] == goals["MMM2"] == (9.0, 16.0), "where the agents start"
    assert goals["corridor"] == goals["so_many_baneling"] == (4.47, 4.33), "past the agents"
    assert [name for name, goal in goals.items() if goal is None] == [FLAT_MAP, "2s_vs_1sc"]


def test_agents_units_have_the_ids_that_clients_count_on() -> None:
    assert [kind.name for kind in RL_TYPES.values()] == sorted(RL_TYPES)
    ids = [kind.type_id for kind in RL_TYPES.values()]
    assert ids == list(range(ids[0], ids[0] + 9))
    types = SCENARIOS["1c3s5z"].agent_types
    assert [types[name].type_id - types["colossus"].type_id for name in sorted(types)] == [0, 1, 2]
    assert RL_TYPES["hydralisk"].health == 80 and UNITS["hydralisk"].health == 90


# Copied from https://github.com/Dentosal/sc2-techtree (MIT licence), data/data.json of 2019-02-21,
# commit e46fe52: id, race, life, shields, armour, attributes, speed (0: missing there), radius,
# sight, and of the weapon damage, attacks, range, cooldown, bonuses, and what it reaches.
PUBLIC: dict[str, tuple[Any, ...]] = {
    "baneling": (9, "Zerg", 30, 0, 0, "Biological", 2.5, 0.375, 8, None),
    "colossus": (4, "Protoss", 200, 150, 1, "Armored Mechanical Massive", 2.25, 1, 10,
                 (10, 2, 7, 1.5, {"Light": 5}, "Ground")),
    "hydralisk": (107, "Zerg", 90, 0, 0, "Light Biological", 2.25, 0.625, 9,
                  (12, 1, 5, 0.824951171875, {}, "Any")),
    "marauder": (51, "Terran", 125, 0, 1, "Armored Biological", 2.25, 0.5625, 10,
                 (10, 1, 6, 1.5, {"Armored": 10}, "Ground")),
    "marine": (48, "Terran", 45, 0, 0, "Light Biological", 2.25, 0.375, 9,
               (6, 1, 5, 0.86083984375, {}, "Any")),
    "medivac": (54, "Terran", 150, 0, 1, "Armored Mechanical", 2.5, 0.75, 11, None),
    "stalker": (74, "Protoss", 80, 80, 1, "Armored Mechanical", 2.953125, 0.625, 10,
                (13, 1, 6, 1.8701171875, {"Armored": 5}, "Any")),
    "zealot": (73, "Protoss", 100, 50, 1, "Light Biological", 2.25, 0.5, 9,
               (8, 2, 0.10009765625, 1.199951171875, {}, "Ground")),
    "zergling": (105, "Zerg", 35, 0, 0, "Light Biological", 2.953125, 0.375, 8,
                 (5, 1, 0.10009765625, 0.696044921875, {}, "Ground")),
    "spinecrawler": (98, "Zerg", 300, 0, 2, "Armored Biological Structure", 0, 1.125, 11,
                     (25, 1, 7, 1.85009765625, {"Armored": 5}, "Ground")),
}  # fmt: skip


@pytest.mark.parametrize("name", UNITS)
def test_units_are_those_of_the_public_data(name: str) -> None:
    unit, (*public, their_weapon) = UNITS[name], PUBLIC[name]
    number, race, health, shield, armor, attributes, speed, radius, sight = public
    assert (unit.type_id, unit.race) == (number, race.lower())
    assert (unit.health, unit.shield, unit.armor) == (health, shield, armor)
    assert unit.attributes == {*attributes.lower().split()}
    assert (unit.speed, unit.radius, unit.sight) == pytest.approx((speed, radius, sight), abs=1e-4)
    if name == "medivac":
        assert unit.energy == (50, 200)
    if their_weapon is None:
        return  # the baneling's burst is not in these data
    weapon = unit.weapon
    damage, hits, reach, cooldown, bonuses, target = their_weapon
    assert weapon is not None
    assert (weapon.damage, weapon.hits) == (damage, hits)
    assert (weapon.range, weapon.cooldown) == pytest.approx((reach, cooldown), abs=2e-4)
    assert weapon.bonus == {key.lower(): value for key, value in bonuses.items()}
    assert weapon.air == (target == "Any")


# ---------------------------------------------------------------------- installation
def test_install_lays_out_what_clients_look_for(tmp_path: Path) -> None:
    root = install(tmp_path / "new")
    assert "simulated" in (root / MARKER).read_text()
    (binary,) = root.glob("Versions/Base*/SC2_x64")
    assert binary.stat().st_mode & 0o111
    maps = {path.stem for path in (root / "Maps" / "SMAC_Maps").iterdir()}
    assert maps == set(SCENARIOS)
    assert install(root) == root, "a second time it is renewed"


def test_install_never_touches_anything_else(tmp_path: Path) -> None:
    (tmp_path / "Versions").mkdir()
    with pytest.raises(ConfigError, match="not empty"):
        install(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        install(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Versions", "file"]
