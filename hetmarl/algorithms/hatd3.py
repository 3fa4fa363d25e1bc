"""HATD3: heterogeneous-agent twin delayed deep deterministic policy gradient."""

from __future__ import annotations

from dataclasses import dataclass

from hetmarl.algorithms.haddpg import HADDPG, HADDPGConfig
from hetmarl.networks import JointQ, TeamPolicy
from hetmarl.objectives import DeterministicLoss
from hetmarl_envs.errors import ConfigError


@dataclass
class HATD3Config(HADDPGConfig):
    """Hyperparameters of HATD3; the published ones are overlays, ``+experiment=``."""

    policy_noise: float = 0.2
    """σ of the noise on the target's actions, in half widths of the bounds; 0 to .3."""
    noise_clip: float = 0.5
    """Bound on that noise, in half widths; typically .5."""
    policy_delay: int = 2
    """Gradient steps of the critic per step of the actors and all targets; 2 to 8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("policy_noise", "noise_clip"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"algo.{name}={getattr(self, name)}: expected 0 or more.")
        if self.policy_delay < 1:
            raise ConfigError(f"algo.policy_delay={self.policy_delay}: expected 1 or more.")


class HATD3(HADDPG):
    """HADDPG with what TD3 adds: twin critics, smoothed target actions, delayed actors.

    The critic's target is the lesser of two values at noisy target actions; actors and targets move
    at every ``policy_delay``-th gradient step, against the first value (Zhong et al. 2024, arXiv
    2304.09870; Fujimoto et al. 2018, arXiv 1802.09477).
    """

    name = "hatd3"
    config_type = HATD3Config
    num_critics = 2

    def make_loss(self, policy: TeamPolicy, critic: JointQ) -> DeterministicLoss:
        settings = {key: getattr(self.config, key) for key in ("policy_noise", "noise_clip")}
        return DeterministicLoss(policy, critic, gamma=self.config.gamma, **settings)

    def moves_actors(self, update: int) -> bool:
        return update % self.config.policy_delay == 0
