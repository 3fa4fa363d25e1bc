"""Losses under TorchRL's LossModule contract; drifts and neighbourhoods of mirror learning."""

from hetmarl.objectives.checks import DriftError, check_drift, check_neighbourhood
from hetmarl.objectives.deterministic import DeterministicLoss
from hetmarl.objectives.drifts import (
    ClipDrift,
    Drift,
    KLBall,
    KLDrift,
    Neighbourhood,
    NoDrift,
    PolicyChange,
)
from hetmarl.objectives.had3qn import HAD3QNLoss
from hetmarl.objectives.hasac import HASACLoss
from hetmarl.objectives.masked import masked_mean
from hetmarl.objectives.mehaml import MEHAMLLoss, SoftChange
from hetmarl.objectives.mirror import AgentBatch, MirrorLoss, Objective
from hetmarl.objectives.off_policy import JointQLoss, frozen, least
from hetmarl.objectives.reduce import Reduce, identity
from hetmarl.objectives.value_norm import ValueNorm

__all__ = [
    "AgentBatch",
    "ClipDrift",
    "DeterministicLoss",
    "Drift",
    "DriftError",
    "HAD3QNLoss",
    "HASACLoss",
    "JointQLoss",
    "KLBall",
    "KLDrift",
    "MEHAMLLoss",
    "MirrorLoss",
    "Neighbourhood",
    "NoDrift",
    "Objective",
    "PolicyChange",
    "Reduce",
    "SoftChange",
    "ValueNorm",
    "check_drift",
    "check_neighbourhood",
    "frozen",
    "identity",
    "least",
    "masked_mean",
]
