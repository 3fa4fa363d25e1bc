"""Tables of learning runs: trains what is missing, one row per finished run.

    python benchmarks/learn.py run foundation        trains; kill it and start it again at any time
    python benchmarks/learn.py status foundation     what is finished, how far the others are
    python benchmarks/learn.py table foundation      the results as a Markdown table
    python benchmarks/learn.py plot foundation       docs/assets/learn_<task>.png

The suites stand in ``benchmarks/suites.yaml``. A run is ``hetmarl train`` in a process of its own,
in ``runs/learn/``; a finished one adds a row to ``benchmarks/results/learn.csv`` and its evaluation
curve to ``benchmarks/results/curves/``. Finished runs are skipped and unfinished ones resumed from
their last checkpoint. Several of these commands may run at once: each run is taken by one of them.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from hetmarl.curves import read_curve, read_metrics, replaced

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = (
    "task algo label seed frames overrides return_mean return_std best_mean random_mean random_std "
    "wall_seconds threads commit versions"
).split()
EPISODES_OF_RANDOM = 20
# Student's t, 97.5 %: half of a 95 % interval in standard errors, for 1, 2, … degrees of freedom
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Run:
    """One training: an entry of a suite with one of its seeds."""

    task: str
    algo: str
    label: str
    seed: int
    frames: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of files: ``<task>-<label>-seed<seed>``, the task without its family."""
        return f"{self.task.partition('/')[2] or self.task}-{self.label}-seed{self.seed}"

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
    """The runs of a suite, seed by seed, so that every entry has a result early."""
    suites: Any = OmegaConf.to_container(OmegaConf.load(file))
    if name not in suites:
        raise SystemExit(f"There is no suite '{name}' in {file}; it has {', '.join(suites)}.")
    runs = [
        Run(
            entry["task"],
            entry["algo"],
            str(entry.get("label", entry["algo"])),
            seed,
            int(entry["frames"]),
            tuple(map(str, entry.get("overrides") or ())),
        )
        for entry in suites[name]
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
        """Adds a row in place of an older one of the same task, label and seed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with locked(self.directory / ".lock", wait=True):
            same = ("task", "label", "seed")
            kept = [old for old in self.rows() if any(old[key] != row[key] for key in same)]
            rows = sorted([*kept, row], key=lambda r: (r["task"], r["label"], int(r["seed"])))
            write_csv(self.table, COLUMNS, [[r[column] for column in COLUMNS] for r in rows])


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


# ---------------------------------------------------------------------- training
def train(run: Run, results: Results, runs_dir: Path, threads: int) -> str:
    """Trains or resumes one run and records it; returns what happened, in words."""
    if results.find(run):
        return "finished before"
    run_dir = runs_dir / run.name
    with locked(runs_dir / f"{run.name}.lock") as lock:
        if lock is None:
            return "is being trained by another process"
        if not is_complete(run, run_dir):
            started = (run_dir / "checkpoints" / "last.ckpt").exists()
            if not started and run_dir.exists():
                shutil.rmtree(run_dir)  # killed before its first checkpoint
            if not started:
                commit_of(run, runs_dir).write_text(commit())
            log = runs_dir / f"{run.name}.log"
            with log.open("a") as output:
                code = subprocess.run(
                    command(run, run_dir, threads, resume=started),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                    pass_fds=[lock.fileno()],
                    check=False,
                ).returncode
            if code or not is_complete(run, run_dir):
                return f"FAILED with exit code {code}, see {log}"
        began_with = commit_of(run, runs_dir).read_text()
        row = record(run, run_dir, results, {"threads": str(threads), "commit": began_with})
        return f"return {float(row['return_mean']):.0f}, random {float(row['random_mean']):.0f}"


def command(run: Run, run_dir: Path, threads: int, resume: bool) -> list[str]:
    """The ``hetmarl train`` of a run."""
    settings = [
        f"algo={run.algo}",
        f"task={run.task}",
        f"seed={run.seed}",
        f"total_frames={run.frames}",
        f"torch_threads={threads}",
        "trainer.enable_progress_bar=false",
        *run.overrides,
    ]
    place = [f"run_dir={run_dir}", *(["resume=last"] if resume else [])]
    return [sys.executable, "-m", "hetmarl.cli.main", "train", *settings, *place]


def commit_of(run: Run, runs_dir: Path) -> Path:
    """Where the commit stands that the run was started with."""
    return runs_dir / f"{run.name}.commit"


def is_complete(run: Run, run_dir: Path) -> bool:
    """Whether the run got to its last frame and was evaluated there."""
    if not (run_dir / "metrics.csv").exists():
        return False
    metrics = read_metrics(run_dir)
    evaluated = ~np.isnan(metrics.get("eval/return_mean", np.full(1, math.nan)))
    return bool(evaluated.any() and metrics["frames"][evaluated][-1] >= run.frames)


def record(
    run: Run, run_dir: Path, results: Results, circumstances: dict[str, str]
) -> dict[str, str]:
    """Writes the run's curve, then its row."""
    curve = read_curve(run_dir)
    metrics = read_metrics(run_dir)
    points = [
        (int(frames), f"{mean:.6g}", f"{spread:.6g}")
        for frames, mean, spread in zip(curve.frames, curve.mean, curve.spread, strict=True)
    ]
    write_csv(results.curve(run), ("frames", "return_mean", "return_std"), points)
    random_mean, random_std = random_return(run_dir)
    row = run.identity | {
        "return_mean": f"{curve.mean[-1]:.6g}",
        "return_std": f"{curve.spread[-1]:.6g}",
        "best_mean": f"{curve.mean.max():.6g}",
        "random_mean": f"{random_mean:.6g}",
        "random_std": f"{random_std:.6g}",
        "wall_seconds": f"{np.nanmax(metrics['time/elapsed_seconds']):.0f}",
        "versions": versions(),
        **circumstances,
    }
    results.add(row)
    return row


def random_return(run_dir: Path) -> tuple[float, float]:
    """Mean and standard deviation of 20 episodes of uniform actions, in the run's own task."""
    from hetmarl.cli.run_dir import read_config
    from hetmarl.cli.train import EnvFactory
    from hetmarl.conf import resolve
    from hetmarl.data import evaluate
    from hetmarl_envs.contract import TeamSpec, write_random_actions

    env = EnvFactory(resolve(read_config(run_dir)).train.task)(num_envs=EPISODES_OF_RANDOM, seed=0)
    spec, generator = TeamSpec.from_env(env), torch.Generator().manual_seed(0)
    result = evaluate(lambda data: write_random_actions(data, spec, generator), env)
    env.close()
    return result["return_mean"], result["return_std"]


def commit() -> str:
    """The packages' version; ``-dirty`` behind it where they were changed since."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    dirty = git("status", "--porcelain", "--", "hetmarl", "envs", "pyproject.toml")
    return git("describe", "--always") + ("-dirty" if dirty else "")


def versions() -> str:
    """Of everything that numbers depend on."""
    named = [f"python {platform.python_version()}"]
    for package in ("torch", "torchrl", "tensordict", "lightning", "mujoco", "vmas"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(named)


# ---------------------------------------------------------------------- results
def lines(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """Runs by (task, label), in the order of the suite."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.task, run.label), []).append(run)
    return grouped


def interval(values: np.ndarray) -> np.ndarray:
    """Half the 95 % confidence interval of the mean over seeds, ``values [seeds, ...]``."""
    seeds = len(values)
    if seeds < 2:
        return np.zeros(values.shape[1:])
    student = STUDENT[seeds - 2] if seeds - 2 < len(STUDENT) else 1.96
    return student * values.std(0, ddof=1) / math.sqrt(seeds)


def markdown(runs: Sequence[Run], results: Results) -> str:
    """The suite's finished runs as a Markdown table."""
    text = [
        "| task | | frames | seeds | evaluation return | of each seed | best | random | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (task, label), members in lines(runs).items():
        rows = [row for row in map(results.find, members) if row]
        if not rows:
            continue
        finals, best, random, wall = (
            np.array([float(row[column]) for row in rows])
            for column in ("return_mean", "best_mean", "random_mean", "wall_seconds")
        )
        spread = f" ± {interval(finals):.0f}" if len(rows) > 1 else ""
        each = ", ".join(f"{value:.0f}" for value in finals)
        text.append(
            f"| {task} | {label} | {members[0].frames:,} | {len(rows)} "
            f"| {finals.mean():.0f}{spread} | {each} | {best.max():.0f} | {random.mean():.0f} "
            f"| {wall.mean() / 60:.0f} |"
        )
    text += [
        "",
        "Evaluation return: mean over seeds of the last evaluation's mean over episodes, "
        "deterministic policy, ± half the 95 % confidence interval of that mean. Best: the highest "
        "evaluation of any seed. Minutes: of one run, evaluations included.",
    ]
    return "\n".join(text)


def plot(runs: Sequence[Run], results: Results, assets: Path) -> list[Path]:
    """One image per task: every seed thin, their mean and its 95 % interval, the random policy."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    images: list[Path] = []
    for task in dict.fromkeys(run.task for run in runs):
        figure = Figure(figsize=(7.0, 4.2), dpi=120, layout="constrained")
        axes = figure.subplots()
        random: list[float] = []
        for (of, label), members in lines(runs).items():
            finished = [(run, row) for run in members if of == task and (row := results.find(run))]
            if not finished:
                continue
            random += [float(row["random_mean"]) for _, row in finished]
            curves = [
                np.loadtxt(results.curve(run), delimiter=",", skiprows=1, ndmin=2)
                for run, _ in finished
            ]
            shortest = min(len(curve) for curve in curves)
            frames = curves[0][:shortest, 0]
            values = np.stack([curve[:shortest, 1] for curve in curves])
            mean, half = values.mean(0), interval(values)
            name = f"{label} ({len(curves)} seeds)" if len(curves) > 1 else label
            (line,) = axes.plot(frames, mean, label=name, linewidth=2)
            axes.fill_between(
                frames, mean - half, mean + half, color=line.get_color(), alpha=0.18, linewidth=0
            )
            for curve in curves:
                axes.plot(
                    curve[:, 0], curve[:, 1], color=line.get_color(), alpha=0.45, linewidth=0.8
                )
        if not random:
            continue
        axes.axhline(float(np.mean(random)), color="gray", linestyle="--", label="random")
        axes.set(title=task, xlabel="frames", ylabel="evaluation return")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.legend()
        assets.mkdir(parents=True, exist_ok=True)
        image = assets / f"learn_{task.partition('/')[2] or task}.png"
        with replaced(image) as temporary:
            figure.savefig(temporary, format="png")
        images.append(image)
    return images


def status(runs: Sequence[Run], results: Results, runs_dir: Path) -> str:
    """A line per run."""
    text = []
    for run in runs:
        row = results.find(run)
        if row:
            state = f"finished, return {float(row['return_mean']):.0f}"
        elif (runs_dir / run.name / "metrics.csv").exists():
            state = f"at frame {int(read_metrics(runs_dir / run.name)['frames'][-1]):,}"
        else:
            state = "not started"
        text.append(f"{run.name:<44} {run.frames:>12,} frames  {state}")
    return "\n".join(text)


# ---------------------------------------------------------------------- command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["run", "status", "table", "plot"])
    parser.add_argument("suite", help="its name in the file of suites")
    parser.add_argument("--suites", type=Path, default=ROOT / "benchmarks" / "suites.yaml")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs" / "learn")
    parser.add_argument("--assets", type=Path, default=ROOT / "docs" / "assets")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch in each run")
    given = parser.parse_args(arguments)
    runs, results = read_suite(given.suite, given.suites), Results(given.results)
    if given.action == "status":
        print(status(runs, results, given.runs_dir))
    elif given.action == "table":
        print(markdown(runs, results))
    elif given.action == "plot":
        for image in plot(runs, results, given.assets):
            print(image)
    else:
        failed = 0

        def one(run: Run) -> None:
            nonlocal failed
            print(f"{run.name}: starts", flush=True)
            outcome = train(run, results, given.runs_dir, given.threads)
            failed += outcome.startswith("FAILED")
            print(f"{run.name}: {outcome}", flush=True)

        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(one, runs))
        return 1 if failed else 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
