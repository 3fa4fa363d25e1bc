"""The tasks: SMACv2's fifteen standard ones and SMAC's maps, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any

from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean
from hetmarl_envs.options import FLAG, TEXT, Kind, check, check_names, number, optional, whole

MAP_SIZE = 32
RACES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "terran": ("marine", "marauder", "medivac"),
        "protoss": ("stalker", "zealot", "colossus"),
        "zerg": ("zergling", "hydralisk", "baneling"),
    }
)
WEIGHTS = (0.45, 0.45, 0.1)
# No team consists of these alone.
NEVER_ALONE = {"terran": "medivac", "zerg": "baneling"}
SIZES = ((5, 5), (10, 10), (10, 11), (20, 20), (20, 23))

SMAC_MAPS = """3m 8m 25m 5m_vs_6m 8m_vs_9m 10m_vs_11m 27m_vs_30m MMM MMM2 2s3z 3s5z 3s5z_vs_3s6z
3s_vs_3z 3s_vs_4z 3s_vs_5z 1c3s5z 2m_vs_1z corridor 6h_vs_8z 2s_vs_1sc so_many_baneling bane_vs_bane
2c_vs_64zg""".split()

_SMACV2 = {
    f"{race}_{agents}_vs_{enemies}": (race, agents, enemies)
    for race in RACES
    for agents, enemies in SIZES
}
_SMAC = {name.lower(): name for name in SMAC_MAPS}

GAME_OPTIONS: Mapping[str, Kind] = MappingProxyType(
    {
        "step_mul": whole(1),
        "move_amount": number(),
        "difficulty": TEXT,
        "game_version": optional(TEXT),
        "obs_all_health": FLAG,
        "obs_own_health": FLAG,
        "obs_last_action": FLAG,
        "obs_pathing_grid": FLAG,
        "obs_terrain_height": FLAG,
        "obs_instead_of_state": FLAG,
        "obs_timestep_number": FLAG,
        "obs_own_pos": FLAG,
        "conic_fov": FLAG,
        "num_fov_actions": whole(),
        "state_last_action": FLAG,
        "state_timestep_number": FLAG,
        "reward_sparse": FLAG,
        "reward_only_positive": FLAG,
        "reward_death_value": number(),
        "reward_win": number(),
        "reward_defeat": number(),
        "reward_negative_scale": number(),
        "reward_scale": FLAG,
        "reward_scale_rate": number(),
        "use_unit_ranges": FLAG,
        "min_attack_range": number(),
        "fully_observable": FLAG,
        "prob_obs_enemy": number(),
        "heuristic_ai": FLAG,
        "heuristic_rest": FLAG,
    }
)
"""Arguments of ``smacv2``'s ``StarCraft2Env`` that a task may set, and what they may be."""
# What SMACv2's authors train with, where it differs from the package's defaults.
_STANDARD = {"use_unit_ranges": True, "min_attack_range": 2, "obs_own_pos": True}


def task_names() -> list[str]:
    """All tasks; SMAC's maps in lower case."""
    return [*_SMACV2, *_SMAC]


def game_arguments(
    task: str, options: Mapping[str, Any], capabilities: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Arguments of ``StarCraft2Env`` for a task, new objects at every call.

    Args:
        task: a name of ``task_names``.
        options: of ``GAME_OPTIONS``, in place of the defaults.
        capabilities: of SMACv2's tasks, added to ``capability_config``, such as
            ``{"attack": {"dist_type": "per_agent_uniform", "lower_bound": [0.7],
            "upper_bound": [1.0], "observe": True}}``.

    Raises:
        UnknownNameError: no such task.
        ConfigError: an option that there is not, one of the wrong type, or two that the game does
            not take together.
    """
    name = task.lower()
    if name not in _SMACV2 and name not in _SMAC:
        raise UnknownNameError(
            f"unknown task 'smacv2/{task}'.{did_you_mean(task, task_names())} "
            f"Known: {', '.join(task_names())}."
        )
    check_names(f"smacv2/{task}", options, GAME_OPTIONS)
    for option, value in options.items():
        check(f"smacv2/{task}", option, value, GAME_OPTIONS[option])
    if options.get("reward_sparse"):  # ±1 as it is, not divided by what damage and kills may give
        options = {"reward_scale": False, **options}
    if name in _SMAC:
        if capabilities:
            raise ConfigError(
                f"smacv2/{task} is a map of SMAC, whose teams are fixed: capabilities are for "
                "SMACv2's tasks, such as smacv2/terran_5_vs_5."
            )
        return {"map_name": _SMAC[name], **options}
    if "health" in (capabilities or {}) and not options.get("reward_only_positive", True):
        raise ConfigError(
            f"smacv2/{task}: reward_only_positive=False with the capability 'health', expected "
            "True: smacv2 counts no losses where health differs. Leave one of the two out."
        )
    race, agents, enemies = _SMACV2[name]
    teams: dict[str, Any] = {
        "dist_type": "weighted_teams",
        "unit_types": list(RACES[race]),
        "weights": list(WEIGHTS),
        "observe": True,
    }
    if race in NEVER_ALONE:
        teams["exception_unit_types"] = [NEVER_ALONE[race]]
    config = {
        "n_units": agents,
        "n_enemies": enemies,
        "team_gen": teams,
        "start_positions": {
            "dist_type": "surrounded_and_reflect",
            "p": 0.5,
            "map_x": MAP_SIZE,
            "map_y": MAP_SIZE,
        },
        **deepcopy(dict(capabilities or {})),
    }
    return {"map_name": f"10gen_{race}", "capability_config": config, **_STANDARD, **options}
