"""What is imported when it is first used, and not with the package that names it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def load(place: str) -> Any:
    """What stands at ``"module:name"``."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def exporting(package: str, *places: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose names stand at ``places``, ``"module:name"`` each."""
    known = {place.partition(":")[2]: place for place in places}

    def find(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return load(known[name])

    return find
