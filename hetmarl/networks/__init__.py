"""Actors, critics and policies: ordinary modules over the data contract."""

from hetmarl.networks.actors import (
    Actor,
    ChoiceActor,
    GaussianActor,
    GumbelActor,
    Sample,
    SquashedGaussianActor,
    make_actor,
)
from hetmarl.networks.body import Body, Memory
from hetmarl.networks.config import (
    DeterministicNetworkConfig,
    GreedyNetworkConfig,
    NetworkConfig,
    OnPolicyNetworkConfig,
    SePSConfig,
)
from hetmarl.networks.critics import JointQ, LocalValues, StateValue
from hetmarl.networks.deterministic import (
    DeterministicActor,
    DeterministicChoiceActor,
    make_deterministic_actor,
)
from hetmarl.networks.distributions import (
    ActionDistribution,
    Choices,
    DiagonalGaussian,
    NoiseLike,
)
from hetmarl.networks.dueling import DuelingActor
from hetmarl.networks.entities import EntityEncoder, EntityMLP, EntityNetwork
from hetmarl.networks.entity_critic import EntityJointQ, make_joint_q
from hetmarl.networks.linear import Linear
from hetmarl.networks.mlp import mlp
from hetmarl.networks.network import Network
from hetmarl.networks.off_policy import OffPolicyActor, RecurrentMLP
from hetmarl.networks.packed import PackedPolicy, for_acting
from hetmarl.networks.policy import TeamPolicy

__all__ = [
    "ActionDistribution",
    "Actor",
    "Body",
    "ChoiceActor",
    "Choices",
    "DeterministicActor",
    "DeterministicChoiceActor",
    "DeterministicNetworkConfig",
    "DiagonalGaussian",
    "DuelingActor",
    "EntityEncoder",
    "EntityJointQ",
    "EntityMLP",
    "EntityNetwork",
    "GaussianActor",
    "GreedyNetworkConfig",
    "GumbelActor",
    "JointQ",
    "Linear",
    "LocalValues",
    "Memory",
    "Network",
    "NetworkConfig",
    "NoiseLike",
    "OffPolicyActor",
    "OnPolicyNetworkConfig",
    "PackedPolicy",
    "RecurrentMLP",
    "Sample",
    "SePSConfig",
    "SquashedGaussianActor",
    "StateValue",
    "TeamPolicy",
    "for_acting",
    "make_actor",
    "make_deterministic_actor",
    "make_joint_q",
    "mlp",
]
