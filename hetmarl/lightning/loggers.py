"""Loggers by name. The CSV file is always written; the others need their extra."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from hetmarl.lightning.metrics_csv import MetricsCSVLogger
from hetmarl.lightning.neptune import NeptuneOfflineLogger
from hetmarl_envs.errors import ConfigError, MissingExtraError, UnknownNameError, did_you_mean

PROJECT = "hetmarl"


def list_loggers() -> list[str]:
    """Names that ``build_loggers`` takes."""
    return ["csv", *sorted(_BUILDERS)]


def build_loggers(
    names: str | Iterable[str],
    run_dir: str | os.PathLike[str],
    *,
    run_name: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Logger]:
    """The loggers of a run, ``metrics.csv`` always first among them.

    Args:
        names: any of ``csv``, ``tensorboard``, ``wandb``, ``mlflow``, ``neptune``.
        run_dir: everything is written below it, unless the environment names a server
            (``MLFLOW_TRACKING_URI``, W&B's own variables).
        run_name: what boards show; default: the last parts of ``run_dir``.
        options: further arguments of a logger's class by its name, such as
            ``{"wandb": {"offline": True}}``.

    Raises:
        UnknownNameError: no such logger; names the nearest.
        MissingExtraError: its package is not installed; holds the pip line.
        ConfigError: the logger does not take one of the options.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    options = options or {}
    directory = Path(run_dir)
    run_name = run_name or "/".join(directory.resolve().parts[-3:])
    for name in [*wanted, *options]:
        if name not in list_loggers():
            raise UnknownNameError(
                f"There is no logger '{name}'.{did_you_mean(name, list_loggers())} "
                f"Choose from {', '.join(list_loggers())}."
            )
    loggers: list[Logger] = [MetricsCSVLogger(directory)]
    for name in dict.fromkeys(wanted):
        if name == "csv":
            continue
        given = dict(options.get(name, {}))
        try:
            loggers.append(_BUILDERS[name](directory, run_name, given))
        except TypeError as error:
            if not given:
                raise
            raise ConfigError(f"Logger '{name}' does not take {given}: {error}") from error
    return loggers


class _SkipNaN:
    """NaN says that an iteration had no value (no episode ended): no point on a board's curve."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        present = {name: value for name, value in metrics.items() if not math.isnan(value)}
        if present:
            super().log_metrics(present, step)  # type: ignore[misc]


def _tensorboard(directory: Path, run_name: str, options: dict[str, Any]) -> Logger:
    _require("tensorboard", "tensorboard", "tensorboardX")
    from lightning.pytorch.loggers import TensorBoardLogger

    class Board(_SkipNaN, TensorBoardLogger): ...

    arguments: dict[str, Any] = {"save_dir": directory, "name": "", "version": "tensorboard"}
    return Board(**arguments | options)


def _wandb(directory: Path, run_name: str, options: dict[str, Any]) -> Logger:
    _require("wandb", "wandb")
    from lightning.pytorch.loggers import WandbLogger

    class Board(_SkipNaN, WandbLogger): ...

    directory.mkdir(parents=True, exist_ok=True)  # else W&B falls back to a temporary folder
    name = re.sub(r"[^\w-]", "-", directory.name)  # W&B refuses some characters in an id
    arguments: dict[str, Any] = {
        "save_dir": directory,
        "project": os.environ.get("WANDB_PROJECT", PROJECT),
        "name": run_name,
        # The same directory is the same run, so that a resumed one continues it.
        "id": f"{name}-{zlib.crc32(str(directory.resolve()).encode()):08x}",
    }
    return Board(**arguments | options)


def _mlflow(directory: Path, run_name: str, options: dict[str, Any]) -> Logger:
    _require("mlflow", "mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    class Board(_SkipNaN, MLFlowLogger): ...

    arguments: dict[str, Any] = {"experiment_name": PROJECT, "run_name": run_name}
    server = os.environ.get("MLFLOW_TRACKING_URI")
    if server:
        arguments["tracking_uri"] = server
    else:  # MLflow 3 refuses plain files
        directory.mkdir(parents=True, exist_ok=True)
        arguments["tracking_uri"] = f"sqlite:///{directory.resolve() / 'mlflow.db'}"
        arguments["artifact_location"] = (directory.resolve() / "mlflow").as_uri()
    return Board(**arguments | options)


def _neptune(directory: Path, run_name: str, options: dict[str, Any]) -> Logger:
    return NeptuneOfflineLogger(directory, **{"name": run_name} | options)


_BUILDERS: dict[str, Callable[[Path, str, dict[str, Any]], Logger]] = {
    "mlflow": _mlflow,
    "neptune": _neptune,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}


def _require(extra: str, *modules: str) -> None:
    if not any(find_spec(module) for module in modules):
        raise MissingExtraError(
            f'logger "{extra}" needs {" or ".join(modules)}: pip install "hetmarl[{extra}]".'
        )
