"""Environments for teams of unequal agents, batched, under one data contract.

What is listed below is imported when it is first used: processes that only play a game (``sc2sim``,
``smacv2``) need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec, check_team_env
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

_CONTRACT = ("ActionSpace", "AgentSpec", "TeamSpec", "check_team_env")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "hetmarl_envs.contract" if name in _CONTRACT else "hetmarl_envs.registry"
    return getattr(importlib.import_module(module), name)
