"""HASAC: heterogeneous-agent soft actor-critic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from hetmarl.algorithms.off_policy import OffPolicyConfig, OffPolicyModule
from hetmarl.algorithms.schedule import SHAPES, scheduled
from hetmarl.data.replay_data import ReplayBatch
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import JointQ, TeamPolicy
from hetmarl.objectives import HASACLoss
from hetmarl_envs.errors import ConfigError, did_you_mean


@dataclass
class HASACConfig(OffPolicyConfig):
    """Hyperparameters of HASAC; the published ones are overlays, ``+experiment=``."""

    auto_alpha: bool = True
    """Adapt each agent's and the joint temperature to its target entropy."""
    alpha: float = 0.2
    """Temperature; the first one if it changes. HARL: 1 adapted, .2 or .001 fixed."""
    alpha_final: float | None = None
    """Temperature at the end of a schedule, which needs auto_alpha=false; None: no schedule."""
    alpha_decay_frames: int = 100_000
    """Frames, those of warm-up included, over which a scheduled temperature moves; 1e4 to 1e7."""
    alpha_schedule: str = "exponential"
    """How it moves: exponential, equal ratios in equal times, or linear, equal differences."""
    alpha_lr: float = 1e-3
    """Adam's learning rate of the temperatures; 3e-4 (HARL) to 1e-3."""
    target_entropy_scale: float = 1.0
    """Target entropy of real-valued actions, −scale·(action dimensions), in nats."""
    target_entropy_choices: float = 0.98
    """Target entropy of choices, as a share of that of equally likely legal ones; .3 to .98."""
    exact_choices: bool = True
    """Sum over an agent's choices instead of one draw with a straight-through gradient (HARL),
    which is biased; a sum asks the critic for each choice. Multi-discrete actions are drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "alpha_lr", "alpha_final", "alpha_decay_frames"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"algo.{name}={value}: expected more than 0, and finite.")
        if not math.isfinite(self.target_entropy_scale):
            raise ConfigError(
                f"algo.target_entropy_scale={self.target_entropy_scale}: expected a finite number."
            )
        if self.alpha_schedule not in SHAPES:
            raise ConfigError(
                f"algo.alpha_schedule='{self.alpha_schedule}' is unknown."
                f"{did_you_mean(self.alpha_schedule, SHAPES)} Choose one of {', '.join(SHAPES)}."
            )
        if self.alpha_final is not None and self.auto_alpha:
            raise ConfigError(
                f"algo.alpha_final={self.alpha_final} asks for a scheduled temperature and "
                "algo.auto_alpha=true for an adapted one. Set algo.auto_alpha=false for the "
                "schedule, or algo.alpha_final=null."
            )
        if not 0 <= self.target_entropy_choices <= 1:
            raise ConfigError(
                f"algo.target_entropy_choices={self.target_entropy_choices}: expected 0 to 1."
            )


class HASAC(OffPolicyModule):
    """Maximum-entropy cooperative learning of unequal agents, off policy and one after another.

    Each gradient step fits a joint soft Q-function, then goes through the agents in a fresh random
    order; agent iₘ ascends

        E[min Q(s, a^{i₁:ₘ₋₁}, aⁱᵐ, a^{iₘ₊₁:ₙ}) − αⁱᵐ·log πⁱᵐ(aⁱᵐ|oⁱᵐ)],  aⁱᵐ ~ πⁱᵐ

    with its predecessors' actions re-sampled from their updated policies (Liu et al. 2024,
    arXiv 2306.10715, algorithm 1). The equations stand in ``hetmarl.objectives.HASACLoss``, the
    order of updates in ``hetmarl.engines.OffPolicyEngine``. Some agents' actions may be real
    numbers and others' choices.
    """

    name = "hasac"
    config_type = HASACConfig
    quantities: ClassVar[tuple[str, ...]] = ("loss_actor", "grad_norm", "entropy", "alpha")
    of_team = ("alpha/joint",)
    loss: HASACLoss

    def make_loss(self, policy: TeamPolicy, critic: JointQ) -> HASACLoss:
        return HASACLoss(policy, critic, **self.loss_settings())

    def loss_settings(self) -> dict[str, Any]:
        """The hyperparameters that the losses have."""
        names = ["gamma", "alpha", "auto_alpha", "exact_choices"]
        names += ["target_entropy_scale", "target_entropy_choices"]
        return {name: getattr(self.config, name) for name in names}

    def temperatures(self) -> tuple[list[nn.Parameter], float]:
        if not self.config.auto_alpha:
            return [], 0.0
        return [*self.loss.log_alpha, self.loss.log_alpha_joint], self.config.alpha_lr

    def learn(self, batch: ReplayBatch, randomness: UpdateRandomness) -> dict[str, Tensor]:
        config = self.config
        if config.alpha_final is not None:
            frames, final = int(self.frames), config.alpha_final
            self.loss.set_alpha(
                scheduled(
                    config.alpha, final, frames, config.alpha_decay_frames, config.alpha_schedule
                )
            )
        metrics = super().learn(batch, randomness)
        for name, log_alpha in zip(self.spec.names, self.loss.log_alpha, strict=True):
            metrics[f"alpha/{name}"] = log_alpha.detach().exp()
        metrics["alpha/joint"] = self.loss.log_alpha_joint.detach().exp()
        return metrics
