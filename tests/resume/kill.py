"""Kills runs and resumes them; a script, so that it can fork before any thread exists.

    python tests/resume/kill.py <directory> <case> <kills> <checkpoint_every>

Prints a line of JSON per kill: where it happened, and where the resumed run differs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import hetmarl.lightning.exact as exact
from hetmarl.checkpoint import load_plain
from hetmarl.engines import GradientStep
from hetmarl.lightning import quiet_lightning
from tests.resume import runs

SETTINGS: dict[str, Any] = {"iterations": 7, "evaluate_every": 2}
RECURRENT = {"algo": "happo", "network": runs.GRU, "config": {"lr_decay": True}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    # iterations after the warm-up, .7 of 7 updates, of critic, three or four actors, temperatures
    "mamujoco": (runs.MUJOCO, {}, 5 * 4 * 5),
    "vmas": (runs.VMAS, {}, 5 * 4 * 6),
    "in memory": (runs.MUJOCO, {"storage": "memory"}, 5 * 4 * 5),
    "prioritized": (runs.MUJOCO, {"data_config": {"priority_alpha": 0.6}}, 5 * 4 * 5),
    # iterations, two passes of two minibatches each, of critic and actors
    "happo mamujoco": (runs.MUJOCO, {"algo": "happo"}, 7 * 4 * 4),
    "happo vmas": (runs.VMAS, RECURRENT, 7 * 4 * 5),
}
"""Environment, options, and the number of gradient steps of the whole run, at least."""
CHECKPOINTS = 3  # of the whole run, at least


def die() -> None:
    """What ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], None], kill_after: float | None = None) -> int:
    """Does the work in a forked process; returns its exit status, −9 if it was killed.

    Args:
        work: what to do.
        kill_after: kills it from outside, after so many seconds.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at_gradient_step(number: int) -> None:
    """Dies in the middle of learning, before the given gradient step."""
    step, count = GradientStep.__call__, 0

    def counting(self: GradientStep, loss: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == number:
            die()
        return step(self, loss)

    GradientStep.__call__ = counting  # type: ignore[method-assign]


def kill_while_writing(file: str, occurrence: int, moment: str) -> None:
    """Dies while the given one of the files with this suffix is written.

    Args:
        file: ``"companion"``, ``"last"`` or ``"best"``.
        occurrence: counted from 1.
        moment: ``"before"``, ``"half"`` (half of the bytes are in the temporary file) or
            ``"after"`` it has its name.
    """
    write, count = exact.write_atomically, 0

    def counting(path: Path, data: bytes) -> None:
        nonlocal count
        what = path.stem if path.suffix == ".ckpt" else "companion"
        count += what == file
        if what != file or count != occurrence:
            return write(path, data)
        if moment == "half":
            path.with_name(f".{path.name}.tmp").write_bytes(data[: len(data) // 2])
        if moment == "after":
            write(path, data)
        die()

    exact.write_atomically = counting


def train(run_dir: Path, env: dict[str, Any], **options: Any) -> None:
    """Trains, and keeps the result beside the run if it gets to its end."""
    warnings.simplefilter("ignore")
    _, _, data = runs.train(run_dir, env, **SETTINGS, **options)
    torch.save(runs.result(run_dir, data), run_dir.with_suffix(".result"))


def moments(
    generator: random.Random, kills: int, seconds: float, gradient_steps: int
) -> list[tuple[str, Any]]:
    """Where to kill: a description, and what sets it up (seconds: from outside)."""
    found: list[tuple[str, Any]] = []
    for number in range(kills):
        kind = number % 5
        if kind == 0:
            step = generator.randint(1, gradient_steps)
            found.append((f"gradient step {step}", (kill_at_gradient_step, step)))
        elif kind == 1:
            after = generator.uniform(0.2, 1.0) * seconds
            found.append((f"after {after:.2f} s", after))
        else:
            file = generator.choice(["companion", "last", "last", "best"])
            # the first evaluation is the best so far, later ones need not be
            which = 1 if file == "best" else generator.randint(1, CHECKPOINTS)
            moment = generator.choice(["before", "half", "after"])
            what = f"{file} {which}, {moment}"
            found.append((what, (kill_while_writing, file, which, moment)))
    return found


def main() -> None:
    """Reads the command line; the reference run, then every kill with its resumed run."""
    directory, kills = Path(sys.argv[1]), int(sys.argv[3])
    env, options, gradient_steps = CASES[sys.argv[2]]
    options = options | {"checkpoint_every": int(sys.argv[4]) or None}
    torch.set_num_threads(1)
    quiet_lightning()
    os.fsync = lambda _: None  # against loss of power, which nobody tests here; slow
    started = time.perf_counter()
    assert in_child(lambda: train(directory / "whole", env, **options)) == 0
    seconds = time.perf_counter() - started
    expected = torch.load(directory / "whole.result", weights_only=False)

    planned = moments(random.Random(0), kills, seconds, gradient_steps)
    for number, (what, how) in enumerate(planned):
        run_dir = directory / f"run{number}"

        def killed(run_dir: Path = run_dir, how: Any = how) -> None:
            if isinstance(how, tuple):
                how[0](*how[1:])
            train(run_dir, env, **options)

        status = in_child(killed, None if isinstance(how, tuple) else how)
        last = run_dir / "checkpoints" / "last.ckpt"
        resumable = last.exists()
        finished = resumable and load_plain(last)["global_step"] == SETTINGS["iterations"]
        if not resumable:  # nothing to go on from: the whole run again, in a new directory
            run_dir = directory / f"again{number}"
        again = in_child(
            lambda run_dir=run_dir, resume=resumable: train(run_dir, env, resume=resume, **options)  # type: ignore[misc]
        )
        different = "the resumed run failed"
        if again == 0:
            result = torch.load(run_dir.with_suffix(".result"), weights_only=False)
            if finished:  # it was killed when all was done but the cleaning up
                result |= {key: expected[key] for key in ("replay", "companions")}
            different = runs.difference(expected, result)
        line = {"moment": what, "status": status, "resumed": resumable, "different": different}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
