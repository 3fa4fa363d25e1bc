"""N games side by side, one process each; one that is lost is started anew."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hetmarl_envs.errors import HetmarlError
from hetmarl_envs.rows import read_saved
from hetmarl_envs.smacv2.process import CLOSING, GameProcess, LostError

Array = NDArray[Any]
_log = logging.getLogger(__name__)

INFO = ("battle_won", "dead_allies", "dead_enemies", "game_lost", "episode_cut")
"""Of a row's episode so far: won or not, shares of the dead, whether the game broke down, whether
it was cut off by a resume or by Ctrl-C."""
LAUNCHES = 3
"""Attempts to start a game before giving up."""


class Games:
    """Games in rows, what they last gave in arrays.

    ===============  ==============  ==============================================================
    array            shape           meaning
    ===============  ==============  ==============================================================
    ``observation``  ``[N, A, O]``   zeros for the dead
    ``state``        ``[N, S]``
    ``mask``         ``[N, A, K]``   legal actions; the dead have "do nothing" only
    ``alive``        ``[N, A]``
    ``reward``       ``[N]``         of the last step
    ``terminated``   ``[N]``         the battle is over
    ``truncated``    ``[N]``         the time limit, or the game was lost
    ``info``         ``[N, 5]``      ``INFO``
    ===============  ==============  ==============================================================

    A row whose episode is over stays as it is, with rewards of zero, until it is reset.

    Args:
        arguments: of ``Game``, the same for all rows.
        count: rows, N.
        timeout: seconds that a step may take before the game counts as hung.
        launch_timeout: seconds that starting a game, or an episode, may take.
        where: what messages call the environment.

    Raises:
        HetmarlError: a game does not start; holds what it said.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        count: int,
        *,
        timeout: float,
        launch_timeout: float,
        where: str,
    ) -> None:
        self.where = where
        self._arguments = dict(arguments)
        self._timeout, self._launch_timeout = timeout, launch_timeout
        self._processes: list[GameProcess | None] = [None] * count
        self._ending = [""] * count  # why, of INFO, a row's episode cannot go on; "": it can
        self.sizes: dict[str, Any] = {}
        try:
            self._ensure(range(count))
        except BaseException:
            self.close()
            raise
        agents, actions = self.sizes["agents"], self.sizes["actions"]
        self.observation = np.zeros((count, agents, self.sizes["obs"]), np.float32)
        self.state = np.zeros((count, self.sizes["state"]), np.float32)
        self.mask = np.ones((count, agents, actions), bool)
        self.alive = np.zeros((count, agents), bool)
        self.reward = np.zeros(count, np.float32)
        self.terminated = np.zeros(count, bool)
        self.truncated = np.zeros(count, bool)
        self.info = np.zeros((count, len(INFO)), np.float32)
        self._episode = [0] * count  # episodes begun
        self._played: list[list[list[int]]] = [[] for _ in range(count)]
        self.seed(0)

    @property
    def pids(self) -> list[int]:
        """Of the rows' workers, 0 where there is none; each is also its processes' group."""
        return [0 if process is None else process.pid for process in self._processes]

    def seed(self, seed: int) -> None:
        """Episodes are functions of this, the row, and how many the row has had."""
        self._seed = seed
        self._episode = [0] * len(self._processes)

    # ------------------------------------------------------------------ episodes
    def reset(self, rows: Iterable[int]) -> None:
        """Begins new episodes in ``rows``."""
        rows = list(rows)
        for row in rows:
            self._episode[row] += 1
            self._played[row] = []
            self._ending[row] = ""
        self._begin(rows)

    def _begin(self, rows: Sequence[int]) -> None:
        """Brings rows to where their episodes are: their seeds, and what was played in them."""
        left = list(rows)
        for _ in range(LAUNCHES):
            self._ensure(left)
            requests = {row: ("begin", self._episode_seed(row), self._played[row]) for row in left}
            answers, lost = self._exchange(requests, self._launch_timeout)
            for row, answer in answers.items():
                self._write(row, answer)
            for row, reason in lost.items():
                _log.warning("%s: game %d does not begin, starting it anew: %s",
                             self.where, row, reason)  # fmt: skip
            left = list(lost)
            if not left:
                return
        raise HetmarlError(
            f"{self.where}: no episode begins after {LAUNCHES} attempts: {lost[left[0]]}"
        )

    def _episode_seed(self, row: int) -> int:
        words = np.random.SeedSequence([self._seed, row, self._episode[row]]).generate_state(1)
        return int(words[0])

    def step(self, actions: Array) -> None:
        """One step of every row whose episode goes on; ``actions [N, A]``."""
        self.reward[:] = 0.0
        requests: dict[int, tuple[Any, ...]] = {}
        for row, over in enumerate(self.terminated | self.truncated):
            if over:
                continue
            if self._ending[row]:
                self._end(row, self._ending[row])
                continue
            chosen = [int(action) for action in actions[row]]
            self._played[row].append(chosen)
            requests[row] = ("step", chosen)
        answers, lost = self._exchange(requests, self._timeout)
        for row, answer in answers.items():
            self._write(row, answer)
        for row, reason in lost.items():
            self._warn_lost(row, reason)
            self._end(row, "game_lost")

    def _warn_lost(self, row: int, reason: str) -> None:
        _log.warning("%s: game %d is lost, and its episode with it; starting it anew: %s",
                     self.where, row, reason)  # fmt: skip

    def _end(self, row: int, why: str) -> None:
        """The episode ends where it was last seen, as at a time limit; ``why``: of ``INFO``."""
        self.truncated[row] = True
        self.info[row, INFO.index(why)] = 1.0

    def choices(self) -> Array:
        """Actions that ``step`` takes, ``[N, A, K]``: any where the episode is over."""
        over = self.terminated | self.truncated
        return self.mask | over[:, None, None]

    def _write(self, row: int, seen: Mapping[str, Any]) -> None:
        self.observation[row] = seen["observation"]
        self.state[row] = seen["state"]
        self.mask[row] = seen["mask"]
        self.alive[row] = seen["alive"]
        self.reward[row] = seen["reward"]
        self.terminated[row] = seen["terminated"]
        self.truncated[row] = seen["truncated"]
        self.info[row] = [seen.get(name, 0.0) for name in INFO]

    # ------------------------------------------------------------------ processes
    def _exchange(
        self, requests: Mapping[int, tuple[Any, ...]], seconds: float
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """Sends rows their requests, all before waiting for the first answer.

        Returns:
            The answers, and why the other rows were lost; those have no process any more.
        """
        try:
            return self._ask(requests, time.monotonic() + seconds)
        except BaseException:  # Ctrl-C: no later request may take the answers still to come
            for row in requests:
                self._drop(row)
                self._ending[row] = "episode_cut"
            raise

    def _ask(
        self, requests: Mapping[int, tuple[Any, ...]], deadline: float
    ) -> tuple[dict[int, Any], dict[int, str]]:
        answers: dict[int, Any] = {}
        lost: dict[int, str] = {}
        for row, request in requests.items():
            try:
                self._process(row).ask(*request)
            except LostError as error:
                lost[row] = str(error)
        for row in requests:
            if row in lost:
                continue
            try:
                answers[row] = self._process(row).answer(deadline)
            except LostError as error:
                lost[row] = str(error)
        for row in lost:
            self._drop(row)
        return answers, lost

    def _drop(self, row: int) -> None:
        """Ends a row's game, which is started anew when its next episode begins."""
        process, self._processes[row] = self._processes[row], None
        if process is not None:
            process.end()

    def _process(self, row: int) -> GameProcess:
        process = self._processes[row]
        assert process is not None
        return process

    def _ensure(self, rows: Iterable[int]) -> None:
        """Starts games where there are none, all at once."""
        wanted = [row for row in rows if self._processes[row] is None]
        for attempt in range(LAUNCHES):
            for row in wanted:
                self._processes[row] = GameProcess()
            requests = dict.fromkeys(wanted, ("launch", self._arguments))
            answers, lost = self._exchange(requests, self._launch_timeout)
            if answers:
                self.sizes = next(iter(answers.values()))
            if not lost:
                return
            wanted = list(lost)
            reason = lost[wanted[0]]
            _log.warning("%s: %d games did not start (attempt %d of %d): %s",
                         self.where, len(wanted), attempt + 1, LAUNCHES, reason)  # fmt: skip
        raise HetmarlError(f"{self.where}: the game does not start: {reason}")

    def units(self, row: int) -> list[tuple[Any, ...]]:
        """What a picture of a row needs.

        Empty where its game is lost; one that is lost here loses its episode at the next step.
        """
        if self._processes[row] is None:
            return []
        answers, lost = self._exchange({row: ("units",)}, self._timeout)
        if row in lost:
            self._warn_lost(row, lost[row])
            self._ending[row] = "game_lost"
        found: list[tuple[Any, ...]] = answers.get(row, [])
        return found

    def close(self) -> None:
        """Ends all games."""
        for process in self._processes:
            if process is not None:
                process.end(CLOSING)
        self._processes = [None] * len(self._processes)

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        """Seeds, the episodes' actions so far, and the arrays."""
        return {
            "seed": self._seed,
            "episode": list(self._episode),
            "played": [torch.tensor(played, dtype=torch.int16) for played in self._played],
            "arrays": {k: torch.from_numpy(array.copy()) for k, array in self._arrays().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], started: bool) -> None:
        """Plays the episodes again up to where ``state_dict`` was taken.

        Args:
            state: of ``state_dict``.
            started: whether any episode had begun then.

        Raises:
            ConfigError: it is of another environment.
        """
        arrays = self._arrays()
        saved = read_saved(state["arrays"], arrays, self.where)
        self._seed, self._episode = int(state["seed"]), list(state["episode"])
        self._played = [played.tolist() for played in state["played"]]
        self._ending = [""] * len(self._processes)
        over = saved["terminated"] | saved["truncated"]
        if started:
            self._begin([row for row in range(len(over)) if not over[row]])
        for row in np.flatnonzero(~over) if started else ():
            if not all(
                np.array_equal(array[row], saved[key][row]) for key, array in arrays.items()
            ):
                _log.warning(
                    "%s: game %d cannot be taken up in mid-episode (StarCraft II does not repeat "
                    "itself); this one episode is cut off.", self.where, row
                )  # fmt: skip
                self._ending[row] = "episode_cut"
        for key, array in arrays.items():
            array[...] = saved[key]

    def _arrays(self) -> dict[str, Array]:
        names = "observation state mask alive reward terminated truncated info".split()
        return {name: getattr(self, name) for name in names}
