"""A run on the simulated StarCraft II, from the command line: every result says what it is of."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from hetmarl_envs.registry import get_family

from .conftest import ON_POLICY, Outcome

ROOT = Path(__file__).resolve().parents[2]
MISSING = get_family("smacv2").missing()


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_results_say_that_they_are_simulated(
    hetmarl: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hetmarl("sc2sim", "install", "game").code == 0
    monkeypatch.setenv("SC2PATH", str(tmp_path / "game"))
    settings = [s for s in ON_POLICY if not s.startswith("task")]
    code, _, err = hetmarl("train", "algo=happo", "task=smacv2/3m", *settings, "run_dir=run")
    assert code == 0, err
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["eval/simulated_mean"] == "1.0"
    assert 0.0 <= float(rows[-1]["eval/battle_won_mean"]) <= 1.0
    result = json.loads(hetmarl("evaluate", "run", "episodes=2").out)
    assert result["simulated"] is True and "not StarCraft II" in result["game"]
    assert result["game_lost_mean"] == 0.0
    assert hetmarl("render", "run", "out=team.gif").code == 0
    assert (tmp_path / "team.gif").stat().st_size > 1000
    code, out, _ = hetmarl("doctor", "smacv2")
    assert code == 0 and "simulated" in out


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
