"""Learning curves: what they read, what they average, that they never stop a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Trainer
from matplotlib import rc_context
from PIL import Image

from hetmarl.curves import Curve, is_simulated, mean_curve, plot_curves, read_curve, read_metrics
from hetmarl.lightning.curve import CurveCallback
from hetmarl.lightning.metrics_csv import MetricsCSVLogger
from hetmarl_envs.errors import ConfigError

FitTiny = Callable[..., Trainer]


def write_run(directory: Path, frames: list[int], returns: list[float]) -> Path:
    logger = MetricsCSVLogger(directory)
    for step, value in zip(frames, returns, strict=True):
        logger.log_metrics({"train/loss": 1.0}, step - 50)
        logger.log_metrics({"eval/return_mean": value, "eval/return_std": 0.5}, step)
    return directory


def test_read_curve_takes_the_rows_with_an_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [100, 200], [1.0, 3.0])
    assert list(read_metrics(run)["frames"]) == [50, 100, 150, 200]
    curve = read_curve(run)
    assert list(curve.frames) == [100, 200]
    assert list(curve.mean) == [1.0, 3.0] and list(curve.spread) == [0.5, 0.5]


def test_mean_over_seeds_on_the_frames_they_share() -> None:
    nothing = np.zeros(3)
    curves = [
        Curve(np.array([100.0, 200.0, 300.0]), np.array([0.0, 2.0, 4.0]), nothing),
        Curve(np.array([50.0, 150.0, 250.0]), np.array([1.0, 3.0, 5.0]), nothing),
    ]
    mean = mean_curve(curves)
    assert list(mean.frames) == [100, 150, 200, 250] and mean.runs == 2
    assert list(mean.mean) == [1.0, 2.0, 3.0, 4.0]
    assert mean.spread == pytest.approx([np.sqrt(2.0)] * 4)


def test_plot_one_run_several_seeds_and_labels(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", [100, 200, 300], [1.0, 3.0, 4.0])
    b = write_run(tmp_path / "b", [100, 200, 300], [0.0, 2.0, 5.0])
    for name, runs in {"one": a, "seeds": [a, b], "labels": {"x": [a, b], "y": [b]}}.items():
        out = plot_curves(runs, tmp_path / f"{name}.png", title="title")
        with Image.open(out) as image:
            assert image.size == (840, 504)
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert plot_curves(a, tmp_path / "a.svg").read_text().startswith("<?xml")
    assert not list(tmp_path.glob(".*"))  # no temporary file stays


def test_simulated_runs_are_marked(tmp_path: Path) -> None:
    run, other = (write_run(tmp_path / name, [100, 200, 300], [1.0, 3.0, 4.0]) for name in "ab")
    logger = MetricsCSVLogger(run)
    logger.begin(300)
    logger.log_metrics({"eval/simulated_mean": 1.0}, 300)
    assert is_simulated(run) and not is_simulated(other)

    def words(runs: Any, title: str | None) -> str:
        with rc_context({"svg.fonttype": "none"}):
            return plot_curves(runs, tmp_path / "a.svg", title=title).read_text()

    assert ">smacv2 / happo (simulated)<" in words(run, "smacv2 / happo")
    assert ">(simulated)<" in words(run, None)
    assert "simulated" not in words(other, "smax / happo")
    labelled = words({"one": [run], "two": [other]}, "both")
    assert ">one (simulated)<" in labelled and ">two<" in labelled and ">both<" in labelled


def test_refusals_name_what_is_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [100], [1.0])
    with pytest.raises(ConfigError, match=r"There is no .*nowhere"):
        plot_curves(tmp_path / "nowhere", tmp_path / "x.png")
    with pytest.raises(ConfigError, match="Did you mean 'eval/return_mean'"):
        plot_curves(run, tmp_path / "x.png", metric="eval/return_men")
    with pytest.raises(ConfigError, match=r"'x\.doc' is no image file"):
        plot_curves(run, tmp_path / "x.doc")


def test_redrawn_at_each_evaluation(tmp_path: Path, fit_tiny: FitTiny) -> None:
    run = tmp_path / "run"
    fit_tiny(4, logger=MetricsCSVLogger(run), callbacks=[CurveCallback(run)])
    before = (run / "curve.png").read_bytes()
    fit_tiny(8, logger=MetricsCSVLogger(run), callbacks=[CurveCallback(run)])
    assert (run / "curve.png").read_bytes() != before


def test_a_curve_that_cannot_be_drawn_is_one_warning(
    tmp_path: Path, fit_tiny: FitTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("hetmarl.lightning.curve.plot_curves", broken)
    with pytest.warns(UserWarning, match=r"Could not draw curve\.png: no fonts") as caught:
        fit_tiny(8, logger=MetricsCSVLogger(tmp_path), callbacks=[CurveCallback(tmp_path)])
    assert sum("no fonts" in str(warning.message) for warning in caught) == 1
