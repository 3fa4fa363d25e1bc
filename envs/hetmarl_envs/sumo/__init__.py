"""SUMO: junctions of real road networks, each an agent that sets its traffic lights.

Importing this package imports neither ``sumo_rl`` nor SUMO; making an environment does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hetmarl_envs.registry import Family, lazily
from hetmarl_envs.sumo.networks import CUSTOM, NETWORKS

if TYPE_CHECKING:
    from hetmarl_envs.sumo.env import SumoEnv

__all__ = ["FAMILY", "NETWORKS", "SumoEnv"]


def __getattr__(name: str) -> Any:
    if name == "SumoEnv":
        from hetmarl_envs.sumo.env import SumoEnv

        return SumoEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


FAMILY = Family(
    name="sumo",
    make=lazily("hetmarl_envs.sumo.env:SumoEnv"),
    tasks=lambda: [*NETWORKS, CUSTOM],
    requires=("sumo_rl", "sumo", "libsumo"),
    install='pip install "hetmarl[sumo]"',
)
