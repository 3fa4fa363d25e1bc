"""The off-policy DataModule: environments, collector and replay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDict
from torchrl.envs import EnvBase

from hetmarl.data.collector import Episodes, TeamCollector, can_save
from hetmarl.data.replay import Replay
from hetmarl.engines.randomness import stable_seed, stream
from hetmarl.guards import check_finite_data
from hetmarl.lightning.exact import gather_ranks, random_state, set_random_state
from hetmarl.networks.policy import TeamPolicy
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError

MakeEnv = Callable[..., EnvBase]
"""``make_env(num_envs=..., seed=..., device=...)``."""


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
        try:
            torch.device("cpu" if self.env_device == "trainer" else self.env_device)
        except RuntimeError as error:
            raise ConfigError(
                f"data.env_device='{self.env_device}': expected 'trainer' or a device of torch's, "
                "such as 'cpu' or 'cuda:0'."
            ) from error


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


class ReplayData(LightningDataModule):
    """Environments stepped by the module's own policy, and a replay to learn from.

    The LightningModule needs an attribute ``policy`` (a ``TeamPolicy``). Everything is built when
    training starts: only then is the module on its device, its checkpoint loaded. Its checkpoint
    state is exact: environments in the middle of an episode, counters, replay.

    Args:
        make_env: ``make_env(num_envs=, seed=, device=)``, such as
            ``functools.partial(hetmarl.make_env, "mamujoco/halfcheetah_2x3")``.
        num_envs: sub-environments per process.
        total_frames: where training ends, over all processes; rounded up to whole iterations.
        seed: of environments, acting and sampling.
        config: see ``ReplayDataConfig``.
        eval_episodes: per evaluation, each on its own sub-environment; 0: no evaluation.
        checkpoint_frames: frames between two checkpoints at most, over all processes; None: as
            if there were none before the end.
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
        super().__init__()
        for name, value in (("num_envs", num_envs), ("total_frames", total_frames)):
            if value < 1:
                raise ConfigError(f"{name}={value}: expected a whole number of at least 1.")
        self.make_env = make_env
        self.num_envs, self.total_frames, self.seed = num_envs, total_frames, seed
        self.config = config or ReplayDataConfig()
        self.eval_episodes = eval_episodes
        self.checkpoint_frames = checkpoint_frames
        self.directory = None if directory is None else Path(directory)
        self.steps_per_batch = math.ceil(self.config.frames_per_batch / num_envs)
        self.iteration = 0
        """Iterations collected so far."""
        self._collector: TeamCollector | None = None
        self.replay: Replay | None = None
        self._eval_env: EnvBase | None = None
        self._eval_start: dict[str, Any] | None = None
        self._resume: dict[str, Any] | None = None
        self.after_iteration: Callable[[], None] | None = None
        """Called between two iterations, when everything of the first is done and logged."""

    # ------------------------------------------------------------------ counting
    @property
    def frames_per_iteration(self) -> int:
        """Frames per iteration over all processes."""
        return self.steps_per_batch * self.num_envs * self._world

    @property
    def num_iterations(self) -> int:
        """Iterations to ``total_frames``."""
        return math.ceil(self.total_frames / self.frames_per_iteration)

    @property
    def _world(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _device(self) -> torch.device:
        """The trainer's device in this process."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    @property
    def _env_device(self) -> torch.device:
        name = self.config.env_device
        return self._device if name == "trainer" else torch.device(name)

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    # ------------------------------------------------------------------ training
    def train_dataloader(self) -> ReplayLoader:
        """The iterations of the run; its length is what Lightning's progress goes by."""
        return ReplayLoader(self)

    def _start(self) -> TeamCollector:
        """Builds environments and collector, or takes them up from the checkpoint."""
        if self._collector is not None:
            return self._collector
        assert self.trainer is not None
        rank = self._rank
        env = self.make_env(
            num_envs=self.num_envs,
            seed=stable_seed(self.seed, "train", rank) % 2**31,
            device=self._env_device,
        )
        policy = cast(TeamPolicy, self.trainer.lightning_module.policy)
        if TeamSpec.from_env(env) != policy.team:
            raise ConfigError(
                "the environment of the DataModule and the one that the algorithm was made for "
                f"differ: {TeamSpec.from_env(env)} and {policy.team}."
            )
        self._collector = TeamCollector(env, policy, seed=self.seed, rank=rank)
        if self._resume is not None:
            self.iteration = self._resume["iteration"]
            mine = self._resume["ranks"][rank]
            self._collector.load_state_dict(mine["collector"])
            set_random_state(mine["random"])
        return self._collector

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

    # ------------------------------------------------------------------ evaluation
    def val_dataloader(self) -> list[int]:
        """One validation batch: the module asks ``eval_env`` for the episodes."""
        return [0] if self.eval_episodes else []

    def eval_env(self) -> EnvBase:
        """``eval_episodes`` sub-environments, as new: the same starts at every evaluation."""
        seed = stable_seed(self.seed, "evaluation") % 2**31
        if self._eval_env is None:
            self._eval_env = self.make_env(
                num_envs=self.eval_episodes, seed=seed, device=self._env_device
            )
            if can_save(self._eval_env):
                self._eval_start = self._eval_env.runtime_state()
        elif self._eval_start is not None:
            # a seed alone leaves what a simulator carries over from the episodes before
            self._eval_env.load_runtime_state(self._eval_start)
        else:
            self._eval_env.set_seed(seed)
        return self._eval_env

    # ------------------------------------------------------------------ exact resume
    def resume_state(self) -> dict[str, Any] | None:
        """What only exact resume needs, of all processes; plain values and tensors.

        None before training, and where the environment cannot save its state.
        """
        if self._collector is None or self.replay is None:
            return None
        if not self._collector.resumable:
            rank_zero_warn(
                f"{type(self._collector.env).__name__} has no runtime_state(): checkpoints of this "
                "run hold its weights, but it cannot be resumed."
            )
            return None
        mine = {
            "collector": self._collector.state_dict(),
            "replay": self.replay.state_dict(),
            "random": random_state(),
        }
        return {"iteration": self.iteration, "ranks": gather_ranks(mine)}

    def load_resume_state(self, state: dict[str, Any] | None) -> None:
        """Keeps the state until training starts.

        Raises:
            ConfigError: there is none, or it is that of another number of processes.
        """
        if state is None:
            raise ConfigError(
                "this checkpoint holds no resume state: expected a last.ckpt in its run's own "
                "directory, with resume/ and all (best.ckpt holds weights alone), of an "
                "environment with runtime_state(). Its policy can be had with hetmarl.load_policy."
            )
        if len(state["ranks"]) != self._world:
            raise ConfigError(
                f"the checkpoint was written by {len(state['ranks'])} processes, this run has "
                f"{self._world}. Resume with the same trainer.devices and trainer.num_nodes."
            )
        self._resume = state

    def teardown(self, stage: str) -> None:
        """Closes the environments."""
        if stage == "fit":
            envs = (self._collector.env if self._collector else None, self._eval_env)
            for env in envs:
                if env is not None and not env.is_closed:
                    env.close()


class ReplayLoader:
    """An iterable of known length: without one Lightning would collect a batch ahead."""

    def __init__(self, data: ReplayData) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.num_iterations

    def state_dict(self) -> dict[str, Any]:
        """Tells Lightning that this loader goes on where it stopped."""
        return {"iteration": self.data.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do: the DataModule's resume state has it, with all that belongs to it."""

    def __iter__(self) -> Iterator[ReplayBatch]:
        self.data._start()
        while self.data.iteration < len(self):
            yield self.data.collect()
            if self.data.after_iteration is not None:
                self.data.after_iteration()


def _sample(
    replay: Replay, generator: torch.Generator, device: torch.device, batch_size: int, **how: Any
) -> TensorDict:
    return replay.sample(batch_size, generator=generator, **how).to(device)
