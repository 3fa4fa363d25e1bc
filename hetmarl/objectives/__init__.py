"""Losses under TorchRL's LossModule contract."""

from hetmarl.objectives.hasac import HASACLoss, frozen
from hetmarl.objectives.masked import masked_mean
from hetmarl.objectives.reduce import Reduce, identity

__all__ = ["HASACLoss", "Reduce", "frozen", "identity", "masked_mean"]
