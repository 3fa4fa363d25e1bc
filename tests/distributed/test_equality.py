"""Two processes learn what one does on their batches together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.ddp
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """In float64 to 1e-10, gradients clipped, with and without dead agents."""
    script = Path(__file__).with_name("equality.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [line["deaths"] for line in lines] == [False, True]
    for line in lines:
        assert line["between processes"] == 0
        assert line["to one process"] < 1e-10
        assert line["to one shard"] > 1e-4  # it is not that nothing was learned
