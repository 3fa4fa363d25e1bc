"""Neptune's file format, written offline: the hosted service is gone."""

from __future__ import annotations

import math
import os
import random
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from hetmarl_envs.errors import MissingExtraError

SUNSET = (
    "The hosted Neptune service ended in March 2026 and Lightning dropped its NeptuneLogger: there "
    "is no server to sync with, hetmarl writes Neptune's offline format only."
)


class NeptuneOfflineLogger(Logger):
    """Logs through the Neptune client's offline mode, into ``directory/neptune``.

    **The hosted Neptune service ended in March 2026** and Lightning removed its logger. This one is
    for those who run their own tools on Neptune's offline files, and for a self-hosted server that
    ``neptune sync`` reaches. Nothing leaves the machine, no git state, no source files and no
    machine metrics are captured. ``metrics.csv`` is always written beside it, so that no result
    lives in this format only.

    Args:
        directory: the run's directory.
        project: project name that the offline files carry, ``workspace/name``.
        name: the run's name.

    Raises:
        MissingExtraError: the client is not installed.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        project: str = "offline/hetmarl",
        name: str | None = None,
    ) -> None:
        super().__init__()
        try:
            import neptune  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(
                'logger "neptune" needs the neptune client: pip install "hetmarl[neptune]". '
                f'{SUNSET} For a live board take "tensorboard", "wandb" or "mlflow".'
            ) from error
        self._directory = Path(directory)
        self._project = project
        self._name = name
        self._run: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``neptune.Run``, opened at first use."""
        if self._run is None:
            import neptune

            self._directory.mkdir(parents=True, exist_ok=True)
            # The client has no argument for where its offline files go; its default is the
            # working directory.
            with _hermetic(NEPTUNE_DATA_DIRECTORY=str(self._directory.resolve() / "neptune")):
                self._run = neptune.init_run(
                    project=self._project,
                    mode="offline",
                    name=self._name,
                    git_ref=False,
                    source_files=[],
                    capture_stdout=False,
                    capture_stderr=False,
                    capture_traceback=False,
                    capture_hardware_metrics=False,
                )
        return self._run

    @property
    def name(self) -> str:
        return self._name or "neptune"

    @property
    def version(self) -> str:
        return "offline"

    @property
    def save_dir(self) -> str:
        return str(self._directory)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Appends scalars to the series ``metrics/<name>``; ``step`` is in frames.

        The format has no NaN and no infinity: such values are left out.
        """
        for key, value in metrics.items():
            if math.isfinite(value):
                self.experiment[f"metrics/{key}"].append(float(value), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Writes settings as text under ``hyperparameters/...``."""
        values = vars(params) if isinstance(params, Namespace) else params
        for path, value in _flatten(values).items():
            self.experiment[f"hyperparameters/{path}"] = value

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Stops the run, which flushes its files; a further ``fit`` opens a new one."""
        if self._run is not None:
            self._run["status"] = status
            self._run.stop()
            self._run = None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


@contextmanager
def _hermetic(**variables: str) -> Iterator[None]:
    """Environment variables, and Python's random state left as it was, for the length of a block.

    The client draws the name of its folder from the global generator that training may use.
    """
    before = {name: os.environ.get(name) for name in variables}
    state = random.getstate()
    os.environ.update(variables)
    try:
        yield
    finally:
        random.setstate(state)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
