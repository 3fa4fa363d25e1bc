"""``hetmarl list algos|tasks [pattern]``."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

from hetmarl.algorithms.registry import list_algorithms
from hetmarl.cli.errors import clear_errors
from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean
from hetmarl_envs.registry import list_tasks

USAGE = """usage: hetmarl list algos|tasks [pattern]

  hetmarl list tasks                 every task
  hetmarl list tasks vmas            those whose name contains vmas
  hetmarl list tasks 'mamujoco/*x1'  a pattern of the shell"""

KINDS: dict[str, Callable[[], list[str]]] = {"algos": list_algorithms, "tasks": list_tasks}


def main(arguments: Sequence[str]) -> None:
    """Prints one name per line."""
    with clear_errors():
        if "-h" in arguments or "--help" in arguments:
            print(USAGE)
            return
        if not 1 <= len(arguments) <= 2:
            raise ConfigError(f"list takes what to list, and at most one pattern.\n{USAGE}")
        kind, pattern = arguments[0], arguments[1] if len(arguments) == 2 else ""
        print("\n".join(names(kind, pattern)))


def names(kind: str, pattern: str = "") -> list[str]:
    """Names of a kind that match a pattern; without ``*``, ``?``, ``[``, those that contain it."""
    if kind not in KINDS:
        raise UnknownNameError(f"cannot list '{kind}'.{did_you_mean(kind, KINDS)}\n{USAGE}")
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    options = KINDS[kind]()
    matching = [name for name in options if fnmatch.fnmatchcase(name, pattern.lower())]
    if not matching:
        bare = pattern.strip("*")
        leaves = {name.rpartition("/")[2]: name for name in options}
        hint = did_you_mean(bare, options) or did_you_mean(bare, leaves)
        raise UnknownNameError(f"no {kind} match '{bare}'.{hint}")
    return matching
