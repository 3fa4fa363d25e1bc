"""Where a run writes: chosen once, by the first process, and never over another run."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hetmarl.conf.settings import Settings
from hetmarl_envs.errors import ConfigError, did_you_mean

CONFIG_FILE = "config.yaml"
LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"
CHOSEN = "HETMARL_RUN_DIR"
"""Environment variable by which the first process tells the others."""


def process_rank() -> int:
    """This process's rank, by the variables of Lightning, torchrun and SLURM."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def _started_from_outside() -> bool:
    """Whether torchrun or SLURM started this and other processes, which share no decision yet."""
    counts = [os.environ.get(name, "") for name in ("WORLD_SIZE", "SLURM_NTASKS")]
    return CHOSEN not in os.environ and any(n.isdigit() and int(n) > 1 for n in counts)


def choose_run_dir(settings: Settings) -> Path:
    """The directory of a new run, created and empty.

    ``runs/<task>/<algo>/<time>-seed<seed>`` unless the settings name one; runs that start in the
    same second get a number behind.

    Raises:
        ConfigError: it cannot be written to, or holds something already.
    """
    named = settings.train.run_dir
    if named is None and _started_from_outside():
        raise ConfigError(
            "several processes were started from outside: set run_dir=…, so that they agree."
        )
    if process_rank() > 0:
        return Path(os.environ.get(CHOSEN) or str(named))
    if named is not None:
        path = Path(named)
        try:
            if path.is_dir() and any(path.iterdir()):
                raise ConfigError(
                    f"run_dir={path} is not empty. Go on with the run in it by resume=last, or "
                    "choose another run_dir."
                )
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        check_writable(path)
        return path
    started = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-seed{settings.train.seed}"
    parent = Path("runs", *settings.train.task.name.split("/"), settings.algorithm.name)
    for number in range(1, 1000):
        path = parent / (started if number == 1 else f"{started}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise _unwritable(path, error) from error
    raise ConfigError(f"{parent} has 999 runs of this second; set run_dir=….")


def check_writable(path: Path) -> None:
    """Refuses a directory that nothing can be written into."""
    probe = path / f".probe-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"run_dir={path} cannot be written to: {error.strerror}. Set run_dir=… to a place that can."
    )


def write_config(settings: Settings, run_dir: Path) -> None:
    """Writes ``config.yaml``, whole or not at all."""
    temporary = run_dir / f".{CONFIG_FILE}.{os.getpid()}"
    OmegaConf.save(OmegaConf.create(settings.to_dict()), temporary)
    temporary.replace(run_dir / CONFIG_FILE)


def read_config(run_dir: Path) -> dict[str, Any]:
    """A run's ``config.yaml`` as plain values.

    Raises:
        ConfigError: not the directory of a run; names the nearest sibling.
    """
    file = run_dir / CONFIG_FILE
    if not file.is_file():
        siblings = run_dir.parent.iterdir() if run_dir.parent.is_dir() else []
        runs = [str(path) for path in siblings if (path / CONFIG_FILE).is_file()]
        what = "has no config.yaml" if run_dir.exists() else "does not exist"
        raise ConfigError(
            f"{run_dir} {what}: expected the directory of a run, such as "
            f"runs/<task>/<algo>/<time>-seed0.{did_you_mean(str(run_dir), runs)}"
        )
    try:
        values = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is not the configuration of a run: expected keys and values.")
    return {str(key): value for key, value in values.items()}
