"""``metrics.csv``: one row per logged iteration, readable at any time, exact after a resume."""

from __future__ import annotations

import csv
import io
import math
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from hetmarl_envs.errors import ConfigError

FRAMES = "frames"


class MetricsCSVLogger(Logger):
    """Writes one row per logged iteration; the first column is ``frames``.

    * The file is valid CSV at any moment, also after ``kill -9``: a row is appended in one write,
      everything else (a new column, an evaluation joining its iteration's row) replaces the file
      in one rename.
    * Values of equal ``frames`` share a row: an evaluation follows its iteration's training.
    * Columns stand in the order of their first appearance. An empty cell is a value that was not
      logged, or NaN (no episode ended in the iteration).
    * ``begin(frames)`` drops what a killed run wrote past its checkpoint, so that the file of an
      interrupted and resumed run equals that of an uninterrupted one but for ``time/*``.
      ``ResumeMetrics`` calls it.

    ``Trainer(log_every_n_steps=1)`` logs every iteration; Lightning's default is every 50th.

    Args:
        directory: the run's directory; created with the first row.
        filename: name of the file inside it.
    """

    def __init__(self, directory: str | os.PathLike[str], filename: str = "metrics.csv") -> None:
        super().__init__()
        self.path = Path(directory) / filename
        self._columns: list[str] = []
        self._last: dict[str, str] = {}
        self._begun = False

    # ------------------------------------------------------------------ Lightning's interface
    @property
    def name(self) -> str:
        """Empty, so that Lightning's own checkpoints land in ``directory/checkpoints``."""
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def log_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Nothing to do: ``config.yaml`` and the checkpoint hold them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Writes scalars.

        Args:
            metrics: name to number or one-element tensor.
            step: frames at which they were taken; None: the last row's.
        """
        if not self._begun:
            self.begin(0)
        last = int(self._last.get(FRAMES, 0))
        frames = last if step is None else int(step)
        row = {name: _text(value) for name, value in metrics.items() if name != FRAMES}
        row = {FRAMES: str(frames), **row}
        if set(row) <= set(self._columns) and frames > last:
            with _reported(self.path), self.path.open("ab", buffering=0) as file:
                file.write(_line([row.get(column, "") for column in self._columns]))
            self._last = row
        else:
            self._merge(row)

    # ------------------------------------------------------------------ resume
    @rank_zero_only
    def begin(self, frames: int) -> None:
        """Takes up the file at a checkpoint.

        Args:
            frames: what the checkpoint stands at; rows past it are dropped. 0 is a new run: the
                rows of another one move aside to ``metrics.1.csv``, ``metrics.2.csv``, ...

        Raises:
            ConfigError: the directory cannot be written, or the file is no such table.
        """
        self._begun = True
        with _reported(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self._columns, self._last = [FRAMES], {}
                return
            columns, rows, whole = _read(self.path)
            if frames == 0 and any(row[FRAMES] != "0" for row in rows):
                os.replace(self.path, _free_name(self.path))
                self._columns, self._last = [FRAMES], {}
                return
            kept = [row for row in rows if int(row[FRAMES]) <= frames]
            if len(kept) < len(rows) or not whole:
                self._replace(columns, kept)
            else:
                self._columns, self._last = columns, rows[-1] if rows else {}

    def _merge(self, row: dict[str, str]) -> None:
        """Adds columns, or joins values to the row of the same frames, by replacing the file."""
        with _reported(self.path):
            columns, rows, _ = _read(self.path) if self.path.exists() else ([FRAMES], [], True)
            columns += [name for name in row if name not in columns]
            same = [old for old in rows if old[FRAMES] == row[FRAMES]]
            if same:
                same[0].update(row)
            else:
                rows.append(row)
                rows.sort(key=lambda entry: int(entry[FRAMES]))
            self._replace(columns, rows)

    def _replace(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("wb") as file:
            file.write(_line(columns))
            file.writelines(_line([row.get(column, "") for column in columns]) for row in rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        self._columns, self._last = columns, rows[-1] if rows else {}


class ResumeMetrics(Callback):
    """Takes up every ``MetricsCSVLogger`` of the trainer at the frames the training starts from."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSVLogger):
                logger.begin(frames_of(trainer, pl_module))


def frames_of(trainer: Trainer, pl_module: LightningModule) -> int:
    """Frames trained so far: the module's ``frames`` buffer, else iterations for other modules."""
    frames = getattr(pl_module, "frames", None)
    return int(trainer.global_step if frames is None else frames)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turns an error of the file system into one that says which file and what to do."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"Cannot write {path}: {error.strerror or error}. Choose a run_dir that can be written "
            "and has space left."
        ) from error


def _text(value: Any) -> str:
    """Shortest text that reads back as the same number; empty for NaN."""
    number = float(value)
    if math.isnan(number):
        return ""
    if math.isfinite(number) and abs(number) < 3e38 and float(np.float32(number)) == number:
        return str(np.float32(number))  # Lightning logs float32: 0.1, not 0.10000000149011612
    return repr(number)


def _line(cells: Sequence[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()


def _read(path: Path) -> tuple[list[str], list[dict[str, str]], bool]:
    """Columns, rows, and whether the last line is whole (a full disk may have cut it)."""
    text = path.read_bytes().decode(errors="replace")
    whole = text.endswith("\n")
    lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    columns = lines[0] if lines else [FRAMES]
    rows = [dict(zip(columns, cells, strict=False)) for cells in lines[1:]]
    if columns[0] != FRAMES or not all(row.get(FRAMES, "").isdigit() for row in rows):
        raise ConfigError(
            f"{path} is no metrics.csv of hetmarl: expected the first column '{FRAMES}' with whole "
            f"numbers, found '{columns[0]}'. Move it away, or choose another run_dir."
        )
    return columns, rows, whole or not text


def _free_name(path: Path) -> Path:
    number = 1
    while (candidate := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return candidate
