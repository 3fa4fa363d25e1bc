"""Two processes under Lightning's Trainer: alike, resumed exactly, refused where they cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.trainer import CASES
from tests.resume.runs import FRAMES

pytestmark = [pytest.mark.ddp, pytest.mark.slow]


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What ``trainer.py`` found, by scenario."""
    script = Path(__file__).with_name("trainer.py")
    directory = tmp_path_factory.mktemp("runs")
    arguments = [sys.executable, str(script), str(directory)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (directory / "found.jsonl").read_text().splitlines()]
    return {line.pop("scenario"): line for line in lines}


@pytest.mark.parametrize("case", CASES)
def test_processes_agree_and_collect_apart(scenarios: Any, case: str) -> None:
    found = scenarios[f"{case} whole"]
    assert found["weights"] == ""
    assert found["environments"] != ""
    assert (found["replays"] != "") == (case in ("mamujoco", "vmas"))
    assert found["processes"] == 2
    # written once, frames of both
    assert found["frames"] == [str(2 * FRAMES * k) for k in range(1, 7)]


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed(scenarios: Any, case: str) -> None:
    assert scenarios[f"{case} killed"] == {"status": -9, "resumed": [0, 0], "different": ""}


def test_another_number_of_processes_is_refused(scenarios: Any) -> None:
    error = scenarios["resumed by one process"]["error"]
    assert "ConfigError: the checkpoint was written by 2 processes, this run has 1" in error
    assert "trainer.devices" in error


def test_double_precision(scenarios: Any) -> None:
    assert scenarios["double"] == {"dtypes": ["torch.float64"], "weights": ""}
