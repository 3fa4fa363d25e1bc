"""Runs in processes of their own, which tests stop."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.processes import session_of


@contextmanager
def started(directory: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A run of ``run_dir=run`` that has learned from several iterations; it ends with the test."""
    metrics = directory / "run" / "metrics.csv"
    run = subprocess.Popen(
        command,
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
        for process in session_of(run.pid):  # of this test's own run alone
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        run.wait()


def gone(leader: int, seconds: float = 40) -> bool:
    end = time.monotonic() + seconds
    while session_of(leader) and time.monotonic() < end:
        time.sleep(0.2)
    return not session_of(leader)
