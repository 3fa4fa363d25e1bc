"""SMAX: StarCraft-like battles computed by JAX, from the package ``jaxmarl``, batched.

Importing this package imports no JAX; making an environment does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetmarl_envs.lazy import exporting
from hetmarl_envs.registry import Family, lazily
from hetmarl_envs.smax.tasks import MAPS

if TYPE_CHECKING:
    from hetmarl_envs.smax.env import SMAXEnv

__all__ = ["FAMILY", "MAPS", "SMAXEnv"]


__getattr__ = exporting(__name__, "hetmarl_envs.smax.env:SMAXEnv")


FAMILY = Family(
    name="smax",
    make=lazily("hetmarl_envs.smax.env:SMAXEnv"),
    tasks=lambda: MAPS,
    requires=("jaxmarl",),
    install='pip install "hetmarl[smax]"',
)
