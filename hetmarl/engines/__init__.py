"""How a team is updated. Callables and tensors only: no Lightning, no Hydra."""

from hetmarl.engines.off_policy import OffPolicyEngine, sequential_update
from hetmarl.engines.randomness import UpdateRandomness, stable_seed, stream
from hetmarl.engines.step import GradientStep

__all__ = [
    "GradientStep",
    "OffPolicyEngine",
    "UpdateRandomness",
    "sequential_update",
    "stable_seed",
    "stream",
]
