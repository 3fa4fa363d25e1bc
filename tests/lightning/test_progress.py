"""What a person sees: lines, table, end; and what they no longer see."""

from __future__ import annotations

import io
import logging
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console

from hetmarl.lightning.curve import CurveCallback
from hetmarl.lightning.metrics_csv import MetricsCSVLogger, ResumeMetrics
from hetmarl.lightning.progress import TeamProgressBar, _clock, _number
from hetmarl.lightning.quiet import quiet_lightning

FitTiny = Callable[..., Trainer]


class Pace(Callback):
    """Gives an iteration a length that a clock can see."""

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(0.005)


def run(fit_tiny: FitTiny, run_dir: Path, *, terminal: bool = False, **arguments: Any) -> str:
    stream = io.StringIO()
    width = arguments.pop("width", 120)
    console = Console(file=stream, force_terminal=terminal, width=width, color_system=None)
    total = arguments.pop("total_frames", 1200)
    bar = TeamProgressBar(total, run_dir, console=console, live_interval=0, plain_interval=0)
    checkpoint = ModelCheckpoint(run_dir / "checkpoints", save_last=True)
    fit_tiny(
        12,
        logger=MetricsCSVLogger(run_dir),
        callbacks=[bar, Pace(), ResumeMetrics(), CurveCallback(run_dir), checkpoint],
        enable_progress_bar=True,
        enable_checkpointing=True,
        **arguments,
    )
    return stream.getvalue()


def test_plain_lines_and_a_table(tmp_path: Path, fit_tiny: FitTiny) -> None:
    text = run(fit_tiny, tmp_path)
    lines = text.splitlines()
    progress = [line for line in lines if "frames/s" in line]
    assert len(progress) == 12
    assert re.fullmatch(
        r"600/1,200 frames · [\d,]+ frames/s · return 85.71 · eval 133.3 · \d:\d\d left",
        progress[5],
    )
    table = lines[lines.index(next(line for line in lines if "evaluation return" in line)) :]
    rows = [line for line in table if "±" in line]
    assert [row.split()[:4] for row in rows] == [
        ["400", "133.3", "±", "13.33"],
        ["800", "266.7", "±", "26.67"],
        ["1,200", "400.0", "±", "40"],
    ]
    assert all(row.split()[4] == "25" for row in rows)
    assert text.count("evaluation return  ") == 1


def test_the_end_says_where_things_are(tmp_path: Path, fit_tiny: FitTiny) -> None:
    text = run(fit_tiny, tmp_path)
    end = text[text.index("Finished at frame 1,200") :]
    assert f"Written to {tmp_path}" in end
    for name in ("checkpoints/last.ckpt", "curve.png", "metrics.csv"):
        assert name in end and (tmp_path / name).exists()
    assert "best.ckpt" not in end  # nothing of that name was written


def test_a_killed_run_says_where_it_stopped(tmp_path: Path, fit_tiny: FitTiny) -> None:
    text = run(fit_tiny, tmp_path, kill_at=6)
    assert "Stopped at frame 600." in text and "resume=last" in text
    again = run(fit_tiny, tmp_path, resume=tmp_path / "checkpoints" / "last.ckpt")
    assert "Going on at frame 400." in again and "Finished at frame 1,200" in again


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_live_bar_on_a_terminal(tmp_path: Path, fit_tiny: FitTiny, width: int) -> None:
    text = run(fit_tiny, tmp_path, terminal=True, width=width)
    assert " left" in text and "eval" in text and "…" not in text
    assert "training" in text and "━" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
    assert "1,200" in text and "±" in text


def test_total_frames_follow_from_the_loader(tmp_path: Path, fit_tiny: FitTiny) -> None:
    assert "300/1,200 frames" in run(fit_tiny, tmp_path, total_frames=None)


def test_disabled_on_other_ranks(fit_tiny: FitTiny) -> None:
    stream = io.StringIO()
    bar = TeamProgressBar(100, console=Console(file=stream), plain_interval=0)
    bar.disable()
    fit_tiny(4, callbacks=[bar], enable_progress_bar=True)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert _clock(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.001234, "0.001234"), (-12.3456, "-12.35"), (1234.56, "1,234.6"), (2e9, "2e+09")],
)
def test_number(value: float, text: str) -> None:
    assert _number(value) == text


def test_quiet_hides_what_is_irrelevant_and_nothing_else(tmp_path: Path, fit_tiny: FitTiny) -> None:
    log = logging.getLogger("lightning.pytorch")
    lines = logging.StreamHandler(stream := io.StringIO())
    log.addHandler(lines)

    def checkpointed(**arguments: Any) -> None:
        checkpoint = ModelCheckpoint(tmp_path / "checkpoints", save_last=True)
        fit_tiny(8, callbacks=[checkpoint], enable_checkpointing=True, **arguments)

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            quiet_lightning()
            quiet_lightning()
            checkpointed(kill_at=5)
            checkpointed(resume=tmp_path / "checkpoints" / "last.ckpt")
            warnings.warn("a real one", stacklevel=1)
            logging.getLogger("lightning.pytorch.utilities.rank_zero").warning("GPU is on fire")
    finally:
        log.removeHandler(lines)
    assert [str(warning.message) for warning in caught] == ["a real one"]
    assert stream.getvalue().splitlines() == ["GPU is on fire"]
