"""Puts the results of suites into the documentation's pages, between marks that say which.

A page has

    <!-- learned: <suite> <suite> … [for <label>] [as grid] -->
    <!-- end of learned -->

and what stands in between is written here: a line per task and label, or as a grid one line per
task and a column per label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from learn_report import Line, interval, lines, wilson
from learn_runs import Results, Run, read_suite

MARK = re.compile(r"(<!-- learned: (.+?) -->\n).*?(<!-- end of learned -->)", re.DOTALL)


def filled(text: str, suites: Path, results: Results) -> str:
    """A page's text with its tables as the results have them."""

    def table(found: re.Match[str]) -> str:
        words = found[2].split()
        grid = words[-2:] == ["as", "grid"]
        words = words[:-2] if grid else words
        label = words.pop() if "for" in words else None
        names = [word for word in words if word != "for"]
        runs = [run for name in names for run in read_suite(name, suites)]
        runs = [run for run in runs if label in (None, run.label)]
        made = grid_table(runs, results) if grid else line_table(runs, results)
        return f"{found[1]}{made}\n{found[3]}"

    return MARK.sub(table, text)


def line_table(runs: Sequence[Run], results: Results) -> str:
    """A line per task and label, its mean over the seeds and half of the 95 % interval."""
    found = lines(runs, results)
    if found and found[0].battles:
        return battle_table(found)
    text = [
        "| task | | frames | last evaluation of each seed | mean ± 95 % | random | minutes a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in found:
        finals, minutes = line.finals, line.seconds / 60
        half = f" ± {number(float(interval(finals)))}" if len(finals) > 1 else ""
        spent = sorted({f"{minutes.min():.0f}", f"{minutes.max():.0f}"}, key=int)
        text.append(
            f"| `{line.task}` | {line.label} | {line.frames:,} | {', '.join(map(number, finals))} "
            f"| {number(finals.mean())}{half} | {number(line.random.mean())} "
            f"| {' to '.join(spent)} |"
        )
    return "\n".join(text) if len(text) > 2 else "*Not run yet.*"


def battle_table(found: Sequence[Line]) -> str:
    """A line per task and label: battles won of all seeds together, with the 95 % interval."""
    text = [
        "| task | | frames | seeds | battles won (95 %) | random wins | return | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in found:
        seeds = len(line.finals)
        played, won = line.battles * seeds, int(line.won.sum())
        low, high = wilson(won, played)
        text.append(
            f"| `{line.task}` | {line.label} | {line.frames:,} | {seeds} "
            f"| {won / played:.0%} of {played:,} ({low:.0%} to {high:.0%}) "
            f"| {line.random_won.sum() / played:.0%} | {number(line.finals.mean())} "
            f"| {number(line.seconds.mean() / 60)} |"
        )
    return "\n".join(text)


def grid_table(runs: Sequence[Run], results: Results) -> str:
    """A line per task, a column per label: the mean over the seeds."""
    labels = list(dict.fromkeys(run.label for run in runs))
    text = [f"| task | {' | '.join(labels)} | random |", "|---" * (len(labels) + 2) + "|"]
    found = lines(runs, results)
    for task in dict.fromkeys(run.task for run in runs):
        members = [line for line in found if line.task == task]
        if not members:
            continue
        means = {line.label: line.finals.mean() for line in members}
        cells = [number(means[label]) if label in means else "" for label in labels]
        random = np.concatenate([line.random for line in members]).mean()
        text.append(f"| `{task}` | {' | '.join(cells)} | {number(random)} |")
    return "\n".join(text) if len(text) > 2 else "*Not run yet.*"


def number(value: float) -> str:
    """Whole from a hundred on, three digits below; a true minus sign."""
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "−")
