"""Collection beside learning, as a user runs it: it trains, ends without orphans, and resumes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import session_of

from .conftest import TINY
from .running import gone, started

COMMAND = [sys.executable, "-m", "hetmarl.cli.main", "train", *TINY]
ASYNC = ["data.mode=async", "data.actors=2", "run_dir=run"]
LONG = ["total_frames=10_000_000", "eval.interval_frames=5_000_000"]
CHECKPOINTS = "checkpoint.interval_frames=400"


def actors(leader: int) -> list[int]:
    return sorted(p for p, line in session_of(leader).items() if "spawn_main" in line)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda run: os.killpg(run.pid, signal.SIGINT), id="ctrl-c"),
        pytest.param(lambda run: run.terminate(), id="SIGTERM"),
        pytest.param(lambda run: os.killpg(run.pid, signal.SIGTERM), id="SIGTERM-to-all"),
        pytest.param(lambda run: run.kill(), id="SIGKILL"),
    ],
)
def test_no_actor_outlives_the_learner(
    stop: Callable[[subprocess.Popen[str]], None], tmp_path: Path
) -> None:
    with started(tmp_path, *COMMAND, *ASYNC, *LONG) as run:
        assert len(actors(run.pid)) == 2
        stop(run)
        assert gone(run.pid), session_of(run.pid)
        if run.wait() != -signal.SIGKILL:  # it still had actors to finish the iteration with
            assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists(), run.communicate()[0]


@pytest.mark.slow
def test_a_dead_actor_is_named_and_the_run_resumes(tmp_path: Path) -> None:
    with started(tmp_path, *COMMAND, *ASYNC, *LONG, CHECKPOINTS) as run:
        victim = actors(run.pid)[1]
        os.kill(victim, signal.SIGKILL)
        output = run.communicate(timeout=240)[0]
        assert run.returncode == 2, output
        assert "has died (its process ended with exit code -9)" in output
        assert "hetmarl: actor " in output
        assert gone(run.pid)
    assert "a resume goes on from saved weights and replay but in fresh episodes" in output
    before = rows(tmp_path)
    reached = int(float(before[-1]["frames"]))
    end = f"total_frames={reached + 2000}"
    resumed = subprocess.run(
        [*COMMAND[:4], "run_dir=run", "resume=last", end],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    after = rows(tmp_path)
    frames = [int(float(row["frames"])) for row in after]
    assert frames == list(range(200, frames[-1] + 1, 200)) and frames[-1] >= reached + 2000
    stale = [float(row["time/staleness_max"]) for row in after]
    assert stale[0] == 0 and set(stale[1:]) <= {0.0, 1.0} and 1.0 in stale


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "run" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))
