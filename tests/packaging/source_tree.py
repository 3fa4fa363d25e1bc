"""The modules of this checkout and what they import, read without importing them."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"hetmarl": ROOT / "hetmarl", "hetmarl_envs": ROOT / "envs" / "hetmarl_envs"}


def modules() -> dict[str, Path]:
    """Dotted name to file of every module of both packages, ``__main__`` left out."""
    found = {}
    for directory in PACKAGES.values():
        for path in sorted(directory.rglob("*.py")):
            parts = path.relative_to(directory.parent).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if parts[-1] != "__main__":
                found[".".join(parts)] = path
    return found


def imports(module: str, path: Path) -> set[str]:
    """Dotted names that ``module`` imports anywhere, in functions and for type checks too.

    ``from a.b import c`` counts as both ``a.b`` and ``a.b.c``, since ``c`` may be a module.
    """
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def within(name: str, package: str) -> bool:
    """Whether ``name`` is ``package`` or lies in it."""
    return name == package or name.startswith(f"{package}.")
