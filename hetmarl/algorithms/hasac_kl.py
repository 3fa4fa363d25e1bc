"""HASAC-KL: HASAC with a drift, a divergence from where its agents were."""

from __future__ import annotations

from dataclasses import dataclass

from hetmarl.algorithms.hasac import HASAC
from hetmarl.algorithms.mehaml import MEHAML, MEHAMLConfig
from hetmarl.objectives import KLDrift
from hetmarl.objectives.drifts import Direction
from hetmarl_envs.errors import ConfigError


@dataclass
class HASACKLConfig(MEHAMLConfig):
    """Hyperparameters of HASAC-KL."""

    step_size: float = 10.0
    """t: the divergence is weighed 1/t, beside the temperature α; .1 to 100, infinite: HASAC."""
    kl_direction: Direction = "new_old"
    """KL(new ‖ old), as in mirror descent, or KL(old ‖ new)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step_size > 0:
            raise ConfigError(f"algo.step_size={self.step_size}: expected more than 0.")


class HASACKL(MEHAML):
    """Soft mirror descent: HASAC's objective minus KL(πⁱ ‖ πⁱ_old)/t.

    Its argmax is π ∝ π_old^w·π_soft^(1−w) with w = (1/t)/(α + 1/t), where π_soft ∝ exp(Q/α) is
    HASAC's: the divergence slows the way to the same quantal response equilibrium. HAMDPO's drift
    ``KLDrift``, off policy.
    """

    name = "hasac_kl"
    config_type = HASACKLConfig
    quantities = (*HASAC.quantities, "drift")

    def drift(self) -> KLDrift:
        return KLDrift(self.config.step_size, self.config.kl_direction)
