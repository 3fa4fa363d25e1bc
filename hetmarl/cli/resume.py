"""Going on with a run: its saved settings, what the command line changes, what it must not."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from hetmarl.cli.run_dir import LAST, read_config
from hetmarl_envs.errors import ConfigError

_GROUPS = ("algo", "task", "network")
_ABSENT = "nothing"

# What the state that is taken up was made with: another value would make another run.
_FIXED = ["task", "algo.name", "algo._target_", "network", "seed", "num_envs", "data"]
_FIXED += ["trainer.devices", "trainer.num_nodes", "trainer.precision"]
# The replay keeps as many frames back as lie between two checkpoints.
_INTERVALS = ["checkpoint.interval_frames", "eval.interval_frames"]
# What a run looks like, not what it computes.
_SILENT = ("resume", "run_dir", "trainer.enable_progress_bar", "trainer.enable_model_summary")


def find_checkpoint(resume: str, run_dir: str | None) -> tuple[Path, Path]:
    """The run directory and checkpoint that ``resume`` means.

    Args:
        resume: ``"last"``, a run directory, or a checkpoint in one.
        run_dir: as set, if it is.

    Raises:
        ConfigError: there is none, or ``run_dir`` is another run's.
    """
    if resume == "last":
        if run_dir is None:
            raise ConfigError("resume=last goes on in a run_dir: set run_dir=<that run's>.")
        directory = Path(run_dir)
        checkpoint = directory / LAST
    else:
        given = Path(resume)
        if not given.exists():
            raise ConfigError(
                f"resume={resume}: expected 'last', a run directory or a checkpoint; there is no "
                "such file."
            )
        directory = given if given.is_dir() else given.parent.parent
        checkpoint = given / LAST if given.is_dir() else given
        if run_dir is not None and Path(run_dir).resolve() != directory.resolve():
            raise ConfigError(
                f"resume={resume} goes on in its own directory, not in run_dir={run_dir}. Leave "
                "run_dir out; to keep the old state, copy the directory first."
            )
    read_config(directory)  # its message is the better one where there is no run at all
    if not checkpoint.is_file():
        raise ConfigError(
            f"{directory} has no {LAST}: the run ended before its first checkpoint. Start it again "
            "in another run_dir."
        )
    return directory, checkpoint


def continued(
    saved: Mapping[str, Any], composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """The saved settings with what the command line sets.

    Choosing the same algorithm or task again keeps its saved values. An experiment sets many keys
    at once: with one, everything is taken from the command line's composition.

    Args:
        saved: the run's ``config.yaml``.
        composed: what the command line alone would give.
        overrides: the command line, ``key=value`` each.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = [override.key_or_group for override in parsed]
    if any(key.partition("/")[0] == "experiment" for key in keys):
        return copy.deepcopy(dict(composed))
    merged = copy.deepcopy(dict(saved))
    for override, key in zip(parsed, keys, strict=True):
        if key in _GROUPS and _name(saved, key) == override.value():
            continue
        if key.partition(".")[0] not in ("hydra", "run_dir", "resume"):
            _set(merged, key.split("."), _get(composed, key.split(".")))
    return merged


def changes(saved: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ and matter, each with the saved and the new value.

    Raises:
        ConfigError: one of them makes going on exactly impossible.
    """
    before, after = dict(_flat(saved)), dict(_flat(new))
    differing = {
        key: (before.get(key, _ABSENT), after.get(key, _ABSENT))
        for key in dict.fromkeys([*before, *after])
        if before.get(key, _ABSENT) != after.get(key, _ABSENT) and key not in _SILENT
    }
    own_interval = before.get("checkpoint.interval_frames") is not None
    fixed = _FIXED + (_INTERVALS[:1] if own_interval else _INTERVALS)
    refused = [key for key in differing if any(key == f or key.startswith(f"{f}.") for f in fixed)]
    if refused:
        listed = "; ".join(
            f"{key}={differing[key][1]} (the run has {differing[key][0]})" for key in refused
        )
        raise ConfigError(
            f"a run cannot go on exactly with {listed}. Leave that out, or start a new run in "
            "another run_dir."
        )
    return differing


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _name(values: Mapping[str, Any], group: str) -> Any:
    section = values.get(group)
    return section.get("name") if isinstance(section, Mapping) else None


def _get(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return copy.deepcopy(values)


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value
