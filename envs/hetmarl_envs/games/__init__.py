"""Small games with known solutions, on which the theory is tested and small studies are made.

Importing this package imports no environment; making one does. ``hetmarl_envs.games.tabular``
solves finite games exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hetmarl_envs.registry import Family

if TYPE_CHECKING:
    import torch

    from hetmarl_envs.games.base import GameEnv

__all__ = ["FAMILY", "TASKS"]

TASKS = (
    "climbing",
    "markov",
    "matrix",
    "mixed",
    "penalty",
    "product",
    "recall",
    "roles",
    "sharing",
    "trap",
    "xor",
)


def _make(
    task: str, *, num_envs: int, seed: int, device: torch.device | str | None, **options: Any
) -> GameEnv:
    from hetmarl_envs.games.tasks import make

    return make(task, num_envs=num_envs, seed=seed, device=device, **options)


FAMILY = Family(name="games", make=_make, tasks=lambda: TASKS)
