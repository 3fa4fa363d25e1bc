"""A replay on disk goes on exactly after ``kill -9`` in the middle of writing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_replay.py")


@pytest.mark.slow
def test_killed_while_writing(tmp_path: Path) -> None:
    """Compact, prioritised, half full and full; every run is killed twice."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "15"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 15
    assert [line for line in lines if not line["same"]] == [], done.stderr
    killed = [status for line in lines for status in line["statuses"]]
    assert killed.count(-9) >= 20 and set(killed) <= {-9, 0}
