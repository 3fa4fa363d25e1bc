"""What came of a suite's runs: a table, curves, how far they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from learn_runs import Results, Run

from hetmarl.curves import read_metrics, replaced

# Student's t, 97.5 %: half of a 95 % interval in standard errors, for 1, 2, … degrees of freedom
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class Line(NamedTuple):
    """A task and label with the runs that have finished, at least one; arrays ``[seeds]``."""

    task: str
    label: str
    frames: int
    finished: list[Run]
    finals: np.ndarray
    best: np.ndarray
    random: np.ndarray
    seconds: np.ndarray
    won: np.ndarray
    random_won: np.ndarray
    simulated: bool

    @property
    def battles(self) -> int:
        """How many each seed's last policy fought; 0: none, and ``won`` is NaN."""
        return self.finished[0].battles


def lines(runs: Sequence[Run], results: Results) -> list[Line]:
    """What has finished, in the order of the suite."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.task, run.label), []).append(run)
    found = []
    for (task, label), members in grouped.items():
        rows = [(run, row) for run in members if (row := results.find(run))]
        if rows:
            names = "return_mean best_mean random_mean wall_seconds won random_won".split()
            columns = (np.array([float(row[name] or "nan") for _, row in rows]) for name in names)
            finished = [run for run, _ in rows]
            simulated = any("simulated" in row["versions"] for _, row in rows)
            found.append(Line(task, label, members[0].frames, finished, *columns, simulated))
    return found


def wilson(won: int, battles: int) -> tuple[float, float]:
    """95 % interval of a win rate (Wilson 1927)."""
    z = 1.96
    centre = (won + z**2 / 2) / (battles + z**2)
    half = z / (battles + z**2) * math.sqrt(won * (battles - won) / battles + z**2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)  # but for rounding they are inside


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
    for line in lines(runs, results):
        seeds, finals = len(line.finals), line.finals
        spread = f" ± {interval(finals):.0f}" if seeds > 1 else ""
        each = ", ".join(f"{value:.0f}" for value in finals)
        text.append(
            f"| {line.task} | {line.label} | {line.frames:,} | {seeds} "
            f"| {finals.mean():.0f}{spread} | {each} | {line.best.max():.0f} "
            f"| {line.random.mean():.0f} | {line.seconds.mean() / 60:.0f} |"
        )
    text += [
        "",
        "Evaluation return: mean over seeds of the last evaluation's mean over episodes, "
        "deterministic policy, ± half the 95 % confidence interval of that mean. Best: the highest "
        "evaluation of any seed. Minutes: of one run, evaluations included.",
    ]
    return "\n".join(text)


def plot(runs: Sequence[Run], results: Results, assets: Path, suite: str) -> list[Path]:
    """One image per task: every seed thin, their mean and its 95 % interval, the random policy.

    Of the share of battles won where the suite's runs have it, else of the return.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    images: list[Path] = []
    found = lines(runs, results)
    for task in dict.fromkeys(run.task for run in runs):
        members = [line for line in found if line.task == task]
        if not members:
            continue
        figure = Figure(figsize=(7.0, 4.2), dpi=120, layout="constrained")
        axes = figure.subplots()
        battles = members[0].battles
        column, what = (3, "battles won") if battles else (1, "evaluation return")
        for line in members:
            curves = [
                np.loadtxt(results.curve(run), delimiter=",", skiprows=1, ndmin=2)
                for run in line.finished
            ]
            shortest = min(len(curve) for curve in curves)
            frames = curves[0][:shortest, 0]
            values = np.stack([curve[:shortest, column] for curve in curves])
            mean, half = values.mean(0), interval(values)
            name = f"{line.label} ({len(curves)} seeds)" if len(curves) > 1 else line.label
            (drawn,) = axes.plot(frames, mean, label=name, linewidth=2)
            color = drawn.get_color()
            axes.fill_between(
                frames, mean - half, mean + half, color=color, alpha=0.18, linewidth=0
            )
            for curve in curves:
                axes.plot(curve[:, 0], curve[:, column], color=color, alpha=0.45, linewidth=0.8)
        chance = [line.random_won / battles if battles else line.random for line in members]
        random = np.concatenate(chance).mean()
        axes.axhline(random, color="gray", linestyle="--", label="random")
        mark = " (simulated)" if any(line.simulated for line in members) else ""
        axes.set(title=task + mark, xlabel="frames", ylabel=what)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.legend()
        assets.mkdir(parents=True, exist_ok=True)
        image = assets / f"{suite}_{task.partition('/')[2] or task}.png"
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
