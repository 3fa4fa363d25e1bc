"""MPE: small worlds of particles that move, talk and push, from the package ``mpe2``.

Importing this package does not import ``mpe2``; making an environment does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetmarl_envs.lazy import exporting
from hetmarl_envs.mpe.scenarios import SCENARIOS, scenario_options
from hetmarl_envs.registry import Family, lazily

if TYPE_CHECKING:
    from hetmarl_envs.mpe.env import MPEEnv

__all__ = ["FAMILY", "SCENARIOS", "MPEEnv", "scenario_options"]


__getattr__ = exporting(__name__, "hetmarl_envs.mpe.env:MPEEnv")


FAMILY = Family(
    name="mpe",
    make=lazily("hetmarl_envs.mpe.env:MPEEnv"),
    tasks=lambda: SCENARIOS,
    requires=("mpe2",),
    install='pip install "hetmarl[mpe]"',
)
