"""A run on the simulated StarCraft II, from the command line: every result says what it is of."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from hetmarl.checkpoint import load_plain
from hetmarl.curves import is_simulated
from hetmarl_envs.registry import get_family
from hetmarl_envs.sc2sim.install import install
from tests.processes import children_of, group_of, session_of

from .conftest import ON_POLICY, Outcome
from .running import gone, started

ROOT = Path(__file__).resolve().parents[2]
MISSING = get_family("smacv2").missing()
SETTINGS = ["algo=happo", "task=smacv2/3m", *(s for s in ON_POLICY if not s.startswith("task"))]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_results_say_that_they_are_simulated(
    hetmarl: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hetmarl("sc2sim", "install", "game").code == 0
    monkeypatch.setenv("SC2PATH", str(tmp_path / "game"))
    code, _, err = hetmarl("train", *SETTINGS, "run_dir=run")
    assert code == 0, err
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["eval/simulated_mean"] == "1.0"
    assert is_simulated(tmp_path / "run"), "by which its curve is marked"
    assert 0.0 <= float(rows[-1]["eval/battle_won_mean"]) <= 1.0
    result = json.loads(hetmarl("evaluate", "run", "episodes=2").out)
    assert result["simulated"] is True and "not StarCraft II" in result["game"]
    assert result["game_lost_mean"] == 0.0
    assert hetmarl("render", "run", "out=team.gif").code == 0
    assert (tmp_path / "team.gif").stat().st_size > 1000
    code, out, _ = hetmarl("doctor", "smacv2")
    assert code == 0 and "simulated" in out


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_sigterm_leaves_a_checkpoint_and_no_game(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Games are sessions of their own, which a signal to the run's group does not reach."""
    monkeypatch.setenv("SC2PATH", str(install(tmp_path / "game")))
    command = [sys.executable, "-m", "hetmarl.cli.main", "train", *SETTINGS]
    long = ["run_dir=run", "total_frames=10_000_000", "eval.interval_frames=5_000_000"]
    with started(tmp_path, *command, *long) as run:
        workers = [pid for pid, line in children_of(run.pid).items() if "smacv2.worker" in line]
        assert len(workers) >= 2, "one for each environment"
        assert all(len(group_of(worker)) == 2 for worker in workers), "each with its game"
        os.killpg(run.pid, signal.SIGTERM)
        output = run.communicate(timeout=240)[0]
        assert gone(run.pid), session_of(run.pid)
        assert not any(map(group_of, workers))
    assert run.returncode == 143, output
    last = load_plain(tmp_path / "run" / "checkpoints" / "last.ckpt")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(last["state_dict"]["frames"]) == int(rows[-1]["frames"]) > 0


def test_what_the_extra_brings_is_missed_where_it_is_not_there() -> None:
    """``pysc2`` is installed without its dependencies: the doctor has to ask for them."""
    imports = {
        "pys2clientprotocol": "s2clientprotocol",
        "absl-py": "absl",
        "websocket-client": "websocket",
        "portpicker": "portpicker",
    }
    with (ROOT / "pyproject.toml").open("rb") as file:
        extra = tomllib.load(file)["project"]["optional-dependencies"]["smacv2"]
    names = {re.split(r"[<>=]", requirement)[0] for requirement in extra} - {"protobuf"}
    assert names == set(imports)
    assert {*imports.values(), "pysc2", "smacv2"} == set(get_family("smacv2").requires)
