"""Two processes learn what one does on their batches together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.equality import CASES

pytestmark = [pytest.mark.ddp, pytest.mark.slow]
SCALARS = 9
"""Numbers of the longest statistics that are sent: three of each of three agents."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``equality.py`` found, by case."""
    directory = tmp_path_factory.mktemp("equality")
    arguments = [sys.executable, str(Path(__file__).with_name("equality.py")), str(directory)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (directory / "found.jsonl").read_text().splitlines()]
    return {line["case"]: line for line in lines}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(cases: dict[str, Any], case: str) -> None:
    """In float64 to 1e-10: weights, temperatures and value statistics."""
    found = cases[case]
    assert found["between processes"] == 0
    assert found["to one process"] < 1e-10
    assert found["to one shard"] > 1e-4  # it is not that nothing was learned


@pytest.mark.parametrize("case", CASES)
def test_only_the_current_agents_gradient_is_sent(cases: dict[str, Any], case: str) -> None:
    """As one flat tensor per step; besides it nothing but counts and sums."""
    expected, sent = (
        {int(size): times for size, times in cases[case][key].items() if int(size) > SCALARS}
        for key in ("gradients", "sent")
    )
    assert set(sent) == set(expected)
    for size, times in expected.items():
        # 0: as many as HATRPO needed products of a vector and the Hessian
        assert sent[size] == times or (times == 0 and sent[size] > 0)
