import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hetmarl_envs.errors import HetmarlError

from .conftest import TINY, Outcome

Command = Callable[..., Outcome]


@pytest.mark.slow
def test_train_then_everything_else(hetmarl: Command, tmp_path: Path) -> None:
    code, out, err = hetmarl("train", *TINY, "run_dir=runs/a")
    assert code == 0, err
    assert "Finished at frame 800" in out
    run = tmp_path / "runs/a"
    there = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert there >= {
        "config.yaml",
        "metrics.csv",
        "curve.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    }
    assert os.listdir(tmp_path) == ["runs"], "nothing beside the run"
    config = OmegaConf.load(run / "config.yaml")
    assert (config.task.name, config.task.max_episode_steps) == ("mamujoco/hopper_3x1", 20)
    assert (config.algo.name, config.algo.batch_size, config.algo.gamma) == ("hasac", 8, 0.99)
    rows = (run / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("frames,")
    assert rows[-1].startswith("800")

    result = json.loads(hetmarl("evaluate", "runs/a", "episodes=3").out)
    assert (result["task"], result["algo"], result["episodes"]) == (config.task.name, "hasac", 3)
    assert len(result["returns"]) == len(result["lengths"]) == 3
    assert result["checkpoint"].endswith("best.ckpt")
    assert json.loads(hetmarl("evaluate", "runs/a", "episodes=3").out) == result
    last = hetmarl("evaluate", "runs/a/checkpoints/last.ckpt", "episodes=1").out
    assert json.loads(last)["checkpoint"].endswith("last.ckpt")
    code, _, err = hetmarl("evaluate", "runs/a", "checkpoint=first")
    assert code == 2
    assert "no checkpoint first; it has best, last" in err

    assert hetmarl("plot", "runs/a", "out=one.svg").out == "one.svg\n"
    assert hetmarl("plot", "runs/a", "metric=train/q_mean").out == "runs/a/train_q_mean.png\n"
    assert (tmp_path / "one.svg").stat().st_size > 1000
    code, _, err = hetmarl("plot", "runs/a", "metric=eval/return_men")
    assert code == 2
    assert "Did you mean 'eval/return_mean'?" in err


def test_training_keeps_freed_memory(hetmarl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> bool:
        raise HetmarlError("kept")

    monkeypatch.setattr("hetmarl.cli.train.keep_freed_memory", stop)
    code, _, err = hetmarl("train", *TINY)
    assert (code, "kept" in err) == (2, True)


@pytest.mark.slow
def test_default_run_dir_and_multirun(hetmarl: Command, tmp_path: Path) -> None:
    code, _, err = hetmarl("train", "-m", *TINY, "algo.gamma=0.9,0.95", "total_frames=400")
    assert code == 0, err
    parent = tmp_path / "runs/mamujoco/hopper_3x1/hasac"
    runs = sorted(parent.iterdir())
    assert len(runs) == 2
    assert all("-seed0" in run.name for run in runs)
    assert {OmegaConf.load(run / "config.yaml").algo.gamma for run in runs} == {0.9, 0.95}
    assert not (tmp_path / "outputs").exists()


def test_runs_of_the_same_second_get_their_own_directory(
    hetmarl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import datetime

    from hetmarl.cli import run_dir
    from hetmarl.conf import register, resolve

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Stopped":
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_dir, "datetime", Stopped)
    register()
    settings = resolve({"algo": {"name": "hasac"}, "task": {"name": "vmas/balance"}, "seed": 7})
    chosen = [run_dir.choose_run_dir(settings).as_posix() for _ in range(3)]
    first = "runs/vmas/balance/hasac/2026-01-02_03-04-05-seed7"
    assert chosen == [first, f"{first}-2", f"{first}-3"]


@pytest.mark.slow
def test_resume(hetmarl: Command, tmp_path: Path) -> None:
    assert hetmarl("train", *TINY, "run_dir=a", "algo.gamma=0.9").code == 0
    rows = Path("a/metrics.csv").read_text().splitlines()

    code, out, err = hetmarl("train", "run_dir=a", "resume=last", "total_frames=1200")
    assert code == 0, err
    assert "Changed: total_frames=1200 (was 800)" in out
    assert out.count("Changed:") == 1
    config = OmegaConf.load("a/config.yaml")
    assert (config.total_frames, config.algo.gamma, config.num_envs) == (1200, 0.9, 4)
    more = Path("a/metrics.csv").read_text().splitlines()
    assert more[: len(rows) - 1] == rows[:-1]
    assert more[-1].startswith("1200")

    again = ["train", "resume=a", "total_frames=1400", "algo=hasac", "task=mamujoco/hopper_3x1"]
    code, out, err = hetmarl(*again, "algo.actor_lr=1e-4", "trainer.enable_progress_bar=false")
    assert code == 0, err
    changed = [line for line in out.splitlines() if line.startswith("Changed:")]
    assert len(changed) == 2
    assert "Changed: algo.actor_lr=0.0001 (was 0.001)" in changed

    for override, named in (
        ("num_envs=8", "num_envs=8 (the run has 4)"),
        ("task=mamujoco/ant_2x4", "task.name=mamujoco/ant_2x4"),
        ("seed=1", "seed=1 (the run has 0)"),
        ("network.hidden_sizes=[9]", "network.hidden_sizes=[9] (the run has [8])"),
        ("data.buffer_size=99", "data.buffer_size=99"),
        ("eval.interval_frames=200", "eval.interval_frames=200"),
        ("run_dir=b", "goes on in its own directory"),
    ):
        code, _, err = hetmarl("train", "resume=a", override)
        assert code == 2, override
        assert named in err
        assert "Traceback" not in err
    assert not Path("b").exists()


@pytest.mark.slow
def test_an_evaluation_and_a_checkpoint_end_even_a_short_run(hetmarl: Command) -> None:
    code, _, err = hetmarl("train", *TINY, "run_dir=a", "eval.interval_frames=5000")
    assert code == 0, err
    assert Path("a/checkpoints/best.ckpt").exists()
    assert Path("a/checkpoints/last.ckpt").exists()


def test_processes_from_outside_need_a_run_dir(
    hetmarl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, _, err = hetmarl("train", *TINY)
    assert code == 2
    assert "set run_dir=…, so that they agree" in err


@pytest.mark.slow
def test_resume_before_the_first_checkpoint(hetmarl: Command) -> None:
    assert hetmarl("train", *TINY, "run_dir=a").code == 0
    Path("a/checkpoints/last.ckpt").unlink()
    code, _, err = hetmarl("train", "run_dir=a", "resume=last")
    assert code == 2
    assert "has no checkpoints/last.ckpt" in err


@pytest.mark.slow
def test_corrupt_checkpoint(hetmarl: Command) -> None:
    assert hetmarl("train", *TINY, "run_dir=a").code == 0
    Path("a/checkpoints/last.ckpt").write_bytes(b"not a checkpoint")
    for arguments in (["train", "resume=a"], ["evaluate", "a", "checkpoint=last"]):
        code, _, err = hetmarl(*arguments)
        assert code == 2
        assert "corrupt" in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_render(hetmarl: Command) -> None:
    assert hetmarl("train", *TINY, "run_dir=a", "total_frames=400").code == 0
    code, out, err = hetmarl("render", "a", "out=film.gif", "steps=5")
    assert code == 0, err
    assert out.startswith("film.gif: 5 steps, return ")
    assert Path("film.gif").read_bytes()[:3] == b"GIF"
    assert hetmarl("render", "a", "out=film.mp4", "steps=5").code == 0
    assert Path("film.mp4").stat().st_size > 500
