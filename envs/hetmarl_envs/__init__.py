"""Environments for teams of unequal agents, batched, under one data contract."""

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
