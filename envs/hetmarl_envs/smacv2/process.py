"""The environment's side of a game's process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from hetmarl_envs.smacv2.worker import LOST

CLOSING = 5.0
"""Seconds that a game is given to end by itself."""
_TAIL = 2000


class LostError(Exception):
    """The process is gone, or did not answer in time; says what is known of it."""


class GameProcess:
    """One worker, its game, and all processes that they started.

    They are a session of their own: Ctrl-C does not reach them, and they are ended together. They
    end as well with this process and with this object, and leave no files, however that happens.
    """

    def __init__(self) -> None:
        self._pipe, child = Pipe()
        # the game's own files too, which would be left behind where it is killed
        directory = tempfile.mkdtemp(prefix="hetmarl-smacv2-")
        self._log = Path(directory, "output.log")
        package = str(Path(__file__).resolve().parents[2])
        path = os.environ.get("PYTHONPATH")
        environment = os.environ | {
            "PYTHONPATH": package if not path else f"{package}{os.pathsep}{path}",
            "OMP_NUM_THREADS": "1",
            "TMPDIR": directory,
        }
        with child, self._log.open("wb") as log:
            number = child.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hetmarl_envs.smacv2.worker", str(number), directory],
                pass_fds=(number,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._finish = weakref.finalize(
            self, _finish, os.getpid(), self._process, self._pipe, directory
        )

    @property
    def pid(self) -> int:
        """Of the worker, and of the group that its game belongs to."""
        return self._process.pid

    def ask(self, name: str, *arguments: Any) -> None:
        """Sends a request; ``answer`` waits for what comes back.

        Raises:
            LostError: the process is gone.
        """
        try:
            self._pipe.send((name, *arguments))
        except OSError as error:
            raise LostError(self._obituary(str(error))) from error

    def answer(self, deadline: float) -> Any:
        """What the last request gave.

        Args:
            deadline: ``time.monotonic()`` at which it must have come.

        Raises:
            LostError: it did not, or the process is gone.
        """
        try:
            if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
                raise LostError(self._obituary("no answer in time"))
            kind, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise LostError(self._obituary("its process ended")) from error
        if kind == LOST:
            raise LostError(self._obituary(str(value)))
        return value

    def end(self, patience: float = 0.0) -> None:
        """Ends worker and game; ``patience``: seconds in which they may do so by themselves."""
        if patience and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._pipe.send(("close",))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self._finish()

    def _obituary(self, what: str) -> str:
        code = self._process.poll()
        ended = "" if code is None else f" (exit status {code})"
        said = self._log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
        return what + ended + (f"; its last output:\n{said}" if said else "")


def _finish(owner: int, process: subprocess.Popen[bytes], pipe: Connection, directory: str) -> None:
    """Leaves nothing of a game, unless it belongs to the process that this one was forked from."""
    if os.getpid() != owner:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # the whole group: a game outlives a worker that was killed
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    pipe.close()
    shutil.rmtree(directory, ignore_errors=True)
