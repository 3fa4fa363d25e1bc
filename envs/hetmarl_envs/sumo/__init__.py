"""SUMO: junctions of real road networks, each an agent that sets its traffic lights.

Importing this package imports neither ``sumo_rl`` nor SUMO; making an environment does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetmarl_envs.lazy import exporting
from hetmarl_envs.registry import Family, lazily
from hetmarl_envs.sumo.networks import CUSTOM, NETWORKS

if TYPE_CHECKING:
    from hetmarl_envs.sumo.env import SumoEnv

__all__ = ["FAMILY", "NETWORKS", "SumoEnv"]


__getattr__ = exporting(__name__, "hetmarl_envs.sumo.env:SumoEnv")


FAMILY = Family(
    name="sumo",
    make=lazily("hetmarl_envs.sumo.env:SumoEnv"),
    tasks=lambda: [*NETWORKS, CUSTOM],
    requires=("sumo_rl", "sumo", "libsumo"),
    install='pip install "hetmarl[sumo]"',
)
