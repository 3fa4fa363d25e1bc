"""VMAS's scenarios: their names, their classes, and the options that each of them reads."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import sys
import textwrap
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from vmas.simulator.scenario import BaseScenario

_FOLDERS = ("", "debug", "mpe")


def _scenario_files() -> dict[str, str]:
    """Scenario name to its module, read from the installed package's files without importing it."""
    spec = importlib.util.find_spec("vmas")
    if spec is None or not spec.submodule_search_locations:
        return {}
    root = Path(next(iter(spec.submodule_search_locations))) / "scenarios"
    return {
        path.stem: ".".join(filter(None, ("vmas", "scenarios", folder, path.stem)))
        for folder in _FOLDERS
        for path in (root / folder).glob("*.py")
        if not path.stem.startswith("_")
    }


def scenario_names() -> list[str]:
    """All scenarios of the installed VMAS (its main, ``debug`` and ``mpe`` folders), sorted."""
    return sorted(_scenario_files())


def import_vmas() -> Any:
    """Imports VMAS without the notice that its ``gym`` 0.26 prints on import."""
    if "vmas" not in sys.modules:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            importlib.import_module("gym")
    return importlib.import_module("vmas")


def load_scenario(name: str) -> type[BaseScenario]:
    """The class of the scenario called ``name``.

    Raises:
        UnknownNameError: no such scenario; names the nearest.
    """
    files = _scenario_files()
    if name not in files:
        raise UnknownNameError(
            f"VMAS has no scenario '{name}'.{did_you_mean(name, files)} "
            f"Scenarios: {', '.join(sorted(files))}."
        )
    import_vmas()
    scenario: type[BaseScenario] = importlib.import_module(files[name]).Scenario
    return scenario


def scenario_options(scenario: str | type[BaseScenario]) -> dict[str, str]:
    """The options that a scenario reads, each with its default as written in the source.

    VMAS scenarios declare no options: they take them out of ``kwargs`` one by one, in
    ``make_world`` or in what it calls. So the source of the class and of its parents is read for
    ``kwargs.pop("name", default)`` and ``kwargs.get("name", default)``.

    Args:
        scenario: a name or a class.

    Returns:
        Option name to default, in the order of the source; empty where no source is found.
    """
    cls = load_scenario(scenario) if isinstance(scenario, str) else scenario
    options: dict[str, str] = {}
    for parent in cls.__mro__[:-1]:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(parent)))
        except (OSError, TypeError):  # defined at a prompt: no file to read
            continue
        for node in ast.walk(tree):
            option = _read_option(node)
            if option is not None:
                options.setdefault(*option)
    return options


def _read_option(node: ast.AST) -> tuple[str, str] | None:
    if not (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("pop", "get")
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "kwargs"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ):
        return None
    default = ast.unparse(node.args[1]) if len(node.args) > 1 else ""
    return node.args[0].value, default


def check_scenario_options(
    cls: type[BaseScenario], given: Mapping[str, Any], own: Iterable[str], where: str
) -> None:
    """Refuses an option that the scenario does not read, or of another type than its default.

    Args:
        cls: the scenario.
        given: the options that were passed on to the scenario.
        own: names of the environment's own options, for the suggestion and the list.
        where: what the message calls the environment, such as ``"vmas/balance"``.
    """
    known = scenario_options(cls)
    if not known and "make_world" not in vars(cls):
        return
    for option in given:
        if option not in known:
            every = [*known, *own]
            raise ConfigError(
                f"{where} has no option '{option}'.{did_you_mean(option, every)} "
                f"The scenario's: {', '.join(known) or 'none'}; every scenario's: {', '.join(own)}."
            )
        expected = _expected(known[option])
        value = given[option]
        if expected and (not isinstance(value, expected[1]) or _is_flag(value, expected[1])):
            raise ConfigError(
                f"{where}: {option}={value!r}, expected {expected[0]}; the scenario's default is "
                f"{known[option]}."
            )


def _is_flag(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, bool) and kind is not bool


def _expected(default: str) -> tuple[str, type | tuple[type, ...]] | None:
    """What an option may be, by its default as written; None where that says nothing.

    A whole number may stand for any: VMAS writes ``1`` where it means a factor.
    """
    try:
        value = ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return None
    if isinstance(value, bool):
        return "True or False", bool
    if isinstance(value, (int, float)):
        return "a number", (int, float)
    return ("a text", str) if isinstance(value, str) else None
