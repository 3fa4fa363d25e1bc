"""metrics.csv: what it holds, at any moment and after a resume; loggers by name."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from hetmarl.curves import read_metrics
from hetmarl.lightning.loggers import build_loggers, list_loggers
from hetmarl.lightning.metrics_csv import MetricsCSVLogger, ResumeMetrics
from hetmarl.lightning.throughput import ThroughputCallback
from hetmarl_envs.errors import ConfigError, MissingExtraError, UnknownNameError

FitTiny = Callable[..., Trainer]


def without_time(path: Path) -> list[list[str]]:
    rows = [line.split(",") for line in path.read_text().splitlines()]
    keep = [i for i, name in enumerate(rows[0]) if not name.startswith("time/")]
    return [[row[i] for i in keep] for row in rows]


# ---------------------------------------------------------------------- the file
def test_an_evaluation_joins_the_row_of_its_iteration(tmp_path: Path) -> None:
    logger = MetricsCSVLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.5}, 100)
    logger.log_metrics({"train/loss": 0.25}, 200)
    logger.log_metrics({"eval/return_mean": -3.0}, 200)
    logger.log_metrics({"train/loss": torch.tensor(0.1)}, 300)
    assert (tmp_path / "metrics.csv").read_text() == (
        "frames,train/loss,eval/return_mean\n100,0.5,\n200,0.25,-3.0\n300,0.1,\n"
    )


@pytest.mark.parametrize(
    "value",
    [0.1, 1 / 3, 1e300, -1e-45, 5e-324, 123456789.0, 2.0**24 + 1, float("inf"), 3.4028235e38],
)
def test_numbers_read_back_as_they_were(tmp_path: Path, value: float) -> None:
    logger = MetricsCSVLogger(tmp_path)
    with np.errstate(over="ignore"):
        single = float(np.float32(value))
    logger.log_metrics({"double": value, "single": single}, 1)
    columns = read_metrics(tmp_path)
    assert columns["double"][0] == value
    assert np.float32(columns["single"][0]) == single


def test_nan_is_an_empty_cell(tmp_path: Path) -> None:
    logger = MetricsCSVLogger(tmp_path)
    logger.log_metrics({"train/return_mean": float("nan"), "train/loss": 1.0}, 100)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1] == "100,,1.0"


def test_begin_drops_rows_past_the_checkpoint_and_a_cut_line(tmp_path: Path) -> None:
    first = MetricsCSVLogger(tmp_path)
    for frames in (100, 200, 300):
        first.log_metrics({"a": frames / 8}, frames)
    with first.path.open("a") as file:
        file.write("400,5")  # a full disk cut it
    again = MetricsCSVLogger(tmp_path)
    again.begin(200)
    assert first.path.read_text() == "frames,a\n100,12.5\n200,25.0\n"
    again.log_metrics({"a": 1.0}, 300)
    assert first.path.read_text().splitlines()[-1] == "300,1.0"


def test_a_new_run_moves_the_file_of_another_aside(tmp_path: Path) -> None:
    for number in range(3):
        logger = MetricsCSVLogger(tmp_path)
        logger.log_metrics({"a": number}, 100)
    assert (tmp_path / "metrics.csv").read_text() == "frames,a\n100,2.0\n"
    assert (tmp_path / "metrics.1.csv").read_text() == "frames,a\n100,0.0\n"
    assert (tmp_path / "metrics.2.csv").read_text() == "frames,a\n100,1.0\n"


def test_values_of_earlier_frames_find_their_place(tmp_path: Path) -> None:
    """``trainer.validate`` of the best checkpoint after a fit."""
    logger = MetricsCSVLogger(tmp_path)
    for frames in (100, 200, 300):
        logger.log_metrics({"a": 1.0}, frames)
    logger.log_metrics({"b": 2.0}, 200)
    logger.log_metrics({"b": 3.0}, 250)
    assert list(read_metrics(tmp_path)["frames"]) == [100, 200, 250, 300]
    assert list(read_metrics(tmp_path)["b"][1:3]) == [2.0, 3.0]


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(ConfigError, match=r"first column 'frames'.*found 'epoch'"):
        MetricsCSVLogger(tmp_path).begin(100)


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"Cannot write .*metrics\.csv.*run_dir"):
        MetricsCSVLogger(tmp_path / "file" / "run").log_metrics({"a": 1.0}, 1)


_WRITER = """
import sys
from hetmarl.lightning.metrics_csv import MetricsCSVLogger
logger = MetricsCSVLogger(sys.argv[1])
print("go", flush=True)
for i in range(1, 10**9):
    logger.log_metrics({"train/a": i / 7, "train/b": float("nan")}, 100 * i)
    if i % 3 == 0:
        logger.log_metrics({"eval/return_mean": i / 3}, 100 * i)
"""


@pytest.mark.slow
def test_the_file_is_whole_for_readers_and_after_kill_9(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    )
    try:
        assert writer.stdout is not None and writer.stdout.readline() == b"go\n"
        file, most = tmp_path / "metrics.csv", 0
        until = time.monotonic() + 0.7
        while time.monotonic() < until or most < 20:
            if file.exists():
                frames = read_metrics(file)["frames"]
                assert list(frames) == [100.0 * (i + 1) for i in range(len(frames))]
                most = max(most, len(frames))
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    after = file.read_text()
    assert after.endswith("\n")
    assert len({line.count(",") for line in after.splitlines()}) == 1
    assert len(read_metrics(file)["frames"]) >= most


# ---------------------------------------------------------------------- with Lightning
def run_callbacks(run_dir: Path) -> list[Callback]:
    checkpoint = ModelCheckpoint(
        run_dir / "checkpoints", save_last=True, monitor="eval/return_mean", mode="max"
    )
    return [ThroughputCallback(), ResumeMetrics(), checkpoint]


@pytest.mark.parametrize("kill_at", [5, 8, 10])
def test_a_resumed_file_equals_an_uninterrupted_one(
    tmp_path: Path, fit_tiny: FitTiny, kill_at: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings: dict[str, Any] = {"enable_checkpointing": True}
    fit_tiny(14, logger=MetricsCSVLogger(whole), callbacks=run_callbacks(whole), **settings)
    fit_tiny(
        14,
        kill_at=kill_at,
        logger=MetricsCSVLogger(parts),
        callbacks=run_callbacks(parts),
        **settings,
    )
    fit_tiny(
        14,
        resume=parts / "checkpoints" / "last.ckpt",
        logger=MetricsCSVLogger(parts),
        callbacks=run_callbacks(parts),
        **settings,
    )
    expected = without_time(whole / "metrics.csv")
    assert without_time(parts / "metrics.csv") == expected
    assert [row[0] for row in expected[1:]] == [str(100 * (i + 1)) for i in range(14)]
    columns = read_metrics(parts)
    assert (np.diff(columns["time/elapsed_seconds"]) > 0).all()  # goes on over the interruption
    assert (columns["time/frames_per_second"] > 0).all()
    assert ((columns["time/collect_fraction"] >= 0) & (columns["time/collect_fraction"] <= 1)).all()
    assert list(np.flatnonzero(~np.isnan(columns["eval/return_mean"]))) == [3, 7, 11]


def test_frames_per_second_leaves_out_evaluations(tmp_path: Path, fit_tiny: FitTiny) -> None:
    class SlowEvaluation(Callback):
        def on_validation_epoch_start(self, *_: Any) -> None:
            time.sleep(0.3)

    callbacks = [ThroughputCallback(), SlowEvaluation()]
    fit_tiny(6, logger=MetricsCSVLogger(tmp_path), callbacks=callbacks)
    columns = read_metrics(tmp_path)
    after = list(columns["frames"]).index(500)
    assert columns["time/frames_per_second"][after] > 100 / 0.3
    assert np.diff(columns["time/elapsed_seconds"])[after - 1] > 0.3


# ---------------------------------------------------------------------- by name
def test_csv_is_always_there_and_first(tmp_path: Path) -> None:
    for names in ([], "csv", ["csv", "csv"]):
        loggers = build_loggers(names, tmp_path)
        assert [type(logger) for logger in loggers] == [MetricsCSVLogger]


def test_unknown_logger_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no logger 'wandbb'\. Did you mean 'wandb'"):
        build_loggers(["wandbb"], tmp_path)
    with pytest.raises(UnknownNameError, match="Did you mean 'mlflow'"):
        build_loggers([], tmp_path, options={"mlfow": {}})


@pytest.mark.parametrize("name", [name for name in list_loggers() if name != "csv"])
def test_a_missing_extra_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = importlib.util.find_spec
    hidden = {"tensorboard", "tensorboardX", "wandb", "mlflow"}
    monkeypatch.setattr(
        "hetmarl.lightning.loggers.find_spec", lambda n: None if n in hidden else real(n)
    )
    monkeypatch.setitem(sys.modules, "neptune", None)
    with pytest.raises(MissingExtraError, match=rf'pip install "hetmarl\[{name}\]"') as caught:
        build_loggers(name, tmp_path)
    if name == "neptune":
        assert "ended in March 2026" in str(caught.value)


def test_tensorboard_gets_frames_on_the_x_axis(tmp_path: Path, fit_tiny: FitTiny) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit_tiny(4, logger=build_loggers("tensorboard", tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("eval/return_mean")] == [400]
    assert [event.step for event in events.Scalars("train/return_mean")] == [300]  # others NaN
    assert (tmp_path / "metrics.csv").exists()


def test_wandb_offline(tmp_path: Path, fit_tiny: FitTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "run"
    fit_tiny(4, logger=build_loggers("wandb", run_dir, options={"wandb": {"offline": True}}))
    assert list((run_dir / "wandb").glob("offline-run-*/*.wandb"))
    assert not (tmp_path / "wandb").exists()


def test_mlflow_without_a_server(
    tmp_path: Path, fit_tiny: FitTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    loggers = build_loggers("mlflow", tmp_path / "run", run_name="tiny")
    fit_tiny(4, logger=loggers)
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path}/run/mlflow.db")
    history = client.get_metric_history(loggers[1].version, "eval/return_mean")
    assert [(entry.step, entry.value) for entry in history] == [(400, pytest.approx(400 / 3))]
    assert not (tmp_path / "mlruns").exists()


def test_a_wrong_option_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neptune", types.ModuleType("neptune"))
    with pytest.raises(ConfigError, match=r"'neptune' does not take .*'projct'"):
        build_loggers("neptune", tmp_path, options={"neptune": {"projct": "x"}})
