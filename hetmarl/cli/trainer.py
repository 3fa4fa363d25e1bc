"""The Trainer, its callbacks and its processes, from a run's settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from hetmarl.cli.arguments import CONFIG_FLAGS, split
from hetmarl.cli.errors import FULL_ERROR, restore, wants_traceback
from hetmarl.cli.run_dir import CHOSEN
from hetmarl.conf.schema import TrainConfig, TrainerConfig
from hetmarl.lightning import (
    TeamProgressBar,
    build_loggers,
    check_trainer,
    quiet_lightning,
    team_callbacks,
)
from hetmarl.lightning.checkpointing import TeamCheckpoints, checkpoint_callbacks
from hetmarl.lightning.exact import ExactCheckpointIO
from hetmarl.lightning.strategy import make_strategy
from hetmarl.lightning.trainer_checks import PRECISIONS
from hetmarl_envs.errors import ConfigError

_PRECISIONS = {"32": "32-true", "64": "64-true"}
# Set by Lightning for the processes that it starts, and left behind.
_PROCESS_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def build_trainer(train: TrainConfig, run_dir: Path) -> Trainer:
    """Lightning's Trainer with hetmarl's loggers, callbacks and checkpoints.

    Raises:
        ConfigError: Lightning does not take one of the settings.
    """
    quiet_lightning()
    config = train.trainer
    arguments: dict[str, Any] = {
        key: value for key, value in vars(config).items() if key not in ("extra", "strategy")
    }
    config_precision = _PRECISIONS.get(str(config.precision), str(config.precision))
    if config_precision not in PRECISIONS:  # on a CPU Lightning would take another one by itself
        raise ConfigError(
            f"trainer.precision={config.precision}: expected one of {', '.join(PRECISIONS)}."
        )
    callbacks = [*team_callbacks(run_dir, train.total_frames), *checkpoint_callbacks(run_dir)]
    for callback in callbacks:
        if isinstance(callback, TeamProgressBar) and not config.enable_progress_bar:
            callback.disable()  # it stays, for its state is part of a checkpoint
    arguments |= {
        "precision": config_precision,
        "strategy": make_strategy(strategy_name(config)),
        "enable_progress_bar": True,
        "max_epochs": 1,
        "num_sanity_val_steps": 0,
        "check_val_every_n_epoch": None,
        "use_distributed_sampler": False,
        "default_root_dir": run_dir,
        "logger": build_loggers(train.logger, run_dir, options=train.logger_options),
        "callbacks": callbacks,
        "plugins": [ExactCheckpointIO()],
    }
    for key in config.extra:
        if key in arguments:
            raise ConfigError(f"trainer.extra.{key} is set by hetmarl; leave it out.")
    try:
        trainer = Trainer(**arguments | config.extra)
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"trainer: {error}") from error
    check_trainer(trainer)
    return trainer


def set_intervals(trainer: Trainer, train: TrainConfig, frames_per_iteration: int) -> None:
    """Evaluations and checkpoints by frames; Lightning counts iterations."""

    def iterations(frames: int) -> int:
        return max(1, round(frames / frames_per_iteration))

    trainer.val_check_interval = iterations(train.eval.interval_frames)
    if train.checkpoint.interval_frames is not None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, TeamCheckpoints):
                callback.every_n_iterations = iterations(train.checkpoint.interval_frames)


def strategy_name(config: TrainerConfig) -> str:
    """``"ddp"`` for several processes where nothing else is asked for."""
    several = config.num_nodes > 1 or config.devices not in (1, "1", "auto")
    return "ddp" if config.strategy == "auto" and several else config.strategy


@contextmanager
def processes(run_dir: Path, program: list[str]) -> Iterator[None]:
    """Lets Lightning start further processes of this very job.

    It starts them by this program's command line. Under ``-m`` that is the whole sweep's, so it is
    replaced by the job's own; the run directory goes by an environment variable. What Lightning
    leaves behind would make the next job of a sweep take itself for a child, so it is removed.

    Args:
        run_dir: chosen by this process.
        program: what stands before Hydra's arguments, ``["…/hetmarl", "train"]``.
    """
    before = {name: os.environ.get(name) for name in (*_PROCESS_VARIABLES, CHOSEN, FULL_ERROR)}
    line = sys.argv
    os.environ[CHOSEN] = str(run_dir)
    os.environ[FULL_ERROR] = "1" if wants_traceback() else "0"
    if HydraConfig.initialized():
        sys.argv = [*program, *_config_flags(line), *HydraConfig.get().overrides.task]
    distributed = _distributed()
    try:
        yield
    finally:
        sys.argv = line
        for name, value in before.items():
            restore(name, value)
        if _distributed() and not distributed:
            torch.distributed.destroy_process_group()


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _config_flags(line: list[str]) -> list[str]:
    """Hydra's flags that say where configurations are, with their values."""
    flags, _ = split(line)
    found: list[str] = []
    for position, flag in enumerate(flags):
        if flag in CONFIG_FLAGS:
            found += flags[position : position + 2]
        elif flag.partition("=")[0] in CONFIG_FLAGS:
            found.append(flag)
    return found
