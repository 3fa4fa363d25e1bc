"""Actors, critics and policies: ordinary modules over the data contract."""

from hetmarl.networks.actors import Sample, SquashedGaussianActor, make_actor
from hetmarl.networks.critics import TwinQ
from hetmarl.networks.linear import Linear
from hetmarl.networks.mlp import NetworkConfig, mlp
from hetmarl.networks.policy import TeamPolicy

__all__ = [
    "Linear",
    "NetworkConfig",
    "Sample",
    "SquashedGaussianActor",
    "TeamPolicy",
    "TwinQ",
    "make_actor",
    "mlp",
]
