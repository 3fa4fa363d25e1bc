"""Runs of two processes under Lightning's Trainer; a script, so that it can fork.

    python tests/distributed/trainer.py <directory>

Leaves a line of JSON per scenario in ``<directory>/found.jsonl``; standard output is Gloo's, too.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hetmarl.lightning import quiet_lightning
from hetmarl.lightning.strategy import make_strategy
from tests.resume import runs
from tests.resume.kill import in_child, kill_while_writing

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mamujoco": (runs.MUJOCO, {}),
    "vmas": (runs.VMAS, {}),
    "happo": (runs.MUJOCO, {"algo": "happo", "config": {"lr_decay": True}}),
    # deaths, masks, memories
    "hatrpo": (runs.GAME, {"algo": "hatrpo", "network": runs.GRU}),
}
"""Environment and options of a run."""


def train(run_dir: Path, rank: int, env: dict[str, Any], **options: Any) -> None:
    """This process's part of a run, and of its result."""
    warnings.simplefilter("ignore")
    settings = {"iterations": 6, "devices": 2, "strategy": make_strategy("ddp"), **options}
    _, module, data = runs.train(run_dir, env, **settings)
    state = {
        "weights": module.state_dict(),
        "replay": runs.visible(data),
        "carrier": data._collector._carrier.to_dict(),
    }
    torch.save(state, run_dir.with_suffix(f".rank{rank}"))
    if rank == 0:
        torch.save(runs.result(run_dir, data), run_dir.with_suffix(".result"))


def both(work: Callable[[int], None]) -> list[int]:
    """Does the work as ranks 0 and 1, in the way that a launcher does; their exit statuses.

    Where rank 0 dies the other one, which would wait for it, is killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def as_rank(rank: int) -> None:
        os.environ |= {
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        work(rank)

    second = os.fork()
    if second == 0:
        os._exit(0 if in_child(lambda: as_rank(1)) == 0 else 1)
    first = in_child(lambda: as_rank(0))
    if first != 0:
        os.killpg(second, 9) if os.getpgid(second) == second else os.kill(second, 9)
    return [first, os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])]


def outcome(run_dir: Path) -> dict[str, Any]:
    """What both processes left."""
    parts = [torch.load(run_dir.with_suffix(f".rank{rank}")) for rank in range(2)]
    return {"parts": parts, "result": torch.load(run_dir.with_suffix(".result"))}


def say(scenario: str, **found: Any) -> None:
    """Notes what was found."""
    with Path(sys.argv[1], "found.jsonl").open("a") as file:
        file.write(json.dumps({"scenario": scenario, **found}) + "\n")


def main() -> None:
    """Whole runs, one that is killed and resumed, one resumed by another number of processes."""
    directory = Path(sys.argv[1])
    torch.set_num_threads(1)
    quiet_lightning()
    os.fsync = lambda _: None
    for name, (env, options) in CASES.items():
        whole = directory / name
        assert both(lambda rank, d=whole, e=env, o=options: train(d, rank, e, **o)) == [0, 0]  # type: ignore[misc]
        expected = outcome(whole)
        first, second = expected["parts"]
        say(
            f"{name} whole",
            weights=runs.difference(first["weights"], second["weights"]),
            replays=runs.difference(first["replay"], second["replay"]),
            environments=runs.difference(first["carrier"], second["carrier"]),
            frames=[row["frames"] for row in expected["result"]["metrics"]],
            processes=len(expected["result"]["resume"]["ranks"]),
        )
        run_dir = directory / f"{name}_killed"

        def killed(
            rank: int, run_dir: Path = run_dir, env: Any = env, options: Any = options
        ) -> None:
            if rank == 0:
                kill_while_writing("last", 2, "half")
            train(run_dir, rank, env, **options)

        status = both(killed)
        resumed = both(
            lambda rank, d=run_dir, e=env, o=options: train(d, rank, e, resume=True, **o)  # type: ignore[misc]
        )
        different = runs.difference(expected, outcome(run_dir)) if resumed == [0, 0] else "failed"
        say(f"{name} killed", status=status[0], resumed=resumed, different=different)

    def alone() -> None:
        try:
            train(directory / "vmas", 0, runs.VMAS, resume=True, devices=1, strategy="auto")
        except Exception as error:
            say("resumed by one process", error=f"{type(error).__name__}: {error}")

    in_child(alone)

    double = directory / "double"
    precise = {"precision": "64-true", "iterations": 4}
    assert both(lambda rank: train(double, rank, runs.VMAS, **precise)) == [0, 0]
    first, second = outcome(double)["parts"]
    dtypes = {str(v.dtype) for v in first["weights"].values() if v.is_floating_point()}
    different = runs.difference(first["weights"], second["weights"])
    say("double", dtypes=sorted(dtypes), weights=different)


if __name__ == "__main__":
    main()
