"""Errors of the command line: one clear message on stderr and exit code 2, no traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from hetmarl.conf.settings import known_keys
from hetmarl.conf.store import FILES
from hetmarl.typed import unknown_key
from hetmarl_envs.errors import HetmarlError, did_you_mean

EXIT_CODE = 2
FULL_ERROR = "HYDRA_FULL_ERROR"
_outside: list[str | None] = []  # the user's own value, while ours is set


@contextmanager
def clear_errors(arguments: Sequence[str] = ()) -> Iterator[None]:
    """Ends the program with a short message where the user can do something about it.

    ``HYDRA_FULL_ERROR=1`` shows the traceback as well. Errors that nobody foresaw keep theirs.

    Args:
        arguments: the command line, for suggestions.
    """
    try:
        yield
    except (HetmarlError, HydraException, OmegaConfBaseException) as error:
        if wants_traceback():
            raise
        message = str(error) if isinstance(error, HetmarlError) else rephrase(error, arguments)
        print(f"hetmarl: {message}", file=sys.stderr)
        raise SystemExit(EXIT_CODE) from error


@contextmanager
def hydra_raises() -> Iterator[None]:
    """Lets Hydra raise its errors, which it would otherwise print its own way and exit with 1."""
    _outside.append(os.environ.get(FULL_ERROR))
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        restore(FULL_ERROR, _outside.pop())


def wants_traceback() -> bool:
    """Whether the user set ``HYDRA_FULL_ERROR=1``."""
    return (_outside[0] if _outside else os.environ.get(FULL_ERROR)) == "1"


def restore(variable: str, value: str | None) -> None:
    """Sets an environment variable back, None: to not being there."""
    os.environ.pop(variable, None)
    if value is not None:
        os.environ[variable] = value


def rephrase(error: Exception, arguments: Sequence[str] = ()) -> str:
    """Hydra's error in terms of hetmarl's keys, with the nearest one."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error.missing_cfg_file, arguments)
    text = str(error)
    chosen = next((a.partition("=")[2] for a in arguments if a.startswith("algo=")), None)
    if match := re.search(r"Could not override '([^']*)'", text):
        key = match[1].partition("@")[0]
        if key == "experiment":
            return "an experiment is an addition, with a plus: +experiment=<name>."
        return str(unknown_key(key, known_keys(chosen)))
    if match := re.search(r"Could not append to config. An item is already at '([^']*)'", text):
        return f"'{match[1]}' exists already: write {match[1]}=… without the plus."
    if match := re.search(r"Error parsing override '(.*)'", text):
        return (
            f"cannot read '{match[1]}': expected key=value, such as seed=1, logger=[csv,wandb] or "
            "run_dir='runs/with spaces'."
        )
    if match := re.search(r"Ambiguous value for argument '([^=]*)=(.*)'", text):
        key, value = match.groups()
        return (
            f"'{key}={value}' has several values: add -m for one run after another, or write "
            f"{key}=[{value}] for a list."
        )
    lines = [line for line in text.splitlines() if line.strip()]
    cause = str(error.__cause__).splitlines()[0] if error.__cause__ else ""
    return " ".join([*lines[:1], cause]).strip() or type(error).__name__


def _missing_option(missing: str, arguments: Sequence[str]) -> str:
    missing = missing.removesuffix(".yaml")
    group, _, name = missing.partition("/")
    options = group_options(group, arguments)
    if not name or not options:
        return f"there is no configuration '{missing}'."
    shown = f"`hetmarl list {group}s` shows them all." if group in ("task", "algo") else ""
    shown = shown or f"There is: {', '.join(options)}."
    return f"unknown {group} '{name}'.{did_you_mean(name, options)} {shown}"


def group_options(group: str, arguments: Sequence[str] = ()) -> list[str]:
    """Options of a Hydra group: files of this package and of ``--config-dir``, and the store."""
    found: set[str] = set()
    for root in (FILES, *_config_dirs(arguments)):
        for file in (root / group).rglob("*.yaml"):
            found.add(file.relative_to(root / group).with_suffix("").as_posix())
    stored = ConfigStore.instance().repo.get(group, {})
    if isinstance(stored, Mapping):
        found.update(_leaves(stored))
    return sorted(found)


def _leaves(node: Mapping[str, object], prefix: str = "") -> Iterable[str]:
    for name, child in node.items():
        if isinstance(child, Mapping):
            yield from _leaves(child, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name.removesuffix('.yaml')}"


def _config_dirs(arguments: Sequence[str]) -> list[Path]:
    found = []
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            following = arguments[position + 1 : position + 2]
            found += [Path(value)] if equals else [Path(path) for path in following]
    return found
