"""A run that is killed anywhere and resumed is the run that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("kill.py")


def kill(case: str, kills: int, checkpoint_every: int, directory: Path) -> list[dict[str, Any]]:
    """What ``kill.py`` found; every resumed run was the whole run."""
    arguments = [str(directory), case, str(kills), str(checkpoint_every)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == kills
    assert [line for line in lines if line["different"]] == [], done.stderr
    return lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "checkpoint_every"), [("mamujoco", 0), ("vmas", 3)], ids=["mamujoco", "vmas"]
)
def test_killed_at_twenty_moments(family: str, checkpoint_every: int, tmp_path: Path) -> None:
    """Weights, optimisers, replay, environments, metrics: bit by bit, 12 of 20 while writing."""
    lines = kill(family, 20, checkpoint_every, tmp_path)
    # a moment from outside can come too late
    assert sum(line["status"] == -9 for line in lines) >= 16
    assert sum(line["resumed"] for line in lines) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("case", ["in memory", "prioritized"])
def test_other_replays_killed_at_five_moments(case: str, tmp_path: Path) -> None:
    """One that the checkpoint holds, and priorities, and what they make of the batches."""
    lines = kill(case, 5, 2, tmp_path)
    assert sum(line["status"] == -9 for line in lines) >= 4
    assert sum(line["resumed"] for line in lines) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "checkpoint_every"), [("happo mamujoco", 3), ("happo vmas", 0)], ids=["flat", "gru"]
)
def test_on_policy_killed_at_five_moments(case: str, checkpoint_every: int, tmp_path: Path) -> None:
    """What on-policy runs carry besides; the files are written by the same code."""
    lines = kill(case, 5, checkpoint_every, tmp_path)
    assert sum(line["status"] == -9 for line in lines) >= 4
    assert sum(line["resumed"] for line in lines) >= 2
