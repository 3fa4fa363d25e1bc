"""Collection beside learning, as a user runs it: it trains, ends without orphans, and resumes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from .conftest import TINY

COMMAND = [sys.executable, "-m", "hetmarl.cli.main", "train", *TINY]
ASYNC = ["data.mode=async", "data.actors=2", "run_dir=run"]
LONG = ["total_frames=10_000_000", "eval.interval_frames=5_000_000"]
CHECKPOINTS = "checkpoint.interval_frames=400"


def session(leader: int) -> dict[int, str]:
    """Living processes of the session that process ``leader`` leads, and their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                line = (entry / "cmdline").read_text().replace("\0", " ")
                found[int(entry.name)] = line
    return found


def actors(leader: int) -> list[int]:
    return sorted(p for p, line in session(leader).items() if "spawn_main" in line)


@contextmanager
def started(directory: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The command, once its learner has learned from several iterations."""
    metrics = directory / "run" / "metrics.csv"
    run = subprocess.Popen(
        [*COMMAND, *ASYNC, *more],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a shell without job control lets what it starts in the background ignore Ctrl-C
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        end = time.monotonic() + 240
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 4):
            assert run.poll() is None and time.monotonic() < end, run.communicate()[0]
            time.sleep(0.2)
        yield run
    finally:
        for process in session(run.pid):  # of this test's own run alone
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        run.wait()


def gone(leader: int, seconds: float = 40) -> bool:
    end = time.monotonic() + seconds
    while session(leader) and time.monotonic() < end:
        time.sleep(0.2)
    return not session(leader)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda run: os.killpg(run.pid, signal.SIGINT), id="ctrl-c"),
        pytest.param(lambda run: run.terminate(), id="SIGTERM"),
        pytest.param(lambda run: run.kill(), id="SIGKILL"),
    ],
)
def test_no_actor_outlives_the_learner(
    stop: Callable[[subprocess.Popen[str]], None], tmp_path: Path
) -> None:
    with started(tmp_path, *LONG) as run:
        assert len(actors(run.pid)) == 2
        stop(run)
        assert gone(run.pid), session(run.pid)


@pytest.mark.slow
def test_a_dead_actor_is_named_and_the_run_resumes(tmp_path: Path) -> None:
    with started(tmp_path, *LONG, CHECKPOINTS) as run:
        victim = actors(run.pid)[1]
        os.kill(victim, signal.SIGKILL)
        output = run.communicate(timeout=60)[0]
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
