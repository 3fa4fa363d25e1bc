"""A drift of one's own in the off-policy family: HASAC whose agents pay for leaving their past.

    python recipes/maximum_entropy_drift.py

Mirror learning adds a *drift* to an agent's objective, a cost of leaving its old policy; with
maximum entropy that is the family MEHAML, of which HASAC is the member without a drift (Liu et al.
2024, arXiv 2306.10715). Here it is Jeffreys' divergence, KL both ways, to the policy of every
``old_interval``-th gradient step.
"""

from dataclasses import dataclass
from functools import partial

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from hetmarl import TeamSpec, make_env
from hetmarl.algorithms import MEHAML, AlgorithmEntry, MEHAMLConfig, register_algorithm
from hetmarl.data import ReplayData, ReplayDataConfig
from hetmarl.lightning import quiet_lightning
from hetmarl.networks import NetworkConfig
from hetmarl.objectives import PolicyChange, check_drift
from hetmarl_envs.errors import ConfigError


@dataclass
class JeffreysDrift:
    """D = weight·(KL(new, old) + KL(old, new))."""

    weight: float = 0.1

    def __call__(self, change: PolicyChange) -> Tensor:
        return self.weight * (change.new.kl(change.old) + change.old.kl(change.new))


@dataclass
class JeffreysConfig(MEHAMLConfig):
    """HASAC's hyperparameters, the interval of the old policies, and one more."""

    weight: float = 0.1
    """Weight of the drift, .01 to 10; 0 is HASAC."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight < 0:
            raise ConfigError(f"algo.weight={self.weight}: expected 0 or more.")


class HASACJeffreys(MEHAML):
    """HASAC with a drift: everything else is inherited."""

    name = "hasac_jeffreys"
    config_type = JeffreysConfig

    def drift(self) -> JeffreysDrift:
        """The cost of leaving the old policy."""
        return JeffreysDrift(self.config.weight)


ENTRY = AlgorithmEntry(
    HASACJeffreys.name,
    "maximum_entropy_drift:HASACJeffreys",
    "maximum_entropy_drift:JeffreysConfig",
)


def train(total_frames: int = 20_000, weight: float = 0.1) -> HASACJeffreys:
    """Trains on a small task with a plain Trainer."""
    make = partial(make_env, "vmas/simple_speaker_listener", max_steps=25)
    spec = TeamSpec.from_env(make())
    settings = JeffreysConfig(weight=weight, batch_size=256)
    module = HASACJeffreys(spec, settings, NetworkConfig([64, 64]))
    config = ReplayDataConfig(frames_per_batch=320, warmup_frames=640, buffer_size=100_000)
    data = ReplayData(make, num_envs=32, total_frames=total_frames, config=config)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        val_check_interval=max(1, data.num_iterations // 4),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )
    trainer.fit(module, datamodule=data)
    return module


def main() -> None:
    """Checks the drift, registers the algorithm under its name and trains it."""
    check_drift(JeffreysDrift())
    register_algorithm(ENTRY)
    quiet_lightning()
    module = train()
    value = torch.tensor([log_alpha.exp() for log_alpha in module.loss.log_alpha])
    print(f"trained {int(module.frames):,} frames; temperatures {value.tolist()}")


if __name__ == "__main__":
    main()
