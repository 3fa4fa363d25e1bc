"""The table of learning runs: finished ones are skipped, unfinished ones resumed."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from hetmarl.algorithms import list_algorithms
from hetmarl.conf import Settings
from hetmarl_envs.sc2sim import SIMULATED

ROOT = Path(__file__).resolve().parents[2]
SUITES = ROOT / "benchmarks" / "suites.yaml"

# Stands in for `hetmarl train`: 100 frames a time, dies at the frame of a file `die_at`.
TRAINER = """
import sys
from pathlib import Path
given = dict(a.split("=", 1) for a in sys.argv[1:])
run_dir = Path(given["run_dir"])
(run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
metrics, last = run_dir / "metrics.csv", run_dir / "checkpoints" / "last.ckpt"
start = int(last.read_text()) if given.get("resume") == "last" else 0
if start == 0:
    names = "time/elapsed_seconds,eval/return_mean,eval/return_std,eval/battle_won_mean"
    metrics.write_text(f"frames,{names}\\n")
die_at = run_dir.parent / "die_at"
for frames in range(start + 100, int(given["total_frames"]) + 1, 100):
    if die_at.exists() and frames == int(die_at.read_text()):
        die_at.unlink()
        sys.exit(3)
    with metrics.open("a") as file:
        file.write(f"{frames},{frames / 10},{frames + int(given['seed'])},1,{frames / 1000}\\n")
    last.write_text(str(frames))
with (run_dir.parent / "started").open("a") as file:
    file.write(f"{given['seed']} from {start}\\n")
"""


@pytest.fixture
def learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/learn.py with a trainer that takes no time."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("learn")
    trainer = tmp_path / "trainer.py"
    trainer.write_text(TRAINER)
    real = module.command

    def command(*arguments: object, **options: object) -> list[str]:
        interpreter, _, _, _, *settings = real(*arguments, **options)
        return [interpreter, str(trainer), *settings]

    monkeypatch.setattr(module, "command", command)
    monkeypatch.setattr(module, "random_return", lambda run_dir: (-5.0, 1.0, ""))
    return module


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "suites.yaml").write_text(
        "small: [{task: family/game, algo: hasac, frames: 500, seeds: [0, 1, 2], overrides: []}]\n"
    )
    places = {"suites": "suites.yaml", "results": "results", "runs-dir": "runs", "assets": "assets"}
    return [f"--{key}={tmp_path / value}" for key, value in places.items()]


def rows(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "results" / "learn.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_suite_survives_a_killed_run(
    learn: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "die_at").write_text("300")  # the first run, once
    assert learn.main(["run", "small", *arguments]) == 1
    assert [row["seed"] for row in rows(tmp_path)] == ["1", "2"]
    assert learn.main(["run", "small", *arguments]) == 0
    assert learn.main(["run", "small", *arguments]) == 0
    started = (tmp_path / "runs" / "started").read_text().split("\n")[:-1]
    assert started == ["1 from 0", "2 from 0", "0 from 200"]
    assert [(row["seed"], row["return_mean"], row["wall_seconds"]) for row in rows(tmp_path)] == [
        ("0", "500", "50"),
        ("1", "501", "50"),
        ("2", "502", "50"),
    ]
    curve = np.loadtxt(
        tmp_path / "results" / "curves" / "family_game-hasac-500-seed0.csv",
        delimiter=",",
        skiprows=1,
    )
    assert curve[:, 0].tolist() == [100, 200, 300, 400, 500]


def test_a_run_killed_before_its_row_is_recorded_and_not_repeated(
    learn: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    learn.main(["run", "small", *arguments])
    (tmp_path / "results" / "learn.csv").unlink()
    assert learn.main(["run", "small", *arguments]) == 0
    assert len((tmp_path / "runs" / "started").read_text().split("\n")) == 4
    assert len(rows(tmp_path)) == 3


def test_a_run_in_other_hands_is_left_alone(
    learn: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with learn.locked(tmp_path / "runs" / "family_game-hasac-500-seed0.lock"):
        assert learn.main(["run", "small", *arguments]) == 0
    assert "seed0: is being trained by another process" in capsys.readouterr().out
    assert [row["seed"] for row in rows(tmp_path)] == ["1", "2"]


def test_table_and_plot(
    learn: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learn.main(["run", "small", *arguments])
    capsys.readouterr()
    assert learn.main(["table", "small", *arguments]) == 0
    # mean 501, standard deviation 1, t = 4.303: ± 2.5
    assert "| family/game | hasac | 500 | 3 | 501 ± 2 | 500, 501, 502 |" in capsys.readouterr().out
    assert learn.main(["plot", "small", *arguments]) == 0
    assert (tmp_path / "assets" / "small_game.png").stat().st_size > 1000
    assert learn.main(["status", "small", *arguments]) == 0
    assert "finished, return 502" in capsys.readouterr().out


@pytest.mark.slow
def test_the_suites_are_well_formed(learn: ModuleType) -> None:
    import hetmarl

    for suite in OmegaConf.load(SUITES):
        runs = learn.read_suite(suite, SUITES)
        assert {run.task for run in runs} <= set(hetmarl.list_tasks())
        assert {run.algo for run in runs} <= set(list_algorithms())
    with pytest.raises(SystemExit, match="no suite 'fundation'"):
        learn.read_suite("fundation", SUITES)


@pytest.mark.slow
def test_the_suites_are_settings(learn: ModuleType, settings: Callable[..., Settings]) -> None:
    """Every overlay and key that a suite names is there."""
    suites = OmegaConf.load(SUITES)
    runs = {run.overrides: run for suite in suites for run in learn.read_suite(suite, SUITES)}
    for run in runs.values():
        found = settings(f"algo={run.algo}", f"task={run.task}", *run.overrides)
        assert (found.algorithm.name, found.train.task.name) == (run.algo, run.task)


@pytest.mark.slow
def test_the_documentation_has_the_results_as_they_are(learn: ModuleType) -> None:
    """`python benchmarks/learn.py docs` would change nothing."""
    results = learn.Results(ROOT / "benchmarks" / "results")
    marked = 0
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text()
        marked += "<!-- learned: " in text
        assert learn.filled(text, SUITES, results) == text, page
    assert marked


def test_tables_of_the_documentation(
    learn: ModuleType, tmp_path: Path, arguments: list[str]
) -> None:
    assert learn.main(["run", "small", *arguments]) == 0
    results = learn.Results(tmp_path / "results")
    page = "a\n<!-- learned: small{} -->\nold\n<!-- end of learned -->\nb"
    made = learn.filled(page.format(""), tmp_path / "suites.yaml", results)
    assert "| `family/game` | hasac | 500 | 500, 501, 502 | 501 ± 2.48 | −5 | 1 |" in made
    assert made.startswith("a\n<!--") and made.endswith("-->\nb") and "old" not in made
    made = learn.filled(page.format(" as grid"), tmp_path / "suites.yaml", results)
    assert "| task | hasac | random |" in made and "| `family/game` | 501 | −5 |" in made
    made = learn.filled(page.format(" for happo"), tmp_path / "suites.yaml", results)
    assert "*Not run yet.*" in made


def test_results_of_a_simulated_game_say_so(
    learn: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    titles: list[str] = []
    draw = Axes.set

    def noted(axes: Axes, *, title: str, **others: object) -> list[object]:
        titles.append(title)
        return draw(axes, title=title, **others)

    monkeypatch.setattr(Axes, "set", noted)
    assert learn.main(["run", "small", *arguments]) == 0
    assert learn.main(["plot", "small", *arguments]) == 0
    (tmp_path / "results" / "learn.csv").unlink()
    monkeypatch.setattr(learn, "random_return", lambda run_dir: (-5.0, 1.0, SIMULATED))
    assert learn.main(["run", "small", *arguments]) == 0
    assert learn.main(["plot", "small", *arguments]) == 0
    assert titles == ["family/game", "family/game (simulated)"]
    assert all(row["versions"].endswith(f", game {SIMULATED}") for row in rows(tmp_path))


def test_what_is_on_the_simulated_game_says_so() -> None:
    """All of ``smacv2/...`` so far."""
    with (ROOT / "benchmarks" / "results" / "learn.csv").open(newline="") as file:
        battles = [row for row in csv.DictReader(file) if row["task"].startswith("smacv2/")]
    assert battles and all(SIMULATED in row["versions"] for row in battles)


def test_the_game_of_a_task_is_asked_for_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import hetmarl.cli.run_dir
    import hetmarl.cli.train
    import hetmarl.conf
    import hetmarl.data

    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    learn = importlib.import_module("learn")
    env = SimpleNamespace(notes={"game": SIMULATED}, close=lambda: None)
    played = {"return_mean": 1.0, "return_std": 2.0}
    settings = SimpleNamespace(train=SimpleNamespace(task=None))
    monkeypatch.setattr(hetmarl.cli.run_dir, "read_config", lambda run_dir: {})
    monkeypatch.setattr(hetmarl.conf, "resolve", lambda config: settings)
    monkeypatch.setattr(hetmarl.cli.train, "EnvFactory", lambda task: lambda **_: env)
    monkeypatch.setattr(hetmarl.data, "evaluate", lambda policy, env: played)
    monkeypatch.setattr(learn, "random_policy", lambda env: None)
    assert learn.random_return(tmp_path) == (1.0, 2.0, SIMULATED)
    del env.notes
    assert learn.random_return(tmp_path) == (1.0, 2.0, "")


def test_battles_won(
    learn: ModuleType, tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suites = tmp_path / "suites.yaml"
    suites.write_text(suites.read_text().replace("seeds: [0, 1, 2]", "seeds: [0, 1], battles: 50"))
    monkeypatch.setattr(learn, "battles_won", lambda run_dir, battles: (battles - 10, 1))
    assert learn.main(["run", "small", *arguments]) == 0
    assert [(row["won"], row["random_won"], row["battles"]) for row in rows(tmp_path)] == [
        ("40", "1", "50")
    ] * 2
    curve = tmp_path / "results" / "curves" / "family_game-hasac-500-seed1.csv"
    assert curve.read_text().splitlines()[-1] == "500,501,1,0.5"
    page = "<!-- learned: small -->\n<!-- end of learned -->"
    made = learn.filled(page, suites, learn.Results(tmp_path / "results"))
    # 80 of 100: (80 + z²/2 ± z √(80 · 20 / 100 + z²/4)) / (100 + z²), z = 1.96
    assert "| `family/game` | hasac | 500 | 2 | 80% of 100 (71% to 87%) | 2% | 500 |" in made
    assert learn.main(["plot", "small", *arguments]) == 0


def test_battles_are_played_in_parts(learn: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, by the last checkpoint, on seeds far from training's."""
    import hetmarl.cli.trained
    import hetmarl.data

    made: list[tuple[int, int]] = []
    played: list[object] = []

    def make_env(num_envs: int, seed: int) -> SimpleNamespace:
        made.append((num_envs, seed))
        return SimpleNamespace(close=lambda: None)

    def load_run(run_dir: str, checkpoint: str) -> tuple[object, ...]:
        return None, make_env, checkpoint, None

    def evaluate(policy: object, env: object) -> dict[str, float]:
        played.append(policy)
        return {"battle_won_mean": 0.7 if policy == "last" else 0.1}

    monkeypatch.setattr(hetmarl.cli.trained, "load_run", load_run)
    monkeypatch.setattr(hetmarl.data, "evaluate", evaluate)
    monkeypatch.setattr(learn, "random_policy", lambda env: "random")
    assert learn.battles_won(Path("run"), 30) == (21, 3)
    assert made == [(10, 100_000)] * 2
    assert played == ["last"] * 3 + ["random"] * 3


def test_other_overrides_are_another_run(
    learn: ModuleType, tmp_path: Path, arguments: list[str]
) -> None:
    """Also where a finished run of the same name lies about."""
    assert learn.main(["run", "small", *arguments]) == 0
    suites = tmp_path / "suites.yaml"
    suites.write_text(suites.read_text().replace("overrides: []", "overrides: [algo.gamma=.9]"))
    assert learn.main(["run", "small", *arguments]) == 0
    started = next(tmp_path.rglob("started")).read_text().splitlines()
    assert sorted(started) == sorted([f"{seed} from 0" for seed in range(3)] * 2)
    assert {row["overrides"] for row in rows(tmp_path)} == {"algo.gamma=.9"}


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_of_unknown_overrides_is_refused(
    learn: ModuleType,
    tmp_path: Path,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    killed: bool,
) -> None:
    """Finished or not: it could be anybody's of that name."""
    runs, table = tmp_path / "runs", tmp_path / "results" / "learn.csv"
    runs.mkdir()
    if killed:
        (runs / "die_at").write_text("300")  # the first run
    learn.main(["run", "small", *arguments])
    table.unlink()
    (settings := runs / "family_game-hasac-500-seed0.settings").unlink()
    assert learn.main(["run", "small", *arguments]) == 1
    assert f"put them in {settings}" in capsys.readouterr().out
    assert [row["seed"] for row in rows(tmp_path)] == ["1", "2"]
    settings.write_text("")
    assert learn.main(["run", "small", *arguments]) == 0
    assert len(rows(tmp_path)) == 3


def test_runs_of_other_lengths_are_kept(
    learn: ModuleType, tmp_path: Path, arguments: list[str]
) -> None:
    assert learn.main(["run", "small", *arguments]) == 0
    suites = tmp_path / "suites.yaml"
    suites.write_text(suites.read_text().replace("frames: 500", "frames: 300"))
    assert learn.main(["run", "small", *arguments]) == 0
    assert sorted(row["frames"] for row in rows(tmp_path)) == ["300"] * 3 + ["500"] * 3
