"""Old policies are part of what a checkpoint holds: resumed between two refreshes, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hetmarl.checkpoint import load_plain
from hetmarl.lightning import quiet_lightning
from tests.resume.runs import GAME, MUJOCO, difference, interrupt, result, train

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hasac_kl": (GAME, {"old_interval": 9, "step_size": 0.5}),
    "hasac_ball": (MUJOCO, {"old_interval": 9, "radius": 1e-4}),
}


@pytest.mark.parametrize("algo", ["hasac_kl", pytest.param("hasac_ball", marks=pytest.mark.slow)])
def test_resumed_run_is_the_whole_run(algo: str, tmp_path: Path) -> None:
    """4.9 gradient steps an iteration from the third: 19 old after the sixth, in mid-interval."""
    quiet_lightning()
    env, config = CASES[algo]
    options: dict[str, Any] = {"algo": algo, "config": config, "iterations": 8}
    _, _, data = train(tmp_path / "whole", env, **options)
    expected = result(tmp_path / "whole", data)
    interrupt(tmp_path / "part", env, 7, **options)
    state = load_plain(tmp_path / "part" / "checkpoints" / "last.ckpt")["state_dict"]
    pairs = [(k, k.replace("policy.actors", "old_actors")) for k in state if "policy.actors" in k]
    assert int(state["updates"]) == 19
    assert any((state[new] != state[old]).any() for new, old in pairs)
    _, _, data = train(tmp_path / "part", env, resume=True, **options)
    assert difference(expected, result(tmp_path / "part", data)) == ""
    quantity = "drift" if algo == "hasac_kl" else "distance"
    last = expected["metrics"][-1]
    assert any(float(v) > 0 for k, v in last.items() if f"/{quantity}/" in k)
