"""Real processes: the recipe as a user types it, and Lightning's children."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hetmarl.checkpoint import load_plain
from tests.processes import session_of
from tests.resume.runs import difference, metrics

from .conftest import ON_POLICY, TINY
from .running import gone, started

ROOT = Path(__file__).resolve().parents[2]
RECIPE = [sys.executable, str(ROOT / "recipes" / "train.py")]
COMMAND = [sys.executable, "-m", "hetmarl.cli.main", "train"]
OTHERS = ("haa2c", "hamdpo", "mappo", "ippo", "maa2c", "ia2c")
"""Those that ``test_on_policy_runs_of_two_processes_resume_exactly`` does not run."""


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    return subprocess.run(
        command, cwd=directory, env=clean, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.slow
def test_a_typo_ends_in_one_line_and_code_2(tmp_path: Path) -> None:
    done = run([*RECIPE, "algo=hasca"], tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    expected = "hetmarl: unknown algo 'hasca'. Did you mean 'hasac'? `hetmarl list algos` shows"
    assert done.stderr.splitlines()[-1].startswith(expected)
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_share_one_run_dir_in_each_job_of_a_sweep(tmp_path: Path) -> None:
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "total_frames=400", "-m", "seed=0,1"]
    done = run([*COMMAND, *TINY, "eval.interval_frames=200", *two], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = sorted((tmp_path / "runs/mamujoco/hopper_3x1/hasac").iterdir())
    assert [path.name[-5:] for path in runs] == ["seed0", "seed1"]
    for seed, path in enumerate(runs):
        assert OmegaConf.load(path / "config.yaml").seed == seed
        rows = (path / "metrics.csv").read_text().splitlines()
        assert rows[-1].startswith("400")
        assert len(rows) == 2, "one iteration of 200 frames in each process, written once"
    assert os.listdir(tmp_path) == ["runs"]


@pytest.mark.slow
@pytest.mark.ddp
def test_on_policy_runs_of_two_processes_resume_exactly(tmp_path: Path) -> None:
    """Both algorithms in one sweep: two iterations and two more are four."""
    two = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    settings = [*ON_POLICY, *two, "eval.interval_frames=80", "-m", "algo=happo,hatrpo"]
    for command in (
        [*settings, "run_dir=whole_${algo.name}", "total_frames=150"],  # in whole iterations
        [*settings, "run_dir=part_${algo.name}", "total_frames=80"],
        ["-m", "resume=part_happo,part_hatrpo", "total_frames=150"],
    ):
        done = run([*COMMAND, *command], tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "sync_dist" not in done.stderr
    for algo in ("happo", "hatrpo"):
        whole, part = (tmp_path / f"{kind}_{algo}" for kind in ("whole", "part"))
        rows = metrics(whole)
        assert [row["frames"] for row in rows] == ["40", "80", "120", "160"]
        assert [bool(row["eval/return_mean"]) for row in rows] == [False, True, False, True]
        assert metrics(part) == rows
        states = [load_plain(path / "checkpoints" / "last.ckpt") for path in (whole, part)]
        for key in ("state_dict", "optimizer_states", "global_step"):
            assert difference(states[0][key], states[1][key]) == ""
        assert int(states[0]["state_dict"]["frames"]) == 160


@pytest.mark.slow
@pytest.mark.ddp
def test_every_on_policy_algorithm_trains_in_two_processes(tmp_path: Path) -> None:
    """As typed; that they equal one process is ``tests/distributed``'s."""
    two = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    sweep = ["-m", f"algo={','.join(OTHERS)}", "run_dir=${algo.name}", "total_frames=80"]
    done = run([*COMMAND, *ON_POLICY, *two, *sweep], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for algo in OTHERS:
        assert [row["frames"] for row in metrics(tmp_path / algo)] == ["40", "80"]


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("whom", ["the first", "all"])
def test_two_processes_stop_together(whom: str, tmp_path: Path) -> None:
    """A scheduler ends the process that it knows; Ctrl-C reaches all of them."""
    two = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    long = ["run_dir=run", "total_frames=10_000_000", "eval.interval_frames=5_000_000"]
    with started(tmp_path, *COMMAND, "algo=happo", *ON_POLICY, *two, *long) as run:
        if whom == "the first":
            run.terminate()
        else:
            os.killpg(run.pid, signal.SIGINT)
        output = run.communicate(timeout=120)[0]
        assert gone(run.pid), session_of(run.pid)
    assert run.returncode == (143 if whom == "the first" else 130), output
    assert "Go on with: hetmarl train run_dir=run resume=last" in output
    last = load_plain(tmp_path / "run" / "checkpoints" / "last.ckpt")
    rows = metrics(tmp_path / "run")
    assert int(last["state_dict"]["frames"]) == int(rows[-1]["frames"])
    done = run_on(tmp_path, int(rows[-1]["frames"]) + 80)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(metrics(tmp_path / "run")) == len(rows) + 2


def run_on(directory: Path, frames: int) -> subprocess.CompletedProcess[str]:
    return run([*COMMAND, "run_dir=run", "resume=last", f"total_frames={frames}"], directory)
