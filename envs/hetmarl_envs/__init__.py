"""Environments for teams of unequal agents, batched, under one data contract.

What is listed below is imported when it is first used: processes that only play a game (``sc2sim``,
``smacv2``) need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetmarl_envs.lazy import exporting

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


__getattr__ = exporting(
    __name__, *(f"{module}:{name}" for module, names in _ROOMS.items() for name in names)
)
