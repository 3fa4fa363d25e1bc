"""Every study runs, and the pages hold what the scripts wrote."""

from __future__ import annotations

import csv
import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY: dict[str, dict[str, Any]] = {
    "sequential_or_simultaneous": {"samples": 64, "passes": 1, "seeds": 1},
    "drift_conditions": {"games": 1, "iterations": 1},
    "heterogeneity": {"points": 2, "agents": 2, "iterations": 2, "seeds": 1},
    "mirror_descent": {"iterations": 1, "passes": (1, 2), "passes_of_schedules": 1, "seeds": 1},
    "sharing_and_order": {"iterations": 2, "num_envs": 8, "seeds": 1},
    "maximum_entropy_members": {"iterations": 1, "seeds": 1},
    "joint_critic": {"largest": 4, "steps": 1, "size": 8},
    "number_of_agents": {"largest": 4, "iterations": 2},
    "robustness": {"iterations": 3, "seeds": 1},
    "temperature": {"starts": 1, "turns": 2, "seeds": 0},
}


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The study as the module that Python makes of it when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes" / "studies"))
    return importlib.import_module(name)


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_study_writes_its_table_and_picture(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = load(name, monkeypatch).study(tmp_path, **TINY[name])
    header, *written = read(tmp_path / f"{name}.csv")
    assert len(written) == len(rows) > 1
    assert all(len(row) == len(header) for row in written)
    numbers = [x for row in rows for x in row if isinstance(x, float)]
    assert len(numbers) >= len(rows)
    assert all(math.isfinite(x) for x in numbers)
    assert (tmp_path / f"{name}.png").read_bytes()[1:4] == b"PNG"
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 2


@pytest.mark.slow
def test_equal_seeds_study_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load("heterogeneity", monkeypatch).study
    assert study(tmp_path, **TINY["heterogeneity"]) == study(tmp_path, **TINY["heterogeneity"])


def test_every_study_is_tested_and_has_its_page() -> None:
    scripts = {path.stem for path in (ROOT / "recipes" / "studies").glob("*.py")} - {"study"}
    pages = {path.stem for path in (ROOT / "docs" / "studies").glob("*.md")}
    assert scripts == set(TINY) == pages


@pytest.mark.parametrize("name", TINY)
def test_the_page_has_the_tables_numbers(name: str) -> None:
    page = (ROOT / "docs" / "studies" / f"{name}.md").read_text(encoding="utf-8")
    for row in read(ROOT / "docs" / "assets" / "studies" / f"{name}.csv"):
        assert f"| {' | '.join(row)} |" in page
    assert f"../assets/studies/{name}.png" in page
    assert f"python recipes/studies/{name}.py" in page


def test_shared_sequential_teams_and_other_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page says for HATRPO on MAMuJoCo, with a game in its place."""
    module = load("sharing_and_order", monkeypatch)
    rows = module.study(
        tmp_path, task="games/mixed", algorithm="hatrpo", iterations=1, num_envs=8, seeds=1
    )
    assert [row[2] for row in rows] == list(module.TEAMS)


def test_temperatures_with_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a policy that plays 2 with .9, before anything is learned, 2 is what is played."""
    module = load("temperature", monkeypatch)
    case = module.CASES["penalty, k = 0, from 2"]
    for label in module.SAMPLED:
        end = module.sampled_run(case, module.LEARNERS[label], 1, seed=0)
        assert end == 2.0, label
