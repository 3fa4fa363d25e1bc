"""VMAS: vectorised two-dimensional multi-agent scenarios, as batched TorchRL environments.

Importing this package imports neither VMAS nor its old ``gym``; making an environment does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetmarl_envs.lazy import exporting
from hetmarl_envs.registry import Family, lazily
from hetmarl_envs.vmas.options import scenario_options
from hetmarl_envs.vmas.scenarios import load_scenario, scenario_names

if TYPE_CHECKING:
    from hetmarl_envs.vmas.env import VMASEnv

__all__ = ["FAMILY", "VMASEnv", "load_scenario", "scenario_names", "scenario_options"]


__getattr__ = exporting(__name__, "hetmarl_envs.vmas.env:VMASEnv")


FAMILY = Family(
    name="vmas",
    make=lazily("hetmarl_envs.vmas.env:VMASEnv"),
    tasks=scenario_names,
    requires=("vmas",),
    install="pip install 'vmas>=1.5,<1.6'",
)
