"""Learning curves from ``metrics.csv`` files: one run, or the mean over several seeds."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hetmarl_envs.errors import ConfigError, did_you_mean

Array = NDArray[np.float64]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Curve:
    """Values against frames, ``frames``, ``mean`` and ``spread`` each ``[points]``.

    ``spread`` is one standard deviation: over the episodes of an evaluation for one run, over the
    runs for several.
    """

    frames: Array
    mean: Array
    spread: Array
    runs: int = 1


def read_metrics(path: PathLike) -> dict[str, Array]:
    """Columns of a ``metrics.csv``, each ``[rows]``; NaN where a cell is empty.

    Args:
        path: the file, or the run directory that holds it.

    Raises:
        ConfigError: there is no such file.
    """
    file = Path(path)
    file = file / "metrics.csv" if file.is_dir() else file
    if not file.is_file():
        raise ConfigError(f"There is no {file}. Give a run directory, or a metrics.csv of one.")
    with file.open(newline="") as stream:
        header, *rows = [*csv.reader(stream)] or [["frames"]]
    cells = [[float(cell) if cell else math.nan for cell in row] for row in rows]
    table = np.array(cells, dtype=np.float64).reshape(len(rows), len(header))
    return {name: table[:, column] for column, name in enumerate(header)}


def read_curve(run: PathLike, metric: str = "eval/return_mean") -> Curve:
    """One metric of one run, at the rows where it was logged.

    Args:
        run: a run directory or a ``metrics.csv``.
        metric: a column; where it ends in ``_mean`` and a column ``_std`` stands beside it, that
            is the spread.

    Raises:
        ConfigError: no such file, or no such column; names the nearest.
    """
    columns = read_metrics(run)
    if metric not in columns:
        raise ConfigError(
            f"{run} has no values of '{metric}' yet.{did_you_mean(metric, columns)} "
            f"It has {', '.join(columns)}."
        )
    logged = ~np.isnan(columns[metric])
    mean = columns[metric][logged]
    deviation = columns.get(f"{metric.removesuffix('_mean')}_std")
    spread = np.zeros_like(mean) if deviation is None else np.nan_to_num(deviation[logged])
    return Curve(columns["frames"][logged], mean, spread)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean and standard deviation over runs, on the frames that all of them cover.

    Runs evaluated at different frames are interpolated linearly.
    """
    if len(curves) == 1:
        return curves[0]
    first = max(curve.frames[0] for curve in curves)
    last = min(curve.frames[-1] for curve in curves)
    frames = np.unique(np.concatenate([curve.frames for curve in curves]))
    frames = frames[(frames >= first) & (frames <= last)]
    values = np.stack([np.interp(frames, curve.frames, curve.mean) for curve in curves])
    return Curve(frames, values.mean(0), values.std(0, ddof=1), len(curves))


def is_simulated(run: PathLike) -> bool:
    """Whether the environment said so of itself, as the game in whose place a simulator stood."""
    told = read_metrics(run).get("eval/simulated_mean", np.zeros(1))
    return bool((told > 0).any())


def plot_curves(
    runs: PathLike | Sequence[PathLike] | Mapping[str, Sequence[PathLike]],
    out: PathLike,
    *,
    metric: str = "eval/return_mean",
    title: str | None = None,
) -> Path:
    """Draws learning curves into an image; a reader never sees half of one.

    Simulated runs are marked as such where they are named: in their line's label, or in the title.

    Args:
        runs: one run, a line of its own; several runs (seeds), their mean; or label to runs, a
            line per label. The band is one standard deviation, see ``Curve``.
        out: file to write; its ending chooses the format (png, pdf, svg).
        metric: column of ``metrics.csv``.
        title: above the axes.

    Returns:
        ``out``.

    Raises:
        ConfigError: nothing to draw, or an ending that is no image format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    if isinstance(runs, (str, os.PathLike)):
        runs = {"": [runs]}
    elif not isinstance(runs, Mapping):
        runs = {"": list(runs)}
    out = Path(out)
    figure = Figure(figsize=(7.0, 4.2), dpi=120, layout="constrained")
    formats = FigureCanvasAgg(figure).get_supported_filetypes()
    if out.suffix[1:] not in formats:
        raise ConfigError(f"'{out.name}' is no image file: end it in .png, .pdf or .svg.")
    axes = figure.subplots()
    for label, paths in runs.items():
        curves = [curve for curve in (read_curve(p, metric) for p in paths) if curve.frames.size]
        if not curves:
            raise ConfigError(f"No run has a value of '{metric}' yet: {[str(p) for p in paths]}.")
        curve = mean_curve(curves)
        if any(map(is_simulated, paths)):
            if label:
                label += " (simulated)"
            else:
                title = f"{title or ''} (simulated)".strip()
        name = label if curve.runs == 1 else f"{label} (mean of {curve.runs} runs)".strip()
        marker = "o" if curve.frames.size < 3 else None
        (line,) = axes.plot(curve.frames, curve.mean, label=name, marker=marker)
        low, high = curve.mean - curve.spread, curve.mean + curve.spread
        axes.fill_between(curve.frames, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        if name:
            axes.legend()
    axes.set_xlabel("frames")
    axes.set_ylabel("evaluation return" if metric == "eval/return_mean" else metric)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.3)
    if title:
        axes.set_title(title)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced(out) as temporary:
        figure.savefig(temporary, format=out.suffix[1:])
    return out


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` when the block ends well."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
