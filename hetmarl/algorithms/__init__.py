"""One file per algorithm: its LightningModule and its hyperparameters."""

from typing import Any

from hetmarl.algorithms.registry import (
    AlgorithmEntry,
    get_algorithm,
    list_algorithms,
    register_algorithm,
)

__all__ = [
    "HASAC",
    "AlgorithmEntry",
    "HASACConfig",
    "get_algorithm",
    "list_algorithms",
    "register_algorithm",
]


def __getattr__(name: str) -> Any:
    if name in ("HASAC", "HASACConfig"):
        from hetmarl.algorithms import hasac

        return getattr(hasac, name)
    raise AttributeError(f"module 'hetmarl.algorithms' has no attribute '{name}'")
