"""A drift in the off-policy family: HASAC whose agents are held near where they were.

    python recipes/maximum_entropy_drift.py

Mirror learning adds a *drift* to an agent's objective, a cost of leaving its old policy; with
maximum entropy that is the family MEHAML, of which HASAC is the member without a drift (Liu et al.
2024, arXiv 2306.10715). Here it is KL(new, old) to the policy at the start of the iteration.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from tensordict import TensorDictBase
from torch import Tensor

from hetmarl import TeamSpec, make_env
from hetmarl.algorithms import HASAC, AlgorithmEntry, HASACConfig, register_algorithm
from hetmarl.data import ReplayData, ReplayDataConfig
from hetmarl.lightning import quiet_lightning
from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import HASACLoss, masked_mean
from hetmarl_envs.errors import ConfigError


@dataclass
class DriftConfig(HASACConfig):
    """HASAC's hyperparameters and one more."""

    drift: float = 0.1
    """Weight of the drift KL(new, old); 0 is HASAC."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drift < 0:
            raise ConfigError(f"algo.drift={self.drift}: expected 0 or more.")


class DriftLoss(HASACLoss):
    """HASAC's losses with, for the agent at its turn, L_π + drift·mean KL(πⁱ, πⁱ_old)."""

    def __init__(self, *parts: Any, drift: float, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self.drift = drift
        self.remember()

    def remember(self) -> None:
        """Takes the policies as they are for the old ones."""
        # In a tuple, so that it is no submodule: nothing to train, nothing to save.
        self._old = (copy.deepcopy(self.policy.actors).requires_grad_(False),)

    def actor(
        self,
        data: TensorDictBase,
        agent: int,
        joint_action: Sequence[Tensor],
        log_prob: Tensor | None = None,
    ) -> Tensor:
        """L_π of one agent (scalar)."""
        observation = self.spec.observation(data, agent)
        mean, log_std = self.policy.actors[agent](observation)
        old_mean, old_log_std = self._old[0][agent](observation)
        # Squashing is invertible, so that it leaves the divergence of the Gaussians as it is.
        variance = (2 * (log_std - old_log_std)).exp()
        distance = ((mean - old_mean) / old_log_std.exp()).square()
        kl = old_log_std - log_std + (variance + distance - 1) / 2
        drift = masked_mean(kl.sum(-1, keepdim=True), self.alive(data, agent), self.reduce)
        return super().actor(data, agent, joint_action, log_prob) + self.drift * drift


class DriftHASAC(HASAC):
    """HASAC with a drift."""

    name = "hasac_drift"
    config_type = DriftConfig
    config: DriftConfig
    loss: DriftLoss

    def make_loss(self, policy: TeamPolicy, critic: JointQ) -> DriftLoss:
        """HASAC's loss and the drift."""
        return DriftLoss(policy, critic, drift=self.config.drift, **self.loss_settings())

    def learn(self, batch: Any, randomness: Any) -> dict[str, Tensor]:
        """HASAC's gradient steps, near the policies that the iteration began with."""
        self.loss.remember()
        return super().learn(batch, randomness)


ENTRY = AlgorithmEntry(
    DriftHASAC.name, "maximum_entropy_drift:DriftHASAC", "maximum_entropy_drift:DriftConfig"
)


def train(total_frames: int = 20_000, drift: float = 0.1) -> DriftHASAC:
    """Trains on a small task with a plain Trainer."""
    make = partial(make_env, "vmas/simple_speaker_listener", max_steps=25)
    spec = TeamSpec.from_env(make())
    module = DriftHASAC(spec, DriftConfig(drift=drift, batch_size=256), NetworkConfig([64, 64]))
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
    """Registers the algorithm under its name and trains it."""
    register_algorithm(ENTRY)
    quiet_lightning()
    module = train()
    value = torch.tensor([log_alpha.exp() for log_alpha in module.loss.log_alpha])
    print(f"trained {int(module.frames):,} frames; temperatures {value.tolist()}")


if __name__ == "__main__":
    main()
