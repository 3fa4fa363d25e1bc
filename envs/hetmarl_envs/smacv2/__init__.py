"""SMACv2 and SMAC: battles of StarCraft II, through the package ``smacv2``, batched.

Importing this package imports neither ``smacv2`` nor torch: the processes that play the games need
no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetmarl_envs.lazy import exporting

if TYPE_CHECKING:
    from hetmarl_envs.smacv2.env import SMACv2Env

__all__ = ["SMACv2Env"]


__getattr__ = exporting(__name__, "hetmarl_envs.smacv2.env:SMACv2Env")
