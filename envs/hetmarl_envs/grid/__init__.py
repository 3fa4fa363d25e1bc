"""The grid worlds of EPyMARL: level-based foraging (``lbf/…``), a warehouse (``rware/…``).

Importing this package imports neither ``lbforaging`` nor ``rware``; making an environment does.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hetmarl_envs.grid.tasks import FORAGING, WAREHOUSES
from hetmarl_envs.registry import Family

if TYPE_CHECKING:
    import torch

    from hetmarl_envs.grid.env import GridEnv

__all__ = ["FORAGING", "LBF", "RWARE", "WAREHOUSES", "GridEnv"]

INSTALL = 'pip install "hetmarl[grid]"'


def _make(
    family: str,
    task: str,
    *,
    num_envs: int,
    seed: int,
    device: torch.device | str | None,
    **options: Any,
) -> GridEnv:
    from hetmarl_envs.grid.env import GridEnv

    return GridEnv(family, task, num_envs=num_envs, seed=seed, device=device, **options)


def __getattr__(name: str) -> Any:
    if name == "GridEnv":
        from hetmarl_envs.grid.env import GridEnv

        return GridEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


LBF = Family("lbf", partial(_make, "lbf"), lambda: FORAGING, ("lbforaging",), INSTALL)
RWARE = Family("rware", partial(_make, "rware"), lambda: WAREHOUSES, ("rware",), INSTALL)
