"""An algorithm of your own in a few lines: sequential updates held back by a Tsallis divergence.

    python recipes/custom_algorithm.py

A member of heterogeneous-agent mirror learning is its *drift*, the cost of leaving the old policy
(Zhong et al. 2024, arXiv 2304.09870). ``check_drift`` tries the conditions of the theorems on it.
"""

from dataclasses import dataclass, replace
from functools import partial

from lightning.pytorch import Trainer
from torch import Tensor

from hetmarl import TeamSpec, make_env
from hetmarl.algorithms import GradientConfig, OnPolicyModule, get_algorithm
from hetmarl.data import RolloutData, RolloutDataConfig
from hetmarl.lightning import quiet_lightning
from hetmarl.objectives import PolicyChange, check_drift
from hetmarl_envs.errors import ConfigError


@dataclass
class TsallisConfig(GradientConfig):
    """What all such algorithms have, and two more."""

    order: float = 2.0
    """q of the divergence, more than 1; 2 is χ²."""
    weight: float = 0.5
    """How much it costs; .1 to 10."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.order > 1 and self.weight > 0):
            raise ConfigError("algo.order has to be more than 1, algo.weight more than 0.")


@dataclass
class TsallisDrift:
    """D = w·(r^q − 1 − q·(r − 1))/(q − 1): on average w·D_q(new ‖ old), and nowhere negative."""

    order: float
    weight: float

    def __call__(self, change: PolicyChange) -> Tensor:
        q, ratio = self.order, change.ratio
        return self.weight * (ratio**q - 1 - q * (ratio - 1)) / (q - 1)


class HATsallis(OnPolicyModule):
    """One agent after another, each up E[r·M] − E[D]."""

    name = "hatsallis"
    config_type = TsallisConfig

    def drift(self) -> TsallisDrift:
        return TsallisDrift(self.config.order, self.config.weight)


ENTRY = replace(
    get_algorithm("haa2c"),
    name=HATsallis.name,
    module="custom_algorithm:HATsallis",
    config="custom_algorithm:TsallisConfig",
)


def train(total_frames: int = 12_800) -> HATsallis:
    """Trains a team of a continuous and a discrete agent; its best return is 1."""
    make = partial(make_env, "games/mixed")
    config = TsallisConfig(actor_lr=5e-3, critic_lr=5e-3, entropy_coef=0.0)
    module = HATsallis(TeamSpec.from_env(make()), config)
    check_drift(module.drift())
    data = RolloutData(
        make, num_envs=64, total_frames=total_frames, config=RolloutDataConfig(rollout_steps=4)
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        val_check_interval=data.num_iterations,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )
    trainer.fit(module, datamodule=data)
    return module


if __name__ == "__main__":
    quiet_lightning()
    metrics = train().trainer.callback_metrics
    print(f"return {metrics['eval/return_mean']:.3f}, the best is 1")
