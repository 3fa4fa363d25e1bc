"""HADDPG: heterogeneous-agent deep deterministic policy gradient."""

from __future__ import annotations

from dataclasses import dataclass

from hetmarl.algorithms.off_policy import OffPolicyConfig, OffPolicyModule
from hetmarl.networks import DeterministicNetworkConfig, JointQ, TeamPolicy
from hetmarl.objectives import DeterministicLoss


@dataclass
class HADDPGConfig(OffPolicyConfig):
    """Hyperparameters of HADDPG; the published ones are overlays, ``+experiment=``.

    The exploration noise is the actors', ``network.exploration_noise``.
    """

    actor_lr: float = 5e-4
    """Adam's learning rate of each actor; 1e-4 to 1e-3 (HARL: 5e-4)."""


class HADDPG(OffPolicyModule):
    """Deterministic policies of unequal agents, off policy and one after another.

    Each gradient step fits a joint Q-function, then goes through the agents in a fresh random
    order; agent iₘ ascends

        E[Q(s, a^{i₁:ₘ₋₁}, πⁱᵐ(oⁱᵐ), a^{iₘ₊₁:ₙ})]

    with its predecessors' actions taken again from their updated policies, its successors' from
    their current ones (Zhong et al. 2024, arXiv 2304.09870). The equations stand in
    ``hetmarl.objectives.DeterministicLoss``, the order of updates in
    ``hetmarl.engines.OffPolicyEngine``. Some agents' actions may be real numbers and others'
    choices, which the reference has not.
    """

    name = "haddpg"
    config_type = HADDPGConfig
    network_type = DeterministicNetworkConfig
    num_critics = 1
    loss: DeterministicLoss

    def make_loss(self, policy: TeamPolicy, critic: JointQ) -> DeterministicLoss:
        return DeterministicLoss(policy, critic, gamma=self.config.gamma)
