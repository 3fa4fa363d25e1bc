"""HATRPO: heterogeneous-agent trust region policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer

from hetmarl.algorithms.on_policy import OnPolicyConfig, OnPolicyModule, positive
from hetmarl.engines import TrustRegionConfig, TrustRegionStep, TrustRegionUpdate, UnitUpdate
from hetmarl.objectives import KLBall, Neighbourhood


@dataclass
class HATRPOConfig(OnPolicyConfig):
    """Hyperparameters of HATRPO."""

    delta: float = 0.01
    """δ, the trust region's radius: mean KL(old ‖ new) in nats; .001 to .02."""
    search: TrustRegionConfig = field(default_factory=TrustRegionConfig)
    """Conjugate gradient and line search."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.search, dict):
            self.search = TrustRegionConfig(**self.search)
        positive(self, "delta")


class HATRPO(OnPolicyModule):
    """Sequential updates of unequal agents, each within a trust region.

    In a fresh random order agent iₘ takes one step that ascends E[r·M],
    M = Â(s, a)·∏_{j<m} r^{iⱼ}, subject to E[KL(πⁱᵐ_old ‖ πⁱᵐ)] ≤ δ (Kuba et al. 2022,
    arXiv 2109.11251, algorithm 2). In mirror learning: no drift, the neighbourhood ``KLBall``.
    There is no entropy bonus.
    """

    name = "hatrpo"
    config_type = HATRPOConfig
    second_derivatives = True
    quantities = (
        *("loss_actor", "grad_norm", "entropy", "kl", "ratio_deviation"),
        *("surrogate_gain", "distance", "step_fraction"),
    )

    def neighbourhood(self) -> Neighbourhood:
        """Where the policy may go."""
        return KLBall(self.config.delta)

    def unit_update(self, parameters: list[nn.Parameter]) -> tuple[UnitUpdate, list[Optimizer]]:
        ball = self.neighbourhood()
        step = TrustRegionStep(parameters, ball.radius, self.config.search, self.reduce)
        return TrustRegionUpdate(step, ball), []
