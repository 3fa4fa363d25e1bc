"""Who is still alive, on Linux."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def group_of(leader: int) -> dict[int, str]:
    """Living processes of the group that ``leader`` leads, and their command lines."""
    return _of(leader, 2)


def session_of(leader: int) -> dict[int, str]:
    """Those of its session."""
    return _of(leader, 3)


def children_of(parent: int) -> dict[int, str]:
    """Those that it started itself."""
    return _of(parent, 1)


def _of(leader: int, field: int) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[field]) == leader and fields[0] != "Z":
                line = (entry / "cmdline").read_text().replace("\0", " ")
                found[int(entry.name)] = line
    return found
