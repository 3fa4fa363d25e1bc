"""A run that is killed anywhere and resumed is the run that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "checkpoint_every"), [("mamujoco", 0), ("vmas", 3)], ids=["mamujoco", "vmas"]
)
def test_killed_at_twenty_moments(family: str, checkpoint_every: int, tmp_path: Path) -> None:
    """Weights, optimisers, replay, environments, metrics: bit by bit, 12 of 20 while writing."""
    arguments = [str(tmp_path), family, "20", str(checkpoint_every)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 20
    assert [line for line in lines if line["different"]] == [], done.stderr
    # a moment from outside can come too late
    assert sum(line["status"] == -9 for line in lines) >= 16
    assert sum(line["resumed"] for line in lines) >= 10
