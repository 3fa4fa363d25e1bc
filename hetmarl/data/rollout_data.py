"""The on-policy DataModule: each iteration a fresh rollout of the policy as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensordict import TensorDict

from hetmarl.data.collector import Episodes
from hetmarl.data.team_data import MakeEnv, TeamData, check_counts, check_env_device
from hetmarl.guards import check_finite_data
from hetmarl_envs.errors import ConfigError


@dataclass
class RolloutDataConfig:
    """Collection of rollouts; defaults are HARL's."""

    rollout_steps: int = 200
    """Vector steps of each rollout; 16 to 2048."""
    env_device: str = "cpu"
    """Where the environments compute: "trainer" (the module's device; for VMAS on a GPU), "cpu",
    "cuda:1", …"""

    def __post_init__(self) -> None:
        if self.rollout_steps < 1:
            raise ConfigError(
                f"data.rollout_steps={self.rollout_steps}: expected a number of vector steps of at "
                "least 1."
            )
        check_env_device(self.env_device)


class RolloutBatch:
    """What one training iteration gets.

    Neither a dataclass nor a tuple: those Lightning takes apart under ``precision="64-true"``, and
    the rollout with them. Collected data stays float32, networks compute in their own precision.

    Args:
        frames: collected in this iteration, over all processes.
        data: the rollout ``[num_envs, T]``, keys as in ``hetmarl_envs.contract``, ``is_init``, and
            what the policy wrote, on the trainer's device.
        episodes: those that ended in this iteration, in this process.
        num_iterations: of the whole run, for what is annealed over it.
    """

    def __init__(
        self, frames: int, data: TensorDict, episodes: Episodes, num_iterations: int
    ) -> None:
        self.frames, self.data = frames, data
        self.episodes, self.num_iterations = episodes, num_iterations


class RolloutData(TeamData):
    """``TeamData`` whose iterations are rollouts. Its further arguments are ``TeamData``'s.

    Args:
        config: see ``RolloutDataConfig``.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        *,
        num_envs: int,
        total_frames: int,
        seed: int = 0,
        config: RolloutDataConfig | None = None,
        eval_episodes: int = 20,
        checkpoint_frames: int | None = None,
        directory: str | Path | None = None,
    ) -> None:
        self.config = config or RolloutDataConfig()
        check_counts(num_envs, total_frames)
        super().__init__(
            make_env,
            num_envs=num_envs,
            total_frames=total_frames,
            steps_per_batch=self.config.rollout_steps,
            seed=seed,
            config=self.config,
            eval_episodes=eval_episodes,
            checkpoint_frames=checkpoint_frames,
            directory=directory,
        )

    def collect(self) -> RolloutBatch:
        """One rollout."""
        collector = self._start()
        before = self.iteration * self.frames_per_iteration
        chunk, episodes = collector.collect(self.steps_per_batch, self.iteration)
        check_finite_data(chunk, collector.spec, before)
        self._resume = None
        self.iteration += 1
        data = chunk.to(self._device)
        return RolloutBatch(self.frames_per_iteration, data, episodes, self.num_iterations)

    def data_state(self) -> dict[str, Any]:
        return {}
