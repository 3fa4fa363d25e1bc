"""``hetmarl train``: a run from its settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig

from hetmarl.cli.arguments import split
from hetmarl.cli.environment import EnvFactory
from hetmarl.cli.errors import clear_errors, hydra_raises
from hetmarl.cli.resume import changes, continued, find_checkpoint
from hetmarl.cli.run_dir import (
    check_writable,
    choose_run_dir,
    process_rank,
    read_config,
    write_config,
)
from hetmarl.cli.trainer import build_trainer, processes, set_intervals
from hetmarl.conf import Settings, TrainConfig, register, resolve
from hetmarl.conf.settings import to_plain
from hetmarl.data import selective_sharing
from hetmarl.engines.randomness import stable_seed
from hetmarl.lightning.interruption import Interrupted
from hetmarl.memory import keep_freed_memory
from hetmarl.typed import convert
from hetmarl_envs.check import check_team_env
from hetmarl_envs.errors import HetmarlError

_program = sys.argv[:1]


@hydra.main(config_path="pkg://hetmarl.conf", config_name="train", version_base="1.3")
def _job(config: DictConfig) -> None:
    chosen = HydraConfig.get()
    overrides = list(chosen.overrides.task)
    with clear_errors(overrides):
        if config.resume is None:
            start(resolve(config, chosen.runtime.choices))
        else:
            # Not resolved yet: algo.* may be keys of the saved algorithm, not of the default one.
            go_on(to_plain(config), overrides, chosen.runtime.choices)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; ``arguments`` default to those of the program."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    line = sys.argv
    _program[:] = line[:2] if line[1:2] == ["train"] else line[:1]
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a user's own modules, named by _target_
    with hydra_raises(), clear_errors(given):
        register(given)
        flags, overrides = split(given)
        sys.argv = [line[0], *flags, *overrides]
        try:
            _job()
        finally:
            sys.argv = line


def start(settings: Settings) -> Path:
    """Trains from the beginning; returns the run's directory."""
    prepared = _prepare(settings)
    run_dir = choose_run_dir(settings)
    try:
        trainer = build_trainer(settings.train, run_dir)
    except HetmarlError:
        with suppress(OSError):
            run_dir.rmdir()  # only if nothing is in it
        raise
    if process_rank() == 0:
        write_config(settings, run_dir)
    _fit(settings, prepared, trainer, run_dir)
    return run_dir


def go_on(
    composed: Mapping[str, Any], overrides: Sequence[str], choices: Mapping[str, Any]
) -> Path:
    """Trains on from a checkpoint, with the saved settings and what the command line changes.

    Args:
        composed: plain values of what the command line alone would give, ``resume`` among them.
        overrides: the command line, ``key=value`` each.
        choices: option chosen in each Hydra group.
    """
    resume = convert(composed["resume"], str, "resume")
    run_dir, checkpoint = find_checkpoint(
        resume, convert(composed.get("run_dir"), str | None, "run_dir")
    )
    saved = resolve(read_config(run_dir))
    settings = resolve(continued(saved.to_dict(), composed, overrides), choices)
    if _wants_sets(settings) and _has_sets(saved):
        settings.train.network.seps.sets = saved.train.network.seps.sets
    differing = changes(saved.to_dict(), settings.to_dict())
    prepared = _prepare(settings)
    check_writable(run_dir)
    trainer = build_trainer(settings.train, run_dir)
    if process_rank() == 0:
        for key, (before, after) in differing.items():
            print(f"Changed: {key}={after} (was {before})")
        write_config(settings, run_dir)
    _fit(settings, prepared, trainer, run_dir, checkpoint)
    return run_dir


def _prepare(settings: Settings) -> tuple[Any, EnvFactory]:
    """The algorithm for the task's team; fails before anything is written."""
    train = settings.train
    keep_freed_memory()
    if train.torch_threads is not None:
        torch.set_num_threads(train.torch_threads)
    factory = EnvFactory(train.task)
    env = factory(num_envs=1, seed=train.seed)
    try:
        spec = check_team_env(env, thorough=False)
    finally:
        env.close()
    seed_everything(train.seed, verbose=False)
    if _wants_sets(settings):
        _find_sets(train, factory)
    module = settings.algorithm.load("module")
    return module(spec, train.algo, train.network, train.seed), factory


def _wants_sets(settings: Settings) -> bool:
    """Whether agents that are alike are to share, and are not known yet."""
    return settings.train.network.sharing == "seps" and not _has_sets(settings)


def _has_sets(settings: Settings) -> bool:
    return settings.train.network.seps.sets is not None


def _find_sets(train: TrainConfig, factory: EnvFactory) -> None:
    """Finds out who is alike and keeps it in the settings: alike in every process."""
    env = factory(num_envs=train.num_envs, seed=stable_seed(train.seed, "seps") % 2**31)
    try:
        sets = selective_sharing(env, train.network.seps, train.seed)
    finally:
        env.close()
    train.network.seps.sets = sets
    if process_rank() == 0:
        print(f"Agents that share parameters: {'; '.join(', '.join(names) for names in sets)}")


def _fit(
    settings: Settings,
    prepared: tuple[Any, EnvFactory],
    trainer: Trainer,
    run_dir: Path,
    checkpoint: Path | None = None,
) -> None:
    train = settings.train
    module, factory = prepared
    data = settings.algorithm.load("data")(
        factory,
        num_envs=train.num_envs,
        total_frames=train.total_frames,
        seed=train.seed,
        config=train.data,
        eval_episodes=train.eval.episodes,
        checkpoint_frames=train.checkpoint.interval_frames or train.eval.interval_frames,
        directory=run_dir / "resume" / "replay",
    )
    set_intervals(trainer, train, data.frames_per_iteration * trainer.world_size)
    with processes(run_dir, _program):
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        except Interrupted:
            if trainer.is_global_zero:
                print(f"Go on with: hetmarl train run_dir={run_dir} resume=last", file=sys.stderr)
            raise
