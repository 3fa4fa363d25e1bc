"""The maps of SMAX and their options."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hetmarl_envs.errors import ConfigError, did_you_mean

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
ATTACK_MODES = ("closest", "random")


def battle_options(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a battle, those that are ``given`` in place of the defaults.

    Raises:
        ConfigError: one that there is not, or a value that does not fit.
    """
    for option, value in given.items():
        if option not in OPTIONS:
            raise ConfigError(
                f"{where} has no option '{option}'.{did_you_mean(option, OPTIONS)} "
                f"Options: {', '.join(OPTIONS)}."
            )
        default = OPTIONS[option]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if isinstance(default, bool):
            fits, expected = isinstance(value, bool), "true or false"
        elif isinstance(default, int):
            fits = number and isinstance(value, int) and value >= 1
            expected = "a whole number of at least 1"
        elif isinstance(default, float):
            fits, expected = number and 0 <= value < float("inf"), "a finite number from 0"
        else:
            fits, expected = value in ATTACK_MODES, f"one of {list(ATTACK_MODES)}"
        if not fits:
            raise ConfigError(f"{where}: {option}={value!r}, expected {expected}.")
    return {**OPTIONS, **given}
