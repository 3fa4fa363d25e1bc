"""Resume without violence, determinism, and what the schedule of checkpoints promises."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from hetmarl.checkpoint import load_plain
from hetmarl.lightning import quiet_lightning
from hetmarl_envs.errors import ConfigError, HetmarlError
from tests.resume.runs import (
    FRAMES,
    MUJOCO,
    VMAS,
    difference,
    interrupt,
    metrics,
    result,
    train,
)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet_lightning()


@pytest.fixture(scope="module", params=[MUJOCO, VMAS], ids=["mamujoco", "vmas"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An environment, a finished run on it, and its result."""
    run_dir = tmp_path_factory.mktemp("whole")
    _, _, data = train(run_dir, request.param)
    return request.param, run_dir, result(run_dir, data)


# ---------------------------------------------------------------------- exactness
@pytest.mark.slow
def test_evaluates_on_schedule_and_at_the_end(whole: Any) -> None:
    _, _, expected = whole
    evaluated = [int(row["frames"]) for row in expected["metrics"] if row["eval/return_mean"]]
    assert evaluated == [2 * FRAMES, 4 * FRAMES, 6 * FRAMES, 8 * FRAMES, 9 * FRAMES]
    assert [int(row["frames"]) for row in expected["metrics"]] == [k * FRAMES for k in range(1, 10)]
    assert expected["last"]["global_step"] == 9
    best = max(float(row["eval/return_mean"] or "-inf") for row in expected["metrics"])
    assert expected["score"]["best_score"] == pytest.approx(best, rel=1e-6)
    assert expected["files"] == ["checkpoints/best.ckpt", "checkpoints/last.ckpt"]
    assert expected["companions"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["disk", "memory"])
def test_resumed_run_is_the_whole_run(whole: Any, storage: str, tmp_path: Path) -> None:
    env, _, expected = whole
    interrupt(tmp_path, env, 5, storage=storage)
    assert len(metrics(tmp_path)) == 5
    trainer, _, data = train(tmp_path, env, resume=True, storage=storage)
    assert trainer.global_step == 9
    assert difference(expected, result(tmp_path, data)) == ""


@pytest.mark.slow
def test_checkpoints_between_evaluations(whole: Any, tmp_path: Path) -> None:
    """Every third iteration: alone at 3, together with an evaluation at 6; one row per batch of 4
    iterations."""
    env, _, expected = whole
    settings: dict[str, Any] = {"checkpoint_every": 3, "log_every_n_steps": 2}
    train(tmp_path / "a", env, **settings)
    for after in (5, 7):
        run_dir = tmp_path / f"b{after}"
        interrupt(run_dir, env, after, **settings)
        last = load_plain(run_dir / "checkpoints" / "last.ckpt")
        assert last["global_step"] == (3 if after == 5 else 6)
        _, _, data = train(run_dir, env, resume=True, **settings)
        assert metrics(run_dir) == metrics(tmp_path / "a")
        mine = result(run_dir, data)
        for key in ("resume", "replay", "best", "score"):
            if key != "resume":  # the spare slots differ with the interval
                assert difference(expected[key], mine[key]) == ""
        assert difference(expected["last"]["state_dict"], mine["last"]["state_dict"]) == ""


def test_finished_run_does_nothing_when_resumed(whole: Any, tmp_path: Path) -> None:
    env, run_dir, _ = whole
    shutil.copytree(run_dir, tmp_path / "run")
    before = metrics(tmp_path / "run", but=())
    trainer, _, _ = train(tmp_path / "run", env, resume=True)
    assert trainer.global_step == 9
    assert metrics(tmp_path / "run", but=()) == before


@pytest.mark.slow
@pytest.mark.parametrize("first", [4, 5])
def test_finished_run_goes_on_with_more_frames(whole: Any, first: int, tmp_path: Path) -> None:
    env, _, expected = whole
    train(tmp_path, env, iterations=first)
    trainer, module, _ = train(tmp_path, env, resume=True)
    assert trainer.global_step == 9
    assert difference(expected["last"]["state_dict"], module.state_dict()) == ""
    # the evaluation at what was the end stays
    rows = metrics(tmp_path, but=("time/", "eval/"))
    for row, wanted in zip(rows, expected["metrics"], strict=True):
        assert row == {key: wanted[key] for key in row}


@pytest.mark.slow
def test_best_score_survives_a_moved_directory(whole: Any, tmp_path: Path) -> None:
    env, _, expected = whole
    train(tmp_path / "before", env, iterations=6)
    (tmp_path / "before").rename(tmp_path / "after")
    _, _, data = train(tmp_path / "after", env, resume=True)
    mine = result(tmp_path / "after", data)
    assert mine["score"] == expected["score"]
    assert difference(expected["best"], mine["best"]) == ""


@pytest.mark.slow
def test_stopped_early_leaves_an_evaluated_checkpoint(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = trainer.global_step >= 3

    train(tmp_path, MUJOCO, callbacks=(Stop(),))
    rows = metrics(tmp_path)
    assert len(rows) == 3 and rows[-1]["eval/return_mean"]
    assert load_plain(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 3
    trainer, _, _ = train(tmp_path, MUJOCO, resume=True)
    assert trainer.global_step == 9


@pytest.mark.slow
def test_without_evaluation_there_is_a_last_checkpoint(tmp_path: Path) -> None:
    train(tmp_path / "a", MUJOCO, iterations=5, limit_val_batches=0)
    assert load_plain(tmp_path / "a" / "checkpoints" / "last.ckpt")["global_step"] == 5
    _, module, _ = train(tmp_path / "a", MUJOCO, iterations=6, limit_val_batches=0, resume=True)
    _, whole, _ = train(tmp_path / "b", MUJOCO, iterations=6, limit_val_batches=0)
    assert difference(whole.state_dict(), module.state_dict()) == ""


@pytest.mark.slow
# ---------------------------------------------------------------------- determinism
def test_same_seed_same_run(whole: Any, tmp_path: Path) -> None:
    env, _, expected = whole
    torch.manual_seed(123)  # of no concern
    _, _, data = train(tmp_path / "same", env)
    assert difference(expected, result(tmp_path / "same", data)) == ""
    train(tmp_path / "other", env, seed=1)
    assert metrics(tmp_path / "other") != expected["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 5])
def test_evaluation_does_not_change_training(whole: Any, every: int, tmp_path: Path) -> None:
    env, _, expected = whole
    _, module, _ = train(tmp_path, env, evaluate_every=every, checkpoint_every=2)
    assert difference(expected["last"]["state_dict"], module.state_dict()) == ""
    assert metrics(tmp_path, but=("time/", "eval/")) == [
        {k: v for k, v in row.items() if not k.startswith("eval/")} for row in expected["metrics"]
    ]


def test_sub_environments_start_differently(whole: Any, tmp_path: Path) -> None:
    env, _, _ = whole
    _, _, data = train(tmp_path, env, iterations=1, storage="memory")
    assert data.replay is not None
    env = torch.arange(data.num_envs)
    first = data.replay.transitions(env, torch.zeros_like(env), n_step=1, gamma=0.9)
    observed = next(value for key, value in first.items(True, True) if "observation" in key)
    assert len(observed.flatten(1).unique(dim=0)) == data.num_envs


# ---------------------------------------------------------------------- refusals
def test_resume_needs_last_with_its_companion(whole: Any, tmp_path: Path) -> None:
    env, run_dir, _ = whole
    shutil.copytree(run_dir, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "last.ckpt").replace(checkpoints / "was.ckpt")
    with pytest.raises(HetmarlError, match=r"there is no checkpoint at .*last\.ckpt"):
        train(tmp_path / "run", env, resume=True)
    shutil.copy(checkpoints / "best.ckpt", checkpoints / "last.ckpt")
    with pytest.raises(ConfigError, match=r"holds no resume state.*load_policy"):
        train(tmp_path / "run", env, resume=True)
    (checkpoints / "was.ckpt").replace(checkpoints / "last.ckpt")
    (companion,) = (tmp_path / "run" / "resume").glob("*.pt")
    companion.rename(tmp_path / "companion")
    with pytest.raises(ConfigError, match=r"holds no resume state.*with resume/"):
        train(tmp_path / "run", env, resume=True)
    companion.write_bytes((tmp_path / "companion").read_bytes()[:-1])
    with pytest.raises(HetmarlError, match="is corrupt"):
        train(tmp_path / "run", env, resume=True)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_corrupt_checkpoint(whole: Any, damage: str, tmp_path: Path) -> None:
    env, run_dir, _ = whole
    shutil.copytree(run_dir, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    data = bytearray(last.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        middle = slice(len(data) // 2, len(data) // 2 + 400)  # more than what is only padding
        data[middle] = bytes(byte ^ 255 for byte in data[middle])
    else:
        data = bytearray(b"no checkpoint" if damage == "text" else b"")
    last.write_bytes(data)
    with pytest.raises(HetmarlError, match=r"last\.ckpt is corrupt or no checkpoint"):
        train(tmp_path / "run", env, resume=True)


@pytest.mark.slow
def test_changed_replay_is_refused(whole: Any, tmp_path: Path) -> None:
    env, run_dir, _ = whole
    shutil.copytree(run_dir, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"replay has slots=.*Resume with the settings"):
        train(tmp_path / "run", env, resume=True, iterations=11, capacity=90)
    # a checkpoint that the replay has outrun
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    saved = last.read_bytes(), *[p.read_bytes() for p in (tmp_path / "run").glob("resume/*.pt")]
    (companion,) = (tmp_path / "run").glob("resume/*.pt")
    train(tmp_path / "run", env, resume=True, iterations=16)
    last.write_bytes(saved[0])
    companion.write_bytes(saved[1])
    with pytest.raises(ConfigError, match=r"went on for 49 vector steps .* for 21 only"):
        train(tmp_path / "run", env, resume=True, iterations=11)
    shutil.rmtree(tmp_path / "run" / "resume" / "replay")
    with pytest.raises(HetmarlError, match=r"missing from .*Start a new run"):
        train(tmp_path / "run", env, resume=True, iterations=11)


# ---------------------------------------------------------------------- precision
@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "dtype"), [("64-true", torch.float64), ("bf16-mixed", torch.float32)]
)
@pytest.mark.parametrize("env", [MUJOCO, VMAS], ids=["mujoco", "vmas"])
def test_precisions_train_and_resume(
    env: dict[str, Any], precision: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Taken up after two iterations of learning, when weights are no round numbers any more."""
    settings = {"iterations": 6, "precision": precision}
    _, whole, data = train(tmp_path / "whole", env, **settings)
    assert {p.dtype for p in whole.parameters()} == {dtype}
    interrupt(tmp_path / "part", env, 5, **settings)
    _, module, again = train(tmp_path / "part", env, resume=True, **settings)
    assert difference(whole.state_dict(), module.state_dict()) == ""
    expected = result(tmp_path / "whole", data)
    assert difference(expected, result(tmp_path / "part", again)) == ""
    assert torch.get_default_dtype() == torch.float32
