"""Signals in processes that belong to a run."""

from __future__ import annotations

import signal


def leave_signals_to_the_main_process() -> None:
    """Ctrl-C and SIGTERM may reach a whole job; its main process is the one to end the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # SIG_IGN would pass on to programs that an environment starts, and may end by SIGTERM itself
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.siginterrupt(signal.SIGTERM, False)
