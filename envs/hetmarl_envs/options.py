"""Checks of options, the same for all environments: what was given, what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hetmarl_envs.errors import ConfigError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """What an option may be.

    Args:
        expected: in the words of a message.
        fits: whether a value is one.
        choices: names among which a wrong one may have meant another.
    """

    expected: str
    fits: Callable[[Any], bool]
    choices: Sequence[str] = ()


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))
SECONDS = Kind("seconds > 0", lambda value: is_number(value) and value > 0)
ANYTHING = Kind("anything", lambda _: True)


def whole(least: int = 0) -> Kind:
    """A whole number of at least ``least``."""
    return Kind(
        f"a whole number of at least {least}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


def number(low: float = -math.inf, high: float = math.inf) -> Kind:
    """A number; a finite one from ``low`` to ``high``, both allowed, where one of them is given."""
    if (low, high) == (-math.inf, math.inf):
        return Kind("a number", is_number)
    bounds = f"from {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
    return Kind(
        f"a finite number {bounds}",
        lambda value: is_number(value) and math.isfinite(value) and low <= value <= high,
    )


def numbers(count: int) -> Kind:
    """A list of ``count`` numbers."""
    return Kind(
        f"a list of {count} numbers",
        lambda value: (
            isinstance(value, Sequence) and len(value) == count and all(map(is_number, value))
        ),
    )


def choice(choices: Sequence[str | None]) -> Kind:
    """One of ``choices``."""
    names = [name for name in choices if name is not None]
    return Kind(f"one of {list(choices)}", lambda value: value in choices, names)


def optional(kind: Kind) -> Kind:
    """A value of the kind, or None."""
    return Kind(f"{kind.expected}, or None", lambda value: value is None or kind.fits(value))


def like(default: Any) -> Kind:
    """What an option may be that is a flag, a whole number, a number or a text by default."""
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, int):
        return whole()
    if isinstance(default, float):
        return number()
    return TEXT if isinstance(default, str) else ANYTHING


def is_number(value: Any) -> bool:
    """Whether it is an int or a float, but neither a bool nor NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def check(where: str, option: str, value: T, kind: Kind, note: str = "") -> T:
    """Refuses a value that is not of the kind.

    Args:
        where: what the message calls the environment, such as ``"vmas/balance"``; may be empty.
        option: its name.
        value: as given.
        kind: what it may be.
        note: what the message says after what was expected.

    Returns:
        The value.

    Raises:
        ConfigError: it is not.
    """
    if kind.fits(value):
        return value
    given = f"{where}: {option}={value!r}," if where else f"{option}={value!r}:"
    hint = did_you_mean(str(value), kind.choices)
    raise ConfigError(f"{given} expected {kind.expected}{note}.{hint}")


def check_names(
    where: str, given: Iterable[str], known: Iterable[str], everywhere: Sequence[str] = ()
) -> None:
    """Refuses options that there are not, naming the nearest one.

    Args:
        where: what the message calls the environment.
        given: names of the options.
        known: the environment's own.
        everywhere: those that all tasks of its family have.

    Raises:
        ConfigError: one of them is not among its own.
    """
    own = list(known)
    for option in given:
        if option not in own:
            others = f"; every task's: {', '.join(everywhere)}" if everywhere else ""
            raise ConfigError(
                f"{where} has no option '{option}'.{did_you_mean(option, [*own, *everywhere])} "
                f"Options: {', '.join(own) or 'none'}{others}."
            )
