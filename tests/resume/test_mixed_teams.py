"""Off-policy runs of mixed teams, with delayed and target actors: resumed exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hetmarl.checkpoint import load_plain
from hetmarl.lightning import quiet_lightning
from tests.resume.runs import GAME, MUJOCO, difference, interrupt, result, train

DELAY = {"config": {"policy_delay": 4}}
"""Iterations have 4.9 gradient steps: interrupted between two steps of the actors."""
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hasac": (GAME, {}),
    "masac": (GAME, {}),
    "haddpg": (GAME, {}),
    "hatd3": (GAME, DELAY),
    "maddpg": (MUJOCO, {}),
    "matd3": (MUJOCO, DELAY),
}
"""Environment and options of a run, by algorithm."""


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet_lightning()


@pytest.mark.parametrize(
    "algo", [pytest.param(a, marks=[] if a == "hatd3" else [pytest.mark.slow]) for a in CASES]
)
def test_resumed_run_is_the_whole_run(algo: str, tmp_path: Path) -> None:
    """Interrupted in its sixth iteration, taken up after the fourth: to the last bit."""
    env, given = CASES[algo]
    options = {"algo": algo, "iterations": 7, **given}
    _, whole, data = train(tmp_path / "whole", env, **options)
    expected = result(tmp_path / "whole", data)
    interrupt(tmp_path / "part", env, 5, **options)
    last = load_plain(tmp_path / "part" / "checkpoints" / "last.ckpt")
    updates = int(last["state_dict"]["updates"])
    assert last["global_step"] == 4 and updates % 4 > 0
    slow = [name for name in last["state_dict"] if name.startswith("loss.target_actors")]
    assert bool(slow) == ("sac" not in algo)
    _, _, data = train(tmp_path / "part", env, resume=True, **options)
    assert difference(expected, result(tmp_path / "part", data)) == ""
    assert int(whole.updates) > updates + 10
    losses = {row["train/loss_qvalue"] for row in expected["metrics"]}
    assert len(losses) >= 5  # it learned something each time
