"""Kills processes that write a memory-mapped replay, and goes on from their checkpoints.

    python tests/data/kill_replay.py <directory> <kills>

A script, so that it can fork before any thread exists. Prints a line of JSON per kill.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hetmarl.data import Replay
from hetmarl.data.replay import Ring
from tests.data.stories import GAMMA, NUM_ENVS, Story, check, index_of
from tests.teams import UNEQUAL

ITERATIONS, STEPS, INTERVAL = 14, 6, 3
"""Iterations, vector steps of each, and iterations between two checkpoints."""


def run(directory: Path, die: Callable[[], None] = lambda: None) -> None:
    """Writes, learns priorities, saves; goes on where there is something to go on from.

    Args:
        directory: of the replay, its checkpoint and the result.
        die: called at every write.
    """
    rows = Ring._rows

    def writing(self: Ring, array: torch.Tensor) -> torch.Tensor:
        die()
        return rows(self, array)

    Ring._rows = writing  # type: ignore[method-assign]
    saved, story, begin = directory / "state.pt", Story(ends=0.4, seed=3), 0
    resume = saved.exists()
    replay = Replay(
        Story().chunk(STEPS),
        UNEQUAL,
        20 * NUM_ENVS,
        spare=STEPS * INTERVAL,
        directory=directory / "replay",
        keep=resume,
        observation_index=index_of(UNEQUAL),
        priority_alpha=0.6,
    )
    if resume:
        state: dict[str, Any] = torch.load(saved, weights_only=False)  # with the story's Python
        begin = state["iteration"]
        replay.load_state_dict(state["replay"])
        story.load(state["story"])
    for iteration in range(begin, ITERATIONS):
        if iteration % INTERVAL == 0:
            state = {
                "iteration": iteration,
                "replay": replay.state_dict(),
                "story": story.save(),
            }
            torch.save(state, directory / "new.pt")
            die()
            (directory / "new.pt").replace(saved)
        replay.extend(story.chunk(STEPS))
        draw = torch.Generator().manual_seed(iteration)
        batch = replay.sample(16, n_step=3, gamma=GAMMA, generator=draw)
        replay.update_priority(batch["index"], batch["next", "reward"] - 0.5)
        die()
    check(story, replay, 4)
    everything = replay.sample(200, n_step=2, generator=torch.Generator().manual_seed(0))
    batch_of_all = dict(everything.flatten_keys(".").items())
    torch.save({"batch": batch_of_all, "replay": replay.state_dict()}, directory / "result.pt")


def in_child(work: Callable[[], None]) -> int:
    """Does the work in a forked process; returns its exit status, −9 if it was killed."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killer(number: int) -> Callable[[], None]:
    """Dies, as by ``kill -9``, when it is called for the given time."""
    count = 0

    def die() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return die


def same(a: Any, b: Any) -> bool:
    """Whether two trees are equal bit by bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def main() -> None:
    """The whole run, then every kill, each run killed again while it goes on."""
    directory, kills = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    (directory / "whole").mkdir()
    assert in_child(lambda: run(directory / "whole")) == 0
    expected = torch.load(directory / "whole" / "result.pt", weights_only=False)
    moments = random.Random(0)
    for number in range(kills):
        path = directory / str(number)
        path.mkdir()
        when = moments.randint(20, 160), moments.randint(3, 60)
        statuses = [in_child(lambda p=path, n=n: run(p, killer(n))) for n in when]  # type: ignore[misc]
        again = in_child(lambda p=path: run(p))  # type: ignore[misc]
        result = torch.load(path / "result.pt", weights_only=False) if again == 0 else {}
        line = {"at": when, "statuses": statuses, "same": same(expected, result)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
