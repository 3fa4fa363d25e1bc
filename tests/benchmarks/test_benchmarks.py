"""Every benchmark of this implementation runs and prints its ratio; how fast is not tested here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hetmarl_envs.registry import get_family

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RATIOS = {
    "hasac_step": ["step / torch.mm", "sampling / step"],
    "happo_update": ["update / oneDNN", "17 agents, packed / one network"],
    "async_collection": ["ratio", "worst staleness"],
    "collection": ["TeamCollector's time / bare"],
    "grid_stepping": ["ours: time / bare"],
    "hand_rules": ["the shortest assignment"],
    "pettingzoo_stepping": ["mpe's time / bare", "generic's time / bare"],
    "sumo_stepping": ["ours's time / bare"],
    "shared_team": ["in turns / packed", "MASAC, agent by agent / at once"],
    "training_loop": ["time / oneDNN", "Lightning's share"],
    "mamujoco_stepping": ["share of bare", "(step: "],
    "smax_stepping": ["smax's time / bare"],
    "vmas_stepping": ["ours/VMAS", "| balance | 4 | with |"],
}
FAMILIES = {
    "grid_stepping": ("lbf", "rware"),
    "smax_stepping": ("smax",),
    "sumo_stepping": ("sumo",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RATIOS)
def test_runs(name: str) -> None:
    missing = [package for f in FAMILIES.get(name, ()) for package in get_family(f).missing()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    finished = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", "--quick"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    for ratio in RATIOS[name]:
        assert ratio in finished.stdout
