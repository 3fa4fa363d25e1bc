"""HASAC-Ball: HASAC with a neighbourhood that its agents do not leave."""

from __future__ import annotations

from dataclasses import dataclass

from hetmarl.algorithms.hasac import HASAC
from hetmarl.algorithms.mehaml import MEHAML, MEHAMLConfig
from hetmarl.objectives import KLBall


@dataclass
class HASACBallConfig(MEHAMLConfig):
    """Hyperparameters of HASAC-Ball."""

    radius: float = 0.1
    """δ, mean KL(old ‖ new) in nats; .01 to 1, infinite: HASAC."""

    def __post_init__(self) -> None:
        super().__post_init__()
        KLBall(self.radius)  # which checks it


class HASACBall(MEHAML):
    """HASAC within E[KL(πⁱ_old ‖ πⁱ)] ≤ δ, measured on each batch: HATRPO's ``KLBall``, off policy.

    After an agent's gradient step its parameters are pulled back towards the old ones until the
    batch's mean divergence is at most δ (``hetmarl.engines.Projection``), before its successors
    see it.
    """

    name = "hasac_ball"
    config_type = HASACBallConfig
    quantities = (*HASAC.quantities, "distance", "step_fraction")

    def neighbourhood(self) -> KLBall:
        return KLBall(self.config.radius)
