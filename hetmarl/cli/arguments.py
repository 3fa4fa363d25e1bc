"""Arguments of the small commands: positions and ``key=value``, typed by a dataclass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from hetmarl.typed import build, field_names
from hetmarl_envs.errors import ConfigError

T = TypeVar("T")


def parse(cls: type[T], arguments: Sequence[str], usage: str) -> tuple[list[str], T]:
    """Splits a command line into its positions and a dataclass of its ``key=value``.

    Args:
        cls: fields, types and ranges.
        arguments: what follows the command.
        usage: printed for ``-h`` and ``--help``, which then end the program.

    Raises:
        ConfigError: an unknown key or a value of the wrong type.
    """
    if "-h" in arguments or "--help" in arguments:
        print(usage)
        sys.exit(0)
    positions: list[str] = []
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if equals and key.isidentifier():
            values[key] = _value(argument, text)
        elif argument.startswith("-"):
            known = ", ".join(f"{name}=…" for name in field_names(cls))
            raise ConfigError(f"unknown argument '{argument}'. Known: {known}.\n{usage}")
        else:
            positions.append(argument)
    return positions, build(cls, values)


def _value(argument: str, text: str) -> Any:
    """As Hydra reads it, so that the same is a number in every command; else the text itself."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except OverrideParseException:
        return text
    return text if override.is_sweep_override() else override.value()


CONFIG_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
"""Hydra's flags that say where configurations are; each takes a value."""
_VALUED = (*CONFIG_FLAGS, "--cfg", "-c", "--package", "-p")


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line for Hydra as its flags and its overrides.

    Hydra reads no overrides behind a flag that comes after other overrides; a user may well write
    ``-m`` last.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        flags.append(argument)
        if argument in _VALUED:
            flags += [value for value in [next(rest, None)] if value is not None]
    return flags, overrides


def one_run(positions: Sequence[str], usage: str) -> str:
    """The only position, a run's directory; a ConfigError if there is none, or more."""
    if len(positions) != 1:
        given = f"{len(positions)} are given" if positions else "none is given"
        raise ConfigError(f"expected one run directory, {given}.\n{usage}")
    return positions[0]
