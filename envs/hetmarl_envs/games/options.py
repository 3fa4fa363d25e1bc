"""Checks of the games' options: what was given, what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hetmarl_envs.errors import ConfigError, did_you_mean


def whole(where: str, option: str, value: Any, least: int) -> int:
    """A whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"{where}: {option}={value!r}, expected a whole number of at least {least}."
        )
    return value


def number(
    where: str, option: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> float:
    """A finite number from ``low`` to ``high``, both allowed."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high:
        raise ConfigError(
            f"{where}: {option}={value!r}, expected a finite number from {low:g} to {high:g}."
        )
    return float(value)


def flag(where: str, option: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {option}={value!r}, expected true or false.")
    return value


def choice(where: str, option: str, value: Any, choices: Sequence[str]) -> str:
    """One of ``choices``."""
    if value not in choices:
        raise ConfigError(
            f"{where}: {option}={value!r}, expected one of {list(choices)}."
            f"{did_you_mean(str(value), choices)}"
        )
    return str(value)
