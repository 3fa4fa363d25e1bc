"""``python -m hetmarl_envs.smacv2.worker <fd> <directory>``: plays one game for the environment.

Pickled messages come and go over an inherited pipe. When the other end is gone, the process and its
game end, and their directory is removed. SIGTERM and Ctrl-C reach every process of a job, but it is
for the environment to end its games: these signals are ignored here, and by the game, which
inherits that.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from hetmarl_envs.sc2sim import SIMULATED

OK, LOST = "ok", "lost"
"""A message's first part: done; the game is gone."""
WATCH = 2.0
"""Seconds between two looks at whether the environment's process still lives."""


class Worker:
    """Carries out what the environment asks for; methods are named as requests are."""

    def __init__(self) -> None:
        self._game: Any = None

    def launch(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Starts the game; returns sizes and what the game calls itself."""
        from hetmarl_envs.smacv2.game import Game

        self._game = Game(**arguments)
        version = self._game.launch()
        info = self._game.get_env_info()
        sizes = {key: int(info[f"{key}_shape"]) for key in ("obs", "state")}
        return sizes | {
            "agents": int(info["n_agents"]),
            "enemies": int(self._game.n_enemies),
            "actions": int(info["n_actions"]),
            "limit": int(info["episode_limit"]),
            "version": version,
            "simulated": version == SIMULATED,
            "entities": self._game.entities(),
        }

    def begin(self, seed: int, actions: list[list[int]]) -> dict[str, Any]:
        """A new episode, ``actions`` of which are played at once, as far as they are legal.

        A game that does not repeat itself comes to where they no longer are.
        """
        self._game.begin(seed)
        outcome = self._look(0.0, False, False, {})
        for joint in actions:
            if outcome["terminated"] or outcome["truncated"]:
                break
            try:
                outcome = self.step(joint)
            except AssertionError:  # smacv2's way to say that an action is not legal
                break
        return outcome

    def step(self, actions: list[int]) -> dict[str, Any]:
        """One step; what is seen after it."""
        return self._look(*self._game.play(actions))

    def units(self) -> list[tuple[Any, ...]]:
        """What pictures need of each living unit."""
        found = []
        for owner, side in ((1, self._game.agents), (2, self._game.enemies)):
            for unit in side.values():
                if unit.health > 0:
                    life = unit.health / unit.health_max
                    shield = unit.shield / unit.shield_max if unit.shield_max else 0.0
                    place = (unit.pos.x, unit.pos.y, unit.radius)
                    found.append((owner, unit.unit_type, *place, life, shield))
        return found

    def close(self) -> None:
        """Ends the game."""
        if self._game is not None:
            self._game.close()

    def _look(
        self, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]
    ) -> dict[str, Any]:
        game = self._game
        return {
            "observation": np.asarray(game.get_obs(), np.float32),
            "state": np.asarray(game.get_state(), np.float32),
            "mask": np.asarray(game.get_avail_actions(), bool),
            "alive": np.array([game.agents[i].health > 0 for i in range(game.n_agents)]),
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "battle_won": float(info.get("battle_won", False)),
            "dead_allies": info.get("dead_allies", 0) / game.n_agents,
            "dead_enemies": info.get("dead_enemies", 0) / game.n_enemies,
        }


def serve(pipe: Connection) -> None:
    """Answers until the game is lost, or ``close`` is asked for.

    Raises:
        EOFError, BrokenPipeError, ConnectionResetError: the other end is gone.
    """
    worker, parent = Worker(), os.getppid()
    requests: dict[str, Callable[..., Any]] = {
        name: getattr(worker, name) for name in ("launch", "begin", "step", "units", "close")
    }
    try:
        while True:
            while not pipe.poll(WATCH):  # forks of the parent may hold the pipe's other end too
                if os.getppid() != parent:
                    raise EOFError
            name, *arguments = pipe.recv()
            try:
                pipe.send((OK, requests[name](*arguments)))
            except Exception as error:  # whatever a client does whose game is gone
                text = "".join(traceback.format_exception_only(error)).strip()
                pipe.send((LOST, f"{text}\n{traceback.format_exc()}"))
                return
            if name == "close":
                return
    finally:
        worker.close()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        serve(Connection(int(sys.argv[1])))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        shutil.rmtree(sys.argv[2], ignore_errors=True)  # nobody else is left to do it
