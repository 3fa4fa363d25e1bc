"""Groups of a team: agents that are alike share one, named by what their names have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def group_agents(names: Sequence[str], kinds: Sequence[Any]) -> dict[str, list[int]]:
    """Puts agents of equal kind into one group.

    Args:
        names: of the agents, in the team's order.
        kinds: of each agent, all that must be equal for two to share a group; compared with ``==``.

    Returns:
        Group name to the positions of its agents, in the order of the groups' first agents.
    """
    found: list[Any] = []
    members: list[list[int]] = []
    for position, kind in enumerate(kinds):
        if kind not in found:
            found.append(kind)
            members.append([])
        members[found.index(kind)].append(position)
    titles = group_names([[names[i] for i in positions] for positions in members])
    return dict(zip(titles, members, strict=True))


def group_names(classes: Sequence[Sequence[str]]) -> list[str]:
    """One name per class of agents: what the members' names have in common, or numbers.

    ``agents`` where there is one class; else the common stems (``speaker_0`` is a ``speaker``)
    where they tell the classes apart; else ``agents_0``, ``agents_1``, ...
    """
    if len(classes) == 1:
        return ["agents"]
    stems = [{re.sub(r"_?\d+$", "", name) for name in names} for names in classes]
    if all(len(s) == 1 and all(s) for s in stems) and len(set().union(*stems)) == len(classes):
        return [stem.pop() for stem in stems]
    return [f"agents_{i}" for i in range(len(classes))]
