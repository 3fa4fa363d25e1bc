"""What is imported is declared, and what is declared is imported."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.packaging.source_tree import ROOT, imports, modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Import name to distribution where they differ and the package may not be installed.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "hydra": "hydra-core",
    "s2clientprotocol": "pys2clientprotocol",
    "sumo": "eclipse-sumo",
    "tensorboardX": "tensorboardx",
}

# Offered as an alternative to a declared package, never needed.
ALTERNATIVES = {"tensorboardx"}

# On no package index, or not to be had with its dependencies: family.INSTALL says how.
BY_HAND = {"smacv2"}

# Not imported: MAMuJoCo reads the models in them.
READ = {"gymnasium", "gymnasium-robotics"}


def normal(requirement: str) -> str:
    """Distribution name of a requirement line, as package indexes compare names."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def imported() -> set[str]:
    """Distributions that any module of both packages imports, at the top or in a function."""
    known = packages_distributions()
    tops = {name.partition(".")[0] for m, path in modules().items() for name in imports(m, path)}
    tops -= set(sys.stdlib_module_names) | {"hetmarl", "hetmarl_envs", "__future__"}
    found = set()
    for top in tops:
        candidates = {normal(name) for name in known.get(top, [])}
        own = normal(DISTRIBUTIONS.get(top, top))
        found.add(own if own in candidates or not candidates else min(candidates))
    return found


def test_every_import_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    offered = [line for name in extras if name not in ("dev", "docs") for line in extras[name]]
    declared = {normal(line) for line in [*PROJECT["dependencies"], *offered]}
    assert sorted(imported() - declared - ALTERNATIVES - BY_HAND) == []


def test_every_core_dependency_is_imported() -> None:
    core = {normal(line) for line in PROJECT["dependencies"]}
    assert sorted(core - imported() - READ) == []
