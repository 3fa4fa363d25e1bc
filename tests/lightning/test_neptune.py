"""Neptune's offline format: against a stub of the client, and the client itself where it is."""

from __future__ import annotations

import os
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from hetmarl.lightning.loggers import build_loggers
from hetmarl.lightning.neptune import NeptuneOfflineLogger

FitTiny = Callable[..., Trainer]


class StubRun(dict[str, Any]):
    """Records what the client would write."""

    def __init__(self) -> None:
        super().__init__()
        self.series: list[tuple[str, float, int]] = []
        self.stopped = False

    def __missing__(self, key: str) -> Any:
        return types.SimpleNamespace(
            append=lambda value, step: self.series.append((key, value, step))
        )

    def stop(self) -> None:
        self.stopped = True


def test_neptune_logger_speaks_to_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit_tiny: FitTiny
) -> None:
    run, calls = StubRun(), []

    def init_run(**arguments: Any) -> StubRun:
        calls.append((arguments, os.environ["NEPTUNE_DATA_DIRECTORY"]))
        random.random()  # as the client does
        return run

    stub = types.ModuleType("neptune")
    stub.init_run = init_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "neptune", stub)
    monkeypatch.delenv("NEPTUNE_DATA_DIRECTORY", raising=False)
    logger = NeptuneOfflineLogger(tmp_path, name="tiny")
    random.seed(1)
    expected = random.Random(1).random()
    logger.log_hyperparams({"algo": {"gamma": 0.99}})
    assert random.random() == expected
    fit_tiny(4, logger=logger)
    ((arguments, directory),) = calls
    assert arguments["mode"] == "offline" and directory == str(tmp_path / "neptune")
    assert not any(value for key, value in arguments.items() if key.startswith("capture_"))
    assert "NEPTUNE_DATA_DIRECTORY" not in os.environ
    assert run["hyperparameters/algo/gamma"] == "0.99"
    assert ("metrics/eval/return_mean", pytest.approx(400 / 3), 400) in run.series
    assert run.stopped


def test_neptune_offline_for_real(
    tmp_path: Path, fit_tiny: FitTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("neptune")
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "run"
    fit_tiny(4, logger=build_loggers("neptune", run_dir))
    (log,) = (run_dir / "neptune").glob("offline/*/data-*.log")
    text = log.read_text()
    assert "return_mean" in text and "400" in text
    assert not (tmp_path / ".neptune").exists()
