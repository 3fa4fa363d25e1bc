"""The grid worlds of EPyMARL: level-based foraging (``lbf/…``), a warehouse (``rware/…``).

Importing this package imports neither ``lbforaging`` nor ``rware``; making an environment does.
"""

from __future__ import annotations

from hetmarl_envs.grid.tasks import FORAGING, WAREHOUSES
from hetmarl_envs.registry import Family, lazily

__all__ = ["FORAGING", "LBF", "RWARE", "WAREHOUSES"]

INSTALL = 'pip install "hetmarl[grid]"'


LBF = Family(
    name="lbf",
    make=lazily("hetmarl_envs.grid.foraging:ForagingEnv"),
    tasks=lambda: FORAGING,
    requires=("lbforaging",),
    install=INSTALL,
)
RWARE = Family(
    name="rware",
    make=lazily("hetmarl_envs.grid.warehouse:WarehouseEnv"),
    tasks=lambda: WAREHOUSES,
    requires=("rware",),
    install=INSTALL,
)
