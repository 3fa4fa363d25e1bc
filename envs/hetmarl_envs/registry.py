"""``make_env("family/task")`` and the families behind it.

A family is registered by a call, by an entry point of the group ``hetmarl.envs``, or is the
``FAMILY`` of a module that bears its name; the simulator that it needs is imported when one of its
environments is made.

A name that is not registered is therefore imported as a module where there is one, and what it does
on import is done, also where the name was a slip (``this/plane``).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import torch
from torchrl.envs import EnvBase

from hetmarl_envs.errors import (
    ConfigError,
    MissingExtraError,
    UnknownNameError,
    did_you_mean,
)
from hetmarl_envs.lazy import load
from hetmarl_envs.options import check, check_names, whole

ENTRY_POINT_GROUP = "hetmarl.envs"


@dataclass(frozen=True)
class Family:
    """A family of tasks.

    Args:
        name: first part of ``"family/task"``, lower case.
        make: ``make(task, *, num_envs, seed, device, **options) -> EnvBase``; the environment
            keeps the data contract (``hetmarl_envs.contract``).
        tasks: names of the family's tasks; must be cheap and import no simulator.
        requires: import names of the packages that ``make`` needs.
        install: the pip line that installs them.
        problem: what else is missing and how to get it; empty where nothing is.
    """

    name: str
    make: Callable[..., EnvBase]
    tasks: Callable[[], Iterable[str]]
    requires: tuple[str, ...] = ()
    install: str = ""
    problem: Callable[[], str] | None = None

    def missing(self) -> list[str]:
        """Required packages that are not installed."""
        return [name for name in self.requires if not _installed(name)]


def lazily(maker: str) -> Callable[..., EnvBase]:
    """A family's ``make`` that imports ``"module:class or function"`` when it is called."""
    return lambda task, **options: load(maker)(task, **options)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a dotted name whose parent is missing
        return False


_families: dict[str, Family | str] = {
    "games": "hetmarl_envs.games:FAMILY",
    "gymnasium": "hetmarl_envs.gymnasium:FAMILY",
    "lbf": "hetmarl_envs.grid:LBF",
    "mamujoco": "hetmarl_envs.mamujoco:FAMILY",
    "mpe": "hetmarl_envs.mpe:FAMILY",
    "pettingzoo": "hetmarl_envs.pettingzoo:FAMILY",
    "rware": "hetmarl_envs.grid:RWARE",
    "smacv2": "hetmarl_envs.smacv2.family:FAMILY",
    "smax": "hetmarl_envs.smax:FAMILY",
    "sumo": "hetmarl_envs.sumo:FAMILY",
    "vmas": "hetmarl_envs.vmas:FAMILY",
}
_entry_points_read = False


def register_family(family: Family, *, replace: bool = False) -> None:
    """Adds a family of tasks, so that ``make_env(f"{family.name}/task")`` finds it."""
    if family.name in _families and not replace:
        raise ConfigError(
            f"environment family '{family.name}' is registered already; pass replace=True to "
            "replace it, or choose another name."
        )
    _families[family.name] = family


def _read_entry_points() -> None:
    global _entry_points_read
    if not _entry_points_read:
        for point in entry_points(group=ENTRY_POINT_GROUP):
            _families.setdefault(point.name, point.value)
        _entry_points_read = True


def families() -> list[str]:
    """Names of all registered families."""
    _read_entry_points()
    return sorted(_families)


def is_family(name: str) -> bool:
    """Whether ``name`` is a registered family or a module with one of its own, ``FAMILY``."""
    _read_entry_points()
    if name not in _families and name.isidentifier() and _installed(name):
        try:
            found = getattr(importlib.import_module(name), "FAMILY", None)
        except Exception as error:
            raise ConfigError(
                f"no environment family '{name}' is registered, and the module '{name}' cannot be "
                f"imported: {type(error).__name__}: {error}"
            ) from error
        if isinstance(found, Family):
            _families[name] = found
    return name in _families


def get_family(name: str) -> Family:
    """The family called ``name``, its module imported if need be.

    A name that is not registered may be a module's, installed or in the current directory: then
    its ``FAMILY`` is taken.
    """
    if not is_family(name):
        raise UnknownNameError(
            f"unknown environment family '{name}'.{did_you_mean(name, _families)} "
            f"Known: {', '.join(families())}; or a module that defines FAMILY."
        )
    entry = _families[name]
    if isinstance(entry, str):
        entry = _families[name] = load(entry if ":" in entry else f"{entry}:FAMILY")
    return entry


def list_tasks(family: str | None = None) -> list[str]:
    """All task names ``"family/task"``, or those of one family; imports no simulator."""
    names = families() if family is None else [family]
    return [f"{name}/{task}" for name in names for task in sorted(get_family(name).tasks())]


def split_task(name: str) -> tuple[Family, str]:
    """``"family/task"`` as its family and the task's own name."""
    family, slash, task = name.partition("/")
    if not slash or not task:
        raise UnknownNameError(
            f"task '{name}' is not of the form 'family/task', such as "
            f"'mamujoco/halfcheetah_2x3'.{did_you_mean(name, list_tasks())}"
        )
    return get_family(family), task


def make_env(
    name: str,
    *,
    num_envs: int = 1,
    seed: int = 0,
    device: torch.device | str | None = "cpu",
    **options: Any,
) -> EnvBase:
    """Makes the batched environment ``"family/task"``.

    Args:
        name: such as ``"mamujoco/halfcheetah_2x3"``; see ``list_tasks``.
        num_envs: sub-environments stepped together, at least 1.
        seed: of the whole batch; sub-environments start differently, equal seeds start alike.
        device: where the environment's tensors live.
        **options: the family's own, see its page in the docs.

    Returns:
        An environment of ``batch_size [num_envs]`` that keeps the data contract.

    Raises:
        UnknownNameError: no such family or task; names the nearest.
        MissingExtraError: a package, or a program, is not installed; holds the steps.
        ConfigError: a number or an option is wrong; says what was expected.
    """
    check("", "num_envs", num_envs, whole(1))
    family, task = split_task(name)
    missing = family.missing()
    if missing:
        raise MissingExtraError(
            f"task '{name}' needs {', '.join(missing)}, not installed here: {family.install}"
        )
    problem = family.problem() if family.problem is not None else ""
    if problem:
        raise MissingExtraError(f"task '{name}': {problem}")
    return family.make(task, num_envs=num_envs, seed=seed, device=device, **options)


def check_options(function: Callable[..., Any], options: dict[str, Any], where: str) -> None:
    """Refuses an option that ``function`` has no keyword for, naming the nearest one."""
    known = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind == parameter.KEYWORD_ONLY
    ]
    check_names(where, options, known)
