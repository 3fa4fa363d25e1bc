"""Arguments of the small commands: positions and ``key=value``, typed by a dataclass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import yaml

from hetmarl.conf.typed import build, field_names
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
            try:
                values[key] = yaml.safe_load(text)
            except yaml.YAMLError:
                values[key] = text
        elif argument.startswith("-"):
            known = ", ".join(f"{name}=…" for name in field_names(cls))
            raise ConfigError(f"unknown argument '{argument}'. Known: {known}.\n{usage}")
        else:
            positions.append(argument)
    return positions, build(cls, values)


def one_run(positions: Sequence[str], usage: str) -> str:
    """The only position, a run's directory; a ConfigError if there is none, or more."""
    if len(positions) != 1:
        given = f"{len(positions)} are given" if positions else "none is given"
        raise ConfigError(f"expected one run directory, {given}.\n{usage}")
    return positions[0]
