"""N PettingZoo environments in worker processes, what they last gave in shared memory."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any, Literal

import cloudpickle
import numpy as np
import torch

from hetmarl_envs.errors import ConfigError, HetmarlError
from hetmarl_envs.pettingzoo.layout import Layout
from hetmarl_envs.pettingzoo.spaces import Array
from hetmarl_envs.pettingzoo.stepping import InProcess, Opponents, empty_arrays
from hetmarl_envs.signals import leave_signals_to_the_main_process

StartMethod = Literal["spawn", "forkserver", "fork"]

TIMEOUT = 600.0
"""Seconds after which a worker counts as hung, unless told otherwise."""
CLOSING = 10.0
"""Seconds that all workers together are given to end by themselves."""
_WATCH = 1.0
"""Seconds between two looks: at how long an answer takes, at whether the main process lives."""


class WorkerError(HetmarlError, RuntimeError):
    """A worker process died or hung, or an environment in it failed."""


@dataclass(frozen=True)
class _Task:
    """What a worker is told once; ``make`` may be a lambda, so that it travels by cloudpickle."""

    make: Callable[[], Any]
    layout: Layout
    rows: range
    total: int
    opponents: Opponents
    leaving: bool
    where: str


class InWorkers:
    """As ``InProcess``, with the rows shared out among processes; the numbers are the same.

    Actions and results stand in one block of anonymous shared memory, which needs no clean-up; a
    step sends a word to every worker and waits for one from each.

    Args:
        make: makes one environment; called in the workers.
        layout: of each of them.
        num_envs: N.
        num_workers: processes, at most N; each has N / num_workers rows, give or take one.
        start_method: of ``multiprocessing``. ``"fork"`` starts at once, but is not safe where the
            process has threads; the others import the packages anew, and need the main script to
            guard its start by ``if __name__ == "__main__":``.
        timeout: seconds that a step, a reset, or making the environments may take; None: any time.
        opponents, leaving, where: as for ``InProcess``.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        layout: Layout,
        *,
        num_envs: int,
        num_workers: int,
        start_method: StartMethod,
        timeout: float | None,
        opponents: Opponents,
        leaving: bool,
        where: str,
    ) -> None:
        self.layout, self.where = layout, where
        self._timeout = math.inf if timeout is None else timeout
        self._request = 0  # its number, which answers bear
        self._answered = True  # otherwise whoever waited was interrupted
        context = multiprocessing.get_context(start_method)
        if start_method == "forkserver":  # its processes then start with everything imported
            context.set_forkserver_preload(["__main__", __name__])
        shapes = {**empty_arrays(layout, num_envs), **_action_arrays(layout, num_envs)}
        size = sum(_padded(array) for array in shapes.values())
        self._memory = context.RawArray("b", size)
        arrays = _views(self._memory, shapes)
        self._actions = {key[1]: a for key, a in arrays.items() if key[0] == "action"}
        self.alive, self.acted = arrays["", "alive"], arrays["", "acted"]
        self.reward, self.state = arrays["", "reward"], arrays["", "state"]
        self.info = arrays["", "info"]
        self.terminated, self.truncated = arrays["", "terminated"], arrays["", "truncated"]
        self.observation = {k[1]: a for k, a in arrays.items() if k[0] == "observation"}
        self.mask = {k[1]: a for k, a in arrays.items() if k[0] == "mask"}
        cuts = np.linspace(0, num_envs, num_workers + 1).astype(int).tolist()
        self._rows = [range(a, b) for a, b in pairwise(cuts)]
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for rows in self._rows:
            task = _Task(make, layout, rows, num_envs, opponents, leaving, where)
            ours, theirs = context.Pipe()
            process = context.Process(  # type: ignore[attr-defined]
                target=_work,
                args=(cloudpickle.dumps(task), self._memory, theirs),
                name=f"{where} {rows.start}-{rows.stop - 1}",
                daemon=True,
            )
            process.start()
            theirs.close()  # so that its end is seen here when the worker dies
            self._pipes.append(ours)
            self._processes.append(process)
        # at the program's end before multiprocessing sends SIGTERM, which the workers ignore
        ends = (self._processes, self._pipes)
        self._stop = Finalize(self, _stop, ends, exitpriority=10)
        try:
            self._gather(range(num_workers))
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ as InProcess has them
    def seed(self, seed: int) -> None:
        """Gives every row a seed for its next reset, and starts the opponents' stream anew."""
        self._ask("seed", [seed] * len(self._rows))

    def reset(self, rows: Iterable[int]) -> None:
        """Starts new episodes in ``rows``."""
        wanted = set(rows)
        self._ask("reset", [[row for row in mine if row in wanted] for mine in self._rows])

    def step(self, actions: Mapping[str, Array]) -> None:
        """One step of every row whose episode goes on."""
        if not self._answered:  # a worker may still be reading the actions of the step before
            self._ask("wait", [None] * len(self._rows))
        for group, array in self._actions.items():
            array[...] = actions[group]
        self._ask("step", [None] * len(self._rows))

    def render(self, row: int) -> Any:
        """The picture that environment ``row`` draws."""
        worker = next(i for i, rows in enumerate(self._rows) if row in rows)
        return self._ask("render", [row], [worker])[0]

    def state_dict(self) -> dict[str, Any]:
        """As in one process: what one number of workers saved, another one loads."""
        parts = self._ask("state_dict", [None] * len(self._rows))
        return {
            "envs": [env for part in parts for env in part["envs"]],
            "arrays": {
                key: torch.cat([part["arrays"][key] for part in parts])
                for key in parts[0]["arrays"]
            },
            "seeds": [seed for part in parts for seed in part["seeds"]],
            "opponents": parts[0]["opponents"],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        if len(state["envs"]) != sum(map(len, self._rows)):
            raise ConfigError(
                f"{self.where}: the saved state has {len(state['envs'])} environments, this one "
                f"{sum(map(len, self._rows))}. Make it with the options that the saved one had."
            )
        self._ask(
            "load_state_dict",
            [
                {
                    "envs": [state["envs"][row] for row in rows],
                    "arrays": {k: a[rows.start : rows.stop] for k, a in state["arrays"].items()},
                    "seeds": [state["seeds"][row] for row in rows],
                    "opponents": state["opponents"],
                }
                for rows in self._rows
            ],
        )

    def close(self) -> None:
        """Closes the environments and ends the processes; whoever does not end soon is killed."""
        self._stop()

    # ------------------------------------------------------------------ talking to the workers
    def _ask(
        self, command: str, arguments: list[Any], workers: Sequence[int] | None = None
    ) -> list[Any]:
        if not self._stop.still_active():
            raise WorkerError(f"{self.where} is closed; make a new one.")
        asked = range(len(self._pipes)) if workers is None else workers
        self._request, self._answered = self._request + 1, False
        with self._whole_messages():
            for worker, argument in zip(asked, arguments, strict=True):
                with contextlib.suppress(OSError):  # a dead one is reported below
                    self._pipes[worker].send((self._request, command, argument))
        return self._gather(asked)

    def _gather(self, workers: Sequence[int]) -> list[Any]:
        """Every worker's answer; all are taken before the first error is raised."""
        self._patience = self._timeout
        answers = [self._answer(worker) for worker in workers]
        self._answered = True
        failures = [error for _, error in answers if error is not None]
        if failures:
            if any(isinstance(failure, WorkerError) for failure in failures):
                self.close()
            raise failures[0]
        return [value for value, _ in answers]

    def _answer(self, worker: int) -> tuple[Any, BaseException | None]:
        try:
            while self._comes(worker):
                with self._whole_messages():
                    request, value, error = self._pipes[worker].recv()
                if request == self._request:  # no answer to one that was interrupted
                    return value, error
        except (EOFError, OSError):
            return None, self._died(worker)
        return None, WorkerError(
            f"{self._name(worker)}, did not answer within {self._timeout:g} seconds and was ended. "
            "Make the environment with num_workers=0 to see where it hangs; where steps, resets or "
            "the start do take that long, pass a longer timeout (None: wait for ever)."
        )

    def _comes(self, worker: int) -> bool:
        """Waits for a message; False when the patience with this request is at its end.

        It is counted in short waits, so that a job that was suspended has not run out of it.
        """
        while not self._pipes[worker].poll(min(_WATCH, self._patience)):
            if self._patience <= 0:
                return False
            self._patience -= min(_WATCH, self._patience)
        return True

    @contextlib.contextmanager
    def _whole_messages(self) -> Iterator[None]:
        """Whoever is interrupted within a message cannot go on: the rest would be read as one."""
        try:
            yield
        except (EOFError, OSError):
            raise
        except BaseException:
            self.close()
            raise

    def _died(self, worker: int) -> WorkerError:
        process = self._processes[worker]
        process.join(1)
        code = process.exitcode
        reason = f"exit code {code}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                reason = f"killed by {signal.Signals(-code).name}"
        return WorkerError(
            f"{self._name(worker)}, died ({reason}). Make the environment with num_workers=0 to "
            "see where; on SIGKILL look at the memory (num_envs)."
        )

    def _name(self, worker: int) -> str:
        rows = self._rows[worker]
        return (
            f"{self.where}: worker {worker} of {len(self._pipes)}, which steps environments "
            f"{rows.start} to {rows.stop - 1}"
        )


def _stop(processes: list[Any], pipes: list[Connection]) -> None:
    for pipe in pipes:
        with contextlib.suppress(OSError):
            pipe.send((0, "close", None))
    end = time.monotonic() + CLOSING
    try:
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
    finally:  # also where whoever waits is interrupted
        left = [process for process in processes if process.is_alive()]
        for process in left:
            process.kill()
        for process in left:
            process.join()
        for pipe in pipes:
            pipe.close()


# ---------------------------------------------------------------------- shared memory
def _action_arrays(layout: Layout, rows: int) -> dict[tuple[str, str], Array]:
    arrays: dict[tuple[str, str], Array] = {}
    for group, members in layout.groups.items():
        spaces = layout.team[members[0]].spaces
        shape = (rows, len(members)) if spaces.single else (rows, len(members), spaces.dims)
        arrays["action", group] = np.zeros(shape, np.int64 if spaces.choices else np.float32)
    return arrays


def _padded(array: Array) -> int:
    return -(-array.nbytes // 64) * 64


def _views(memory: Any, shapes: Mapping[tuple[str, str], Array]) -> dict[tuple[str, str], Array]:
    """Arrays of these shapes and types, one behind the other, in ``memory``."""
    views, offset = {}, 0
    for key, array in shapes.items():
        flat = np.frombuffer(memory, array.dtype, array.size, offset)
        views[key] = flat.reshape(array.shape)
        views[key][...] = array
        offset += _padded(array)
    return views


# ---------------------------------------------------------------------- in the worker
def _end_with_the_main_process() -> None:
    """No worker outlives it for long, however it ended, and whatever the worker is stuck in."""
    main = multiprocessing.parent_process()
    assert main is not None
    child = os.getppid() == main.pid  # or that of a fork server
    while os.getppid() == main.pid if child else main.is_alive():
        time.sleep(_WATCH)
    time.sleep(CLOSING)  # for those who see the pipe's end and close their environments
    os._exit(1)


def _work(task_bytes: bytes, memory: Any, pipe: Connection) -> None:
    leave_signals_to_the_main_process()
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()
    task: _Task = cloudpickle.loads(task_bytes)
    rows: InProcess | None = None
    envs: list[Any] = []
    try:
        for _ in task.rows:
            envs.append(task.make())
        rows = InProcess(
            envs,
            task.layout,
            opponents=task.opponents,
            leaving=task.leaving,
            where=task.where,
            first=task.rows.start,
            total=task.total,
        )
        shapes = empty_arrays(task.layout, task.total) | _action_arrays(task.layout, task.total)
        mine = slice(task.rows.start, task.rows.stop)
        shared = {key: array[mine] for key, array in _views(memory, shapes).items()}
        rows.bind(shared)
        actions = {key[1]: array for key, array in shared.items() if key[0] == "action"}
        _send(pipe, 0, None, None)
    except Exception as error:
        _send(pipe, 0, None, error)
        return
    while True:
        try:
            request, command, argument = pipe.recv()
        except (EOFError, OSError):
            command = "close"
        if command == "close":
            for env in envs:
                with contextlib.suppress(Exception):
                    env.close()
            return
        try:
            _send(pipe, request, _do(rows, command, argument, actions, task.rows.start), None)
        except Exception as error:
            _send(pipe, request, None, error)


def _do(
    rows: InProcess, command: str, argument: Any, actions: Mapping[str, Array], first: int
) -> Any:
    if command == "step":
        return rows.step(actions)
    if command == "reset":
        return rows.reset([row - first for row in argument])
    if command == "render":
        return rows.render(argument - first)
    if command == "state_dict":
        return rows.state_dict()
    if command == "wait":
        return None
    return getattr(rows, command)(argument)  # seed, load_state_dict


def _send(pipe: Connection, request: int, value: Any, error: Exception | None) -> None:
    """Errors of ours go as they are, those of others with the place where they arose."""
    if error is not None and not isinstance(error, HetmarlError):
        lines = "".join(traceback.format_exception(error))
        error = WorkerError(f"an environment in a worker process failed:\n{lines}")
    pipe.send((request, value, error))
