"""The process that stands in for the game: one client, one game, gone when the client is."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

from hetmarl_envs.sc2sim.game import Game
from hetmarl_envs.sc2sim.websocket import ClosedError, Connection

PATH = "/sc2api"
PATIENCE = 60.0
"""Seconds without a client after which the server gives up."""
WATCH = 2.0
"""Seconds between two looks at whether whoever started it still lives."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The game's own command line; what only a real game needs is accepted and ignored."""
    parser = argparse.ArgumentParser(prog="sc2sim", description=__doc__, allow_abbrev=False)
    parser.add_argument("-listen", default="127.0.0.1", help="address")
    parser.add_argument("-port", type=int, required=True)
    known, _ = parser.parse_known_args(arguments)
    return known


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves one client and ends with it."""
    given = parse(arguments)
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:  # as the worker's games inherit it
        # the client ends the game with SIGTERM: no traceback, no waiting for threads
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the client, which ends the game
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        serve(given.listen, given.port)
    except OSError as error:
        sys.exit(f"sc2sim: {given.listen}:{given.port}: {error}")


def _end_with_parent(parent: int) -> None:
    """No game outlives whoever started it, however that one ended."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(0)


def serve(host: str, port: int, patience: float = PATIENCE) -> None:
    """Waits for a client and answers its requests until it quits or is gone.

    Args:
        host: address to listen on.
        port: 0: any free one.
        patience: seconds to wait for the client.
    """
    with socket.create_server((host, port)) as listener:
        listener.settimeout(patience)
        while True:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                return
            with client:
                client.settimeout(None)
                try:
                    connection = Connection(client, PATH)
                except ClosedError:
                    continue  # whoever that was: the client is still to come
                play(connection)
                return


def play(connection: Connection) -> None:
    """Answers requests until the client quits or is gone."""
    game = Game()
    try:
        while not game.over:
            connection.send(game.respond(connection.receive()))
    except ClosedError:
        return
