"""The off-policy DataModule: environments, collector and replay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from hetmarl.data.collector import Episodes
from hetmarl.data.replay import Replay
from hetmarl.data.team_data import MakeEnv, TeamData, check_counts, check_env_device
from hetmarl.engines.randomness import stream
from hetmarl.guards import check_finite_data
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError


@dataclass
class ReplayDataConfig:
    """Collection into replay; defaults are HARL's."""

    frames_per_batch: int = 1000
    """Frames per iteration and process, rounded up to whole vector steps; 1 to 10,000."""
    warmup_frames: int = 10_000
    """Frames of uniform random actions before learning, over all processes; 0 to 100,000."""
    buffer_size: int = 1_000_000
    """Frames that each process samples from; 100,000 to 1,000,000."""
    storage: str = "disk"
    """Replay memory-mapped in the run's directory ("disk"), or in "memory" and copied whole into
    every exact checkpoint; always in memory where there is no directory."""
    env_device: str = "cpu"
    """Where the environments compute and a replay in memory lies: "trainer" (the module's device;
    for VMAS on a GPU), "cpu", "cuda:1", …"""

    def __post_init__(self) -> None:
        for name, least in (("frames_per_batch", 1), ("warmup_frames", 0), ("buffer_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"data.{name}={getattr(self, name)}: expected a number of frames of at least "
                    f"{least}."
                )
        if self.storage not in ("disk", "memory"):
            raise ConfigError(f"data.storage='{self.storage}': expected 'disk' or 'memory'.")
        check_env_device(self.env_device)


@dataclass
class ReplayBatch:
    """What one training iteration gets.

    Args:
        frames: collected in this iteration, over all processes.
        learning_steps: vector steps that gradient steps are due for; 0 during warm-up.
        sample: ``sample(batch_size, n_step=, gamma=) -> TensorDict [B]``, on the trainer's device.
        episodes: those that ended in this iteration, in this process.
    """

    frames: int
    learning_steps: int
    sample: Callable[..., TensorDict]
    episodes: Episodes


class ReplayData(TeamData):
    """``TeamData`` whose iterations go into a replay to learn from.

    Its further arguments are ``TeamData``'s.

    Args:
        seed: of environments, acting and sampling.
        config: see ``ReplayDataConfig``.
        directory: for the memory-mapped replay; None: in memory.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        *,
        num_envs: int,
        total_frames: int,
        seed: int = 0,
        config: ReplayDataConfig | None = None,
        eval_episodes: int = 20,
        checkpoint_frames: int | None = None,
        directory: str | Path | None = None,
    ) -> None:
        self.config = config or ReplayDataConfig()
        check_counts(num_envs, total_frames)
        super().__init__(
            make_env,
            num_envs=num_envs,
            total_frames=total_frames,
            steps_per_batch=math.ceil(self.config.frames_per_batch / num_envs),
            seed=seed,
            config=self.config,
            eval_episodes=eval_episodes,
            checkpoint_frames=checkpoint_frames,
            directory=directory,
        )
        self.replay: Replay | None = None

    def _start_replay(self, chunk: TensorDict, spec: TeamSpec) -> Replay:
        """The replay, or the checkpoint's taken up again."""
        interval = self.num_iterations  # no checkpoints in between: the run's whole length
        if self.checkpoint_frames is not None:
            interval = math.ceil(self.checkpoint_frames / self.frames_per_iteration)
        directory = None
        if self.directory is not None and self.config.storage == "disk":
            directory = self.directory / f"rank{self._rank}"
        replay = Replay(
            chunk,
            spec,
            self.config.buffer_size,
            # one iteration more: the checkpoint of an interval is written after its end
            spare=self.steps_per_batch * (interval + 1),
            directory=directory,
            keep=self._resume is not None,
            total_steps=self.num_iterations * self.steps_per_batch,
            processes=self._world,
        )
        if self._resume is not None:
            replay.load_state_dict(self._resume["ranks"][self._rank]["replay"])
            self._resume = None
        return replay

    def collect(self) -> ReplayBatch:
        """One iteration's frames into the replay."""
        collector = self._start()
        steps = self.steps_per_batch
        before = self.iteration * self.frames_per_iteration
        warmup = before < self.config.warmup_frames
        chunk, episodes = collector.collect(steps, self.iteration, random=warmup)
        check_finite_data(chunk, collector.spec, before)
        if self.replay is None:
            self.replay = self._start_replay(chunk, collector.spec)
        self.replay.extend(chunk)
        generator = stream(self.seed, "replay", self.iteration, self._rank)
        self.iteration += 1
        return ReplayBatch(
            frames=self.frames_per_iteration,
            learning_steps=0 if warmup else steps,
            sample=partial(_sample, self.replay, generator, self._device),
            episodes=episodes,
        )

    def data_state(self) -> dict[str, Any]:
        assert self.replay is not None
        return {"replay": self.replay.state_dict()}


def _sample(
    replay: Replay, generator: torch.Generator, device: torch.device, batch_size: int, **how: Any
) -> TensorDict:
    return replay.sample(batch_size, generator=generator, **how).to(device)
