"""What on- and off-policy DataModules share: environments, collection, evaluation, resume."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torchrl.envs import EnvBase

from hetmarl.data.collector import TeamCollector, can_save, check_same_team
from hetmarl.engines.randomness import stable_seed
from hetmarl.lightning.exact import gather_ranks, random_state, set_random_state
from hetmarl.networks.policy import TeamPolicy
from hetmarl_envs.errors import ConfigError

MakeEnv = Callable[..., EnvBase]
"""``make_env(num_envs=..., seed=..., device=...)``."""


def check_env_device(name: str) -> None:
    """Refuses what is neither "trainer" nor a device of torch's."""
    try:
        torch.device("cpu" if name == "trainer" else name)
    except RuntimeError as error:
        raise ConfigError(
            f"data.env_device='{name}': expected 'trainer' or a device of torch's, such as 'cpu' "
            "or 'cuda:0'."
        ) from error


def check_counts(num_envs: int, total_frames: int) -> None:
    """Refuses a run without environments or frames."""
    for name, value in (("num_envs", num_envs), ("total_frames", total_frames)):
        if value < 1:
            raise ConfigError(f"{name}={value}: expected a whole number of at least 1.")


class TeamDataConfig(Protocol):
    """What the base needs of a DataModule's settings."""

    env_device: str


class TeamData(LightningDataModule, ABC):
    """Environments stepped by the module's own policy, in iterations of fixed length.

    The LightningModule needs an attribute ``policy`` (a ``TeamPolicy``). Everything is built when
    training starts: only then is the module on its device, its checkpoint loaded. Its checkpoint
    state is exact: environments in mid-episode, counters, and what ``data_state`` adds.

    Args:
        make_env: ``make_env(num_envs=, seed=, device=)``, such as
            ``functools.partial(hetmarl.make_env, "mamujoco/halfcheetah_2x3")``.
        num_envs: sub-environments per process.
        total_frames: where training ends, over all processes; rounded up to whole iterations.
        steps_per_batch: vector steps per iteration.
        seed: of environments and acting.
        config: the DataModule's settings.
        eval_episodes: per evaluation, each on its own sub-environment; 0: no evaluation.
        checkpoint_frames: frames between two checkpoints at most, over all processes; None: as
            if there were none before the end.
        directory: of the run's state; None: in memory.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        *,
        num_envs: int,
        total_frames: int,
        steps_per_batch: int,
        seed: int,
        config: TeamDataConfig,
        eval_episodes: int,
        checkpoint_frames: int | None,
        directory: str | Path | None,
    ) -> None:
        super().__init__()
        self.make_env = make_env
        self.num_envs, self.total_frames, self.seed = num_envs, total_frames, seed
        self.steps_per_batch = steps_per_batch
        self._env_device_name = config.env_device
        self.eval_episodes = eval_episodes
        self.checkpoint_frames = checkpoint_frames
        self.directory = None if directory is None else Path(directory)
        self.iteration = 0
        """Iterations collected so far."""
        self._collector: TeamCollector | None = None
        self._eval_env: EnvBase | None = None
        self._eval_start: dict[str, Any] | None = None
        self._resume: dict[str, Any] | None = None
        self._limit_val_batches: float | None = None
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
        name = self._env_device_name
        return self._device if name == "trainer" else torch.device(name)

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    # ------------------------------------------------------------------ training
    def train_dataloader(self) -> IterationLoader:
        """The iterations of the run; its length is what Lightning's progress goes by."""
        return IterationLoader(self)

    @abstractmethod
    def collect(self) -> Any:
        """One iteration's batch; counts ``iteration``."""

    @abstractmethod
    def data_state(self) -> dict[str, Any]:
        """What only exact resume needs besides the collector, of this process."""

    def _start(self) -> TeamCollector:
        """Builds environments and collector, or takes them up from the checkpoint."""
        if self._collector is not None:
            return self._collector
        assert self.trainer is not None
        self._collector = self._make_collector(self.trainer.lightning_module)
        if self._resume is not None:
            self.iteration = self._resume["iteration"]
            mine = self._resume["ranks"][self._rank]
            self._collector.load_state_dict(mine["collector"])
            set_random_state(mine["random"])
        return self._collector

    def _make_collector(self, module: Any) -> Any:
        """A ``TeamCollector``, or what has its methods, for the module's policy."""
        rank = self._rank
        env = self.make_env(
            num_envs=self.num_envs,
            seed=stable_seed(self.seed, "train", rank) % 2**31,
            device=self._env_device,
        )
        policy = cast(TeamPolicy, module.policy)
        check_same_team(env, policy.team)
        return TeamCollector(
            env, policy, seed=self.seed, rank=rank, critic=getattr(module, "critic", None)
        )

    # ------------------------------------------------------------------ evaluation
    def setup(self, stage: str) -> None:
        """Without evaluations Lightning is told so: of an empty loader it would warn."""
        if self.eval_episodes == 0 and self.trainer is not None:
            self._limit_val_batches = self.trainer.limit_val_batches
            self.trainer.limit_val_batches = 0

    def val_dataloader(self) -> list[int]:
        """One validation batch: the module asks ``eval_env`` for the episodes."""
        return [0]

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
        if self._collector is None or self.iteration == 0:
            return None
        if not self._collector.can_save:
            rank_zero_warn(
                f"{type(self._collector.env).__name__} has no runtime_state(): checkpoints of this "
                "run hold its weights, but it cannot be resumed."
            )
            return None
        mine = {
            "collector": self._collector.state_dict(),
            "random": random_state(),
            **self.data_state(),
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
        """Closes the environments; gives the trainer its setting back."""
        if self._limit_val_batches is not None and self.trainer is not None:
            self.trainer.limit_val_batches = self._limit_val_batches
            self._limit_val_batches = None
        if stage == "fit":
            if self._collector is not None:
                self._collector.close()
            if self._eval_env is not None and not self._eval_env.is_closed:
                self._eval_env.close()


class IterationLoader:
    """An iterable of known length: without one Lightning would collect a batch ahead."""

    def __init__(self, data: TeamData) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.num_iterations

    def state_dict(self) -> dict[str, Any]:
        """Tells Lightning that this loader goes on where it stopped."""
        return {"iteration": self.data.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do: the DataModule's resume state has it, with all that belongs to it."""

    def __iter__(self) -> Iterator[Any]:
        self.data._start()
        while self.data.iteration < len(self):
            yield self.data.collect()
            if self.data.after_iteration is not None:
                self.data.after_iteration()
