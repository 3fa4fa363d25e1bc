"""How a team is updated. Callables and tensors only: no Lightning, no Hydra."""

from hetmarl.engines.enumeration import EnumeratedTeam, Maximise, TableActor
from hetmarl.engines.off_policy import OffPolicyEngine, sequential_update
from hetmarl.engines.on_policy import (
    GradientEpochs,
    OnPolicyEngine,
    TrustRegionUpdate,
    UnitUpdate,
)
from hetmarl.engines.randomness import UpdateRandomness, stable_seed, stream
from hetmarl.engines.soft_mirror import Projection, SoftMirrorEngine
from hetmarl.engines.step import GradientStep
from hetmarl.engines.trust_region import TrustRegionConfig, TrustRegionStep, conjugate_gradient

__all__ = [
    "EnumeratedTeam",
    "GradientEpochs",
    "GradientStep",
    "Maximise",
    "OffPolicyEngine",
    "OnPolicyEngine",
    "Projection",
    "SoftMirrorEngine",
    "TableActor",
    "TrustRegionConfig",
    "TrustRegionStep",
    "TrustRegionUpdate",
    "UnitUpdate",
    "UpdateRandomness",
    "conjugate_gradient",
    "sequential_update",
    "stable_seed",
    "stream",
]
