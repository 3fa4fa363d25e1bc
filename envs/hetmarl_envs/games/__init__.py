"""Small games with known solutions, on which the theory is tested and small studies are made.

Importing this package imports no environment; making one does. ``hetmarl_envs.games.tabular``
solves finite games exactly.
"""

from __future__ import annotations

from hetmarl_envs.registry import Family, lazily

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

FAMILY = Family(name="games", make=lazily("hetmarl_envs.games.tasks:make"), tasks=lambda: TASKS)
