"""The runs of a suite, and the files that hold what came of them."""

from __future__ import annotations

import csv
import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hetmarl.curves import replaced

COLUMNS = (
    "task algo label seed frames overrides return_mean return_std best_mean random_mean random_std "
    "won random_won battles wall_seconds threads commit versions"
).split()


@dataclass(frozen=True)
class Run:
    """One training: an entry of a suite with one of its seeds."""

    task: str
    algo: str
    label: str
    seed: int
    frames: int
    overrides: tuple[str, ...]
    battles: int = 0

    @property
    def name(self) -> str:
        """Of files: ``<family>_<task>-<label>-<frames>-seed<seed>``."""
        task = self.task.replace("/", "_")
        return f"{task}-{self.label}-{self.frames}-seed{self.seed}"

    @property
    def identity(self) -> dict[str, str]:
        """Its cells in the first columns of the table."""
        return {
            "task": self.task,
            "algo": self.algo,
            "label": self.label,
            "seed": str(self.seed),
            "frames": str(self.frames),
            "overrides": " ".join(self.overrides),
        }


def read_suite(name: str, file: Path) -> list[Run]:
    """The runs of a suite, seed by seed, so that every entry has a result early.

    An entry's ``algo`` may be a list; ``{algo}`` in its overrides then stands for each. With
    ``battles`` its last checkpoint plays so many at the end, on seeds that training never saw.
    """
    suites: Any = OmegaConf.to_container(OmegaConf.load(file))
    if name not in suites:
        raise SystemExit(f"There is no suite '{name}' in {file}; it has {', '.join(suites)}.")
    runs = [
        Run(
            entry["task"],
            algo,
            str(entry.get("label", algo)),
            seed,
            int(entry["frames"]),
            tuple(str(text).replace("{algo}", algo) for text in entry.get("overrides") or ()),
            int(entry.get("battles", 0)),
        )
        for entry in suites[name]
        for algo in ([entry["algo"]] if isinstance(entry["algo"], str) else entry["algo"])
        for seed in entry["seeds"]
    ]
    if len({run.name for run in runs}) < len(runs):
        raise SystemExit(f"Suite '{name}': two entries of one task have the same label.")
    return sorted(runs, key=lambda run: run.seed)


class Results:
    """``learn.csv`` and ``curves/``, shared by several processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.table = directory / "learn.csv"

    def rows(self) -> list[dict[str, str]]:
        if not self.table.exists():
            return []
        with self.table.open(newline="") as stream:
            return list(csv.DictReader(stream))

    def find(self, run: Run) -> dict[str, str] | None:
        """The run's row, None before it has finished."""
        for row in self.rows():
            if all(row[key] == value for key, value in run.identity.items()):
                return row
        return None

    def curve(self, run: Run) -> Path:
        return self.directory / "curves" / f"{run.name}.csv"

    def add(self, row: dict[str, str]) -> None:
        """Adds a row in place of an older one of the same task, label, seed and frames."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with locked(self.directory / ".lock", wait=True):
            same = ("task", "label", "seed", "frames")
            kept = [old for old in self.rows() if any(old[key] != row[key] for key in same)]
            rows = sorted([*kept, row], key=lambda r: (r["task"], r["label"], int(r["seed"])))
            cells = [[row.get(column, "") for column in COLUMNS] for row in rows]
            write_csv(self.table, COLUMNS, cells)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[Any]:
    """Yields the lock's file, None where another process holds it.

    The lock lives as long as a process that has the file open, so that a training goes on holding
    it when the command that started it was killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield file


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a table, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
