"""MEHAML: what the maximum-entropy members of mirror learning share."""

from __future__ import annotations

from dataclasses import dataclass

from hetmarl.algorithms.hasac import HASAC, HASACConfig
from hetmarl.engines import SoftMirrorEngine
from hetmarl.networks import JointQ, TeamPolicy
from hetmarl.objectives import Drift, MEHAMLLoss, Neighbourhood, NoDrift
from hetmarl_envs.errors import ConfigError


@dataclass
class MEHAMLConfig(HASACConfig):
    """Hyperparameters that HASAC with a drift or a neighbourhood has."""

    old_interval: int = 50
    """Gradient steps between refreshes of the old policies; 10 to 1000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.old_interval < 1:
            raise ConfigError(f"algo.old_interval={self.old_interval}: expected at least 1.")


class MEHAML(HASAC):
    """HASAC with the two slots of mirror learning.

    In a fresh random order agent iₘ descends, within a neighbourhood of its old policy,

        E[αⁱᵐ·log πⁱᵐ − min Q(s, a^{i₁:ₘ₋₁}, aⁱᵐ, a^{iₘ₊₁:ₙ})] + E[D(πⁱᵐ | πⁱᵐ_old)]

    (Liu et al. 2024, arXiv 2306.10715). A member overrides ``drift`` or ``neighbourhood``; with
    neither it is HASAC, bit for bit. The old policies are those of every ``old_interval``-th
    gradient step: one iteration of the theory's is that many steps of everybody.
    """

    name = "mehaml"
    config_type = MEHAMLConfig
    quantities = (*HASAC.quantities, "drift", "distance", "step_fraction")
    loss: MEHAMLLoss
    engine_type = SoftMirrorEngine

    def drift(self) -> Drift:
        """The member's drift D; none unless it says otherwise."""
        return NoDrift()

    def neighbourhood(self) -> Neighbourhood | None:
        """Where its policies may go; everywhere unless it says otherwise."""
        return None

    def make_loss(self, policy: TeamPolicy, critic: JointQ) -> MEHAMLLoss:
        return MEHAMLLoss(
            policy, critic, self.drift(), self.neighbourhood(), **self.loss_settings()
        )

    def begin_update(self, update: int) -> None:
        if (update - 1) % self.config.old_interval == 0:
            self.loss.remember()
