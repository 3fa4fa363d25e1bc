"""HAMDPO: heterogeneous-agent mirror descent policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from hetmarl.algorithms.on_policy import GradientConfig, OnPolicyModule, positive
from hetmarl.objectives import KLDrift
from hetmarl.objectives.drifts import Direction
from hetmarl_envs.errors import ConfigError


@dataclass
class HAMDPOConfig(GradientConfig):
    """Hyperparameters of HAMDPO."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus; none in the paper."""
    step_size: float = 1.0
    """t: the divergence is weighed 1/t; .1 to 10, infinite: HAA2C."""
    step_size_anneal: bool = True
    """t falls linearly over the run's iterations k, t_k = t·(1 − k/K)."""
    kl_direction: Direction = "new_old"
    """KL(new ‖ old), as in MDPO, or KL(old ‖ new), as in the authors' code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "step_size")
        if self.kl_direction not in get_args(Direction):
            raise ConfigError(
                f"algo.kl_direction='{self.kl_direction}': expected one of "
                f"{', '.join(get_args(Direction))}."
            )


class HAMDPO(OnPolicyModule):
    """Sequential updates of unequal agents by mirror descent.

    In a fresh random order agent iₘ takes some steps up

        E[r·M] − E[KL(πⁱᵐ ‖ πⁱᵐ_old)]/t_k,   M = Â(s, a)·∏_{j<m} r^{iⱼ}

    with the divergence in closed form to the policy at the start of its turn (Nasiri & Rezghi 2023,
    arXiv 2308.06741; Tomar et al. 2022, arXiv 2005.09814). In mirror learning: the drift
    ``KLDrift``. No clipping and no entropy bonus. The authors sum their discrete divergence without
    the probabilities as weights, and take a factor per action dimension; neither is done here.
    """

    name = "hamdpo"
    config_type = HAMDPOConfig

    def drift(self) -> KLDrift:
        return KLDrift(self.config.step_size, self.config.kl_direction)

    def anneal(self, iteration: int, num_iterations: int) -> None:
        super().anneal(iteration, num_iterations)
        if self.config.step_size_anneal:
            left = 1 - iteration / num_iterations
            self.loss.drift.step_size = self.config.step_size * left  # type: ignore[attr-defined]
