"""The maps of SMAX and their options."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hetmarl_envs.options import FLAG, check, check_names, choice, number, whole

MAPS = (
    "3m",
    "8m",
    "25m",
    "2s3z",
    "3s5z",
    "5m_vs_6m",
    "10m_vs_11m",
    "27m_vs_30m",
    "3s5z_vs_3s6z",
    "3s_vs_5z",
    "6h_vs_8z",
    "smacv2_5_units",
    "smacv2_10_units",
    "smacv2_20_units",
)
"""Those of ``jaxmarl``; one that a user registers there is a task too."""

OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "max_steps": 100,
        "won_battle_bonus": 1.0,
        "walls_cause_death": True,
        "see_enemy_actions": True,
        "enemy_shoots": True,
        "attack_mode": "closest",
    }
)
"""What may be set, and the defaults, which are ``jaxmarl``'s."""
_KINDS = {
    "max_steps": whole(1),
    "won_battle_bonus": number(0),
    "walls_cause_death": FLAG,
    "see_enemy_actions": FLAG,
    "enemy_shoots": FLAG,
    "attack_mode": choice(("closest", "random")),
}


def battle_options(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a battle, those that are ``given`` in place of the defaults.

    Raises:
        ConfigError: one that there is not, or a value that does not fit.
    """
    check_names(where, given, OPTIONS)
    for option, value in given.items():
        check(where, option, value, _KINDS[option])
    return {**OPTIONS, **given}
