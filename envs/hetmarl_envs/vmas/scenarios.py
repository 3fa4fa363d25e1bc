"""VMAS's scenarios: their names and their classes."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hetmarl_envs.errors import UnknownNameError, did_you_mean

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
