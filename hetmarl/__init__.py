"""hetmarl: environments and agents for cooperative learning of unequal agents.

Importing it needs no environment package, no Lightning and no Hydra; each is imported by the part
that uses it.
"""

from hetmarl.checkpoint import load_policy
from hetmarl_envs import TeamSpec, check_team_env, list_tasks, make_env, register_family

__version__ = "0.1.0"

__all__ = [
    "TeamSpec",
    "check_team_env",
    "list_tasks",
    "load_policy",
    "make_env",
    "register_family",
]
