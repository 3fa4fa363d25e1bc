"""``hetmarl plot <run_dir>... out=curves.png``: learning curves of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hetmarl.cli.arguments import parse
from hetmarl.cli.errors import clear_errors
from hetmarl.cli.run_dir import read_config
from hetmarl.curves import plot_curves
from hetmarl_envs.errors import ConfigError

USAGE = """usage: hetmarl plot <run_dir>... [out=curves.png] [metric=eval/return_mean] [group=true]

One line for each task and algorithm, the mean over its runs with a band of one standard deviation;
group=false: one line per run. out ends in .png, .pdf or .svg."""


@dataclass
class PlotConfig:
    """Arguments of the command."""

    out: str | None = None
    """Image to write; null: curve.png in the run's directory, curves.png here for several,
    with the metric's name for another metric."""
    metric: str = "eval/return_mean"
    """Column of metrics.csv."""
    group: bool = True
    """Averages runs of the same task and algorithm."""
    title: str | None = None
    """Above the axes."""


def main(arguments: Sequence[str]) -> None:
    """Draws the image and says where."""
    with clear_errors():
        runs, config = parse(PlotConfig, arguments, USAGE)
        if not runs:
            raise ConfigError(f"no run is given.\n{USAGE}")
        name = "curve" if config.metric == "eval/return_mean" else config.metric.replace("/", "_")
        default = Path(runs[0], f"{name}.png") if len(runs) == 1 else Path(f"{name}s.png")
        out = Path(config.out) if config.out else default
        try:
            plot_curves(_lines(runs, config.group), out, metric=config.metric, title=config.title)
        except OSError as error:
            raise ConfigError(f"out={out} cannot be written: {error.strerror or error}.") from error
    print(out)


def _lines(runs: Sequence[str], group: bool) -> dict[str, list[str]]:
    """Label of each line to the runs that it shows."""
    lines: dict[str, list[str]] = {}
    for run in runs:
        label = "/".join(Path(run).resolve().parts[-2:])
        if group:
            saved = read_config(Path(run))
            label = f"{saved['task']['name']} {saved['algo']['name']}"
        lines.setdefault(label, []).append(run)
    return lines
