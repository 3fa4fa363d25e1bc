"""Off-policy runs with state besides networks and replay: resumed exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hetmarl.lightning import quiet_lightning
from tests.resume.runs import FRAMES, GAME, GRU, VMAS, difference, interrupt, result, train

CHOICES = GAME | {"actions": ["discrete"] * 3}
SLICES: dict[str, Any] = {"config": {"sequence_length": 4, "burn_in": 2}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, list[float]]]] = {
    "had3qn": (
        CHOICES,
        {"config": {"epsilon": 0.9, "epsilon_final": 0.1, "epsilon_decay_frames": 8 * FRAMES}},
        {"train/epsilon": [0.8, 0.7, 0.6, 0.5, 0.4, 0.3]},
    ),
    "hasac, scheduled": (
        VMAS,
        {
            "config": {
                "auto_alpha": False,
                "alpha": 0.8,
                "alpha_final": 0.1,
                "alpha_decay_frames": 3 * FRAMES,
            }
        },
        {"train/alpha/joint": [0.8, 0.4, 0.2, 0.1, 0.1, 0.1]},
    ),
    "masac, shared": (GAME, {"network": {"sharing": "full"}}, {}),
    "hatd3, memories of a set": (
        GAME,
        SLICES
        | {
            "config": SLICES["config"] | {"allow_shared_sequential": True},
            "network": GRU | {"sharing": "full"},
        },
        {},
    ),
    "hasac, memories": (GAME, SLICES | {"network": GRU}, {}),
    "hatd3, memories": (VMAS, SLICES | {"network": GRU | {"memory": "lstm"}}, {}),
    "had3qn, memories": (
        CHOICES,
        SLICES | {"network": GRU, "data_config": {"priority_alpha": 0.6}},
        {},
    ),
}
"""Environment, options, and what is logged after each of six iterations."""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_resumed_run_is_the_whole_run(case: str, tmp_path: Path) -> None:
    quiet_lightning()
    env, given, logged = CASES[case]
    options = {"algo": case.partition(",")[0], "iterations": 6, **given}
    _, _, data = train(tmp_path / "whole", env, **options)
    whole = result(tmp_path / "whole", data)
    interrupt(tmp_path / "part", env, 5, **options)
    _, _, again = train(tmp_path / "part", env, resume=True, **options)
    assert difference(whole, result(tmp_path / "part", again)) == ""
    for name, values in logged.items():
        assert [float(row[name]) for row in whole["metrics"]] == pytest.approx(values)
