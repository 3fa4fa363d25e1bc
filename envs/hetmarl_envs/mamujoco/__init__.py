"""Multi-agent MuJoCo: bodies whose joints are divided among agents.

``import hetmarl_envs.mamujoco`` imports no simulator; making an environment does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hetmarl_envs.lazy import exporting
from hetmarl_envs.mamujoco.tasks import SINGLE, parse_task, tasks
from hetmarl_envs.registry import Family

if TYPE_CHECKING:
    from hetmarl_envs.mamujoco.env import MAMuJoCoEnv

__all__ = ["FAMILY", "MAMuJoCoEnv", "make", "tasks"]


def make(
    task: str,
    *,
    num_envs: int = 1,
    seed: int = 0,
    device: torch.device | str | None = "cpu",
    **options: Any,
) -> MAMuJoCoEnv:
    """The environment of a task; options as in ``MAMuJoCoEnv``.

    Args:
        task: such as ``"halfcheetah_2x3"``; with ``partition`` the scenario alone will do.
        num_envs, seed, device, **options: see ``MAMuJoCoEnv``.
    """
    if "_" not in task and options.get("partition") is not None:
        task = f"{task}_{SINGLE}"
    scenario, factorization = parse_task(task)
    from hetmarl_envs.mamujoco.env import MAMuJoCoEnv

    return MAMuJoCoEnv(
        scenario, factorization, num_envs=num_envs, seed=seed, device=device, **options
    )


__getattr__ = exporting(__name__, "hetmarl_envs.mamujoco.env:MAMuJoCoEnv")


FAMILY = Family(
    name="mamujoco",
    make=make,
    tasks=tasks,
    requires=("mujoco", "gymnasium", "gymnasium_robotics"),
    install="pip install 'mujoco>=4' gymnasium-robotics",
)
