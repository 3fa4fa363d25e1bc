"""Environments for teams of unequal agents, batched, under one data contract.

What is listed below is imported when it is first used: processes that only play a game (``sc2sim``,
``smacv2``) need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetmarl_envs.check import check_team_env
    from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec
    from hetmarl_envs.registry import Family, families, list_tasks, make_env, register_family

__all__ = [
    "ActionSpace",
    "AgentSpec",
    "Family",
    "TeamSpec",
    "check_team_env",
    "families",
    "list_tasks",
    "make_env",
    "register_family",
]

_ROOMS = {
    "hetmarl_envs.check": ("check_team_env",),
    "hetmarl_envs.contract": ("ActionSpace", "AgentSpec", "TeamSpec"),
    "hetmarl_envs.registry": ("Family", "families", "list_tasks", "make_env", "register_family"),
}


def __getattr__(name: str) -> Any:
    for module, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
