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
from torch import Tensor

from hetmarl.data.async_checks import check_mode, check_run
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
    """Replay memory-mapped in the run's directory ("disk"), or copied whole into every exact
    checkpoint: in the "memory" of env_device, or on the trainer's "device"; where there is no
    directory always one of the latter two."""
    env_device: str = "cpu"
    """Where the environments compute and a replay in memory lies: "trainer" (the module's device;
    for VMAS on a GPU), "cpu", "cuda:1", …"""
    mode: str = "sync"
    """Collects and learns in turns ("sync", reproducible), or side by side with processes of this
    machine ("async") or of a Ray cluster ("ray")."""
    actors: int = 1
    """Processes that collect, num_envs/actors environments each, unless mode=sync; 1 to cores−1."""
    max_staleness: int = 1
    """Iterations that a policy which collects may lag behind the learner's; 1 to 4."""
    priority_alpha: float = 0.0
    """Draw frames by their temporal-difference errors to this power (Schaul et al. 2016); .4 to
    .7, 0: all alike."""
    priority_beta: float = 0.4
    """How much of the bias of that the weights in the loss correct at first, 0 to 1; grows to 1 at
    the end of the run."""

    def __post_init__(self) -> None:
        for name, least in (("frames_per_batch", 1), ("warmup_frames", 0), ("buffer_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"data.{name}={getattr(self, name)}: expected a number of frames of at least "
                    f"{least}."
                )
        if self.storage not in ("disk", "memory", "device"):
            raise ConfigError(
                f"data.storage='{self.storage}': expected 'disk', 'memory' or 'device'."
            )
        if not 0 <= self.priority_alpha < math.inf or not 0 <= self.priority_beta <= 1:
            raise ConfigError(
                f"data.priority_alpha={self.priority_alpha}, "
                f"data.priority_beta={self.priority_beta}: expected 0 or more, and 0 to 1."
            )
        check_env_device(self.env_device)
        check_mode(self)


@dataclass
class ReplayBatch:
    """What one training iteration gets.

    Args:
        frames: collected in this iteration, over all processes.
        learning_steps: vector steps that gradient steps are due for; 0 during warm-up.
        sample: ``sample(batch_size, n_step=, gamma=) -> TensorDict [B]``, on the trainer's device.
        episodes: those that ended in this iteration, in this process.
        sample_sequences: ``sample_sequences(batch_size, length, burn_in, n_step=, gamma=)``, the
            same in slices ``[B, burn_in + length]``.
        update_priority: ``update_priority(index, td_error)``, to be told of every batch's
            ``"index" [B, 1]`` and errors ``[B, 1]``; None: there are no priorities.
    """

    frames: int
    learning_steps: int
    sample: Callable[..., TensorDict]
    episodes: Episodes
    staleness: Tensor | None = None
    """By how many iterations the policies that collected these frames, ``[N]``, lag behind the
    learner's; None: they do not."""
    sample_sequences: Callable[..., TensorDict] | None = None
    update_priority: Callable[[Tensor, Tensor], None] | None = None


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
        if self.config.mode != "sync" and num_envs % self.config.actors:
            raise ConfigError(
                f"num_envs={num_envs} cannot be shared equally by data.actors="
                f"{self.config.actors}: set a multiple."
            )
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

    def _make_collector(self, module: Any) -> Any:
        config = self.config
        if config.mode == "sync":
            return super()._make_collector(module)
        # not before it is asked for: its module starts with TorchRL's collectors
        from hetmarl.data.async_data import AsyncTeamCollector

        check_run(config.mode, module.policy, self._world)
        return AsyncTeamCollector(
            self.make_env,
            module.policy,
            num_envs=self.num_envs,
            actors=config.actors,
            max_staleness=config.max_staleness,
            warmup_chunks=math.ceil(config.warmup_frames / self.frames_per_iteration),
            seed=self.seed,
            kind=config.mode,
        )

    def on_exception(self, exception: BaseException) -> None:
        """Actors do not outlive the learner; Lightning leaves out ``teardown``."""
        if self.config.mode != "sync" and self._collector is not None:
            self._collector.close()

    def _start_replay(self, chunk: TensorDict, spec: TeamSpec) -> Replay:
        """The replay, or the checkpoint's taken up again."""
        directory, interval = None, 0  # a checkpoint has a copy of what is in memory
        if self.directory is not None and self.config.storage == "disk":
            directory = self.directory / f"rank{self._rank}"
            interval = self.num_iterations  # no checkpoints in between: the run's whole length
            if self.checkpoint_frames is not None:
                interval = math.ceil(self.checkpoint_frames / self.frames_per_iteration)
        assert self.trainer is not None and self._collector is not None
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
            local_processes=-(-self._world // self.trainer.num_nodes),
            device=self._device if self.config.storage == "device" else None,
            observation_index=self._observation_index(),
            priority_alpha=self.config.priority_alpha,
            tell=self.trainer.lightning_module.print,
        )
        if self._resume is not None:
            replay.load_state_dict(self._resume["ranks"][self._rank]["replay"])
            if self.config.mode != "sync":
                replay.cut()
            self._resume = None
        return replay

    def _observation_index(self) -> dict[str, Tensor] | None:
        """The environment's, where it has one."""
        env = getattr(self._collector, "env", None)
        if env is not None:
            return getattr(env, "observation_index", None)
        env = self.make_env(num_envs=1, seed=self.seed, device="cpu")  # like those of the actors
        try:
            return getattr(env, "observation_index", None)
        finally:
            env.close()

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
        draw = partial(
            partial,
            _sample,
            self._device,
            getattr(collector, "advance", None),
            generator=stream(self.seed, "replay", self.iteration, self._rank),
            beta=self._beta(),
        )
        self.iteration += 1
        return ReplayBatch(
            frames=self.frames_per_iteration,
            learning_steps=0 if warmup else steps,
            sample=draw(self.replay.sample),
            episodes=episodes,
            staleness=getattr(collector, "staleness", None),
            sample_sequences=draw(self.replay.sample_sequences),
            update_priority=self.replay.update_priority if self.replay.prioritized else None,
        )

    def _beta(self) -> float:
        """Linear from ``priority_beta`` in the first iteration to 1 in the last."""
        first = self.config.priority_beta
        return first + (1 - first) * min(1.0, self.iteration / max(1, self.num_iterations - 1))

    def data_state(self) -> dict[str, Any]:
        assert self.replay is not None
        return {"replay": self.replay.state_dict()}


def _sample(
    device: torch.device,
    meanwhile: Callable[[], None] | None,
    draw: Callable[..., TensorDict],
    *size: int,
    **how: Any,
) -> TensorDict:
    if meanwhile is not None:
        meanwhile()
    return draw(*size, **how).to(device)
