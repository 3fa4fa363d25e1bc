"""Ctrl-C and SIGTERM wait until the iteration is over, so that nothing of it is lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


class Interrupted(SystemExit):
    """A run that was asked to stop and has written its ``last.ckpt``.

    Its code is what a shell expects where a signal ended it: 130 for Ctrl-C, 143 for SIGTERM.
    """


class Interruption:
    """The first Ctrl-C or SIGTERM, kept until it is asked for; a second one acts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}  # of others, while ours are set

    def listen(self) -> None:
        """From here on signals are kept; nothing happens outside of the main thread."""
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # `nohup` and the like stay in force
                self._handlers[number] = handler
                signal.signal(number, self._keep)

    def end(self) -> None:
        """Gives the signals back to whom they belonged."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _keep(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.end()
        # print() may be what was interrupted
        os.write(
            sys.__stderr__.fileno() if sys.__stderr__ else 2,
            f"\n{self.received.name}: stopping with a checkpoint when this iteration is over. "
            "Once more: at once, without.\n".encode(),
        )
