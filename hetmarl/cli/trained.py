"""A trained team and its environment, from the directory of a run."""

from __future__ import annotations

import sys
from pathlib import Path

from hetmarl.checkpoint import load_policy
from hetmarl.cli.environment import EnvFactory
from hetmarl.cli.run_dir import read_config
from hetmarl.conf import Settings, resolve
from hetmarl.networks import TeamPolicy
from hetmarl_envs.errors import ConfigError


def load_run(run_dir: str, checkpoint: str | None) -> tuple[Settings, EnvFactory, TeamPolicy, Path]:
    """Settings, environments, policy and checkpoint file of a run.

    Args:
        run_dir: its directory, or a checkpoint in one.
        checkpoint: ``"best"``, ``"last"`` or a file; None: the best, or the last if there is none.

    Raises:
        ConfigError: no run, or no such checkpoint in it.
    """
    directory = Path(run_dir)
    if directory.suffix == ".ckpt":
        if checkpoint is not None:
            raise ConfigError("give a run directory and checkpoint=…, or a checkpoint, not both.")
        checkpoint, directory = run_dir, directory.parent.parent
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a user's own modules, named by _target_
    settings = resolve(read_config(directory))
    file = _checkpoint(directory, checkpoint)
    return settings, EnvFactory(settings.train.task), load_policy(file), file


def _checkpoint(directory: Path, name: str | None) -> Path:
    there = sorted((directory / "checkpoints").glob("*.ckpt"))
    wanted = ("best", "last") if name is None else (name,)
    for file in (directory / "checkpoints" / f"{choice}.ckpt" for choice in wanted):
        if file in there:
            return file
    if name is not None and Path(name).is_file():
        return Path(name)
    found = ", ".join(file.stem for file in there) or "none yet"
    raise ConfigError(f"{directory} has no checkpoint {' or '.join(wanted)}; it has {found}.")
