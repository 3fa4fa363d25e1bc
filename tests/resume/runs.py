"""Tiny runs for the tests of this folder, and what there is to compare of them."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from hetmarl import TeamSpec, make_env
from hetmarl.algorithms import get_algorithm
from hetmarl.checkpoint import load_plain
from hetmarl.data.team_data import TeamData
from hetmarl.lightning import MetricsCSVLogger, ResumeMetrics, ThroughputCallback
from hetmarl.lightning.checkpointing import checkpoint_callbacks
from hetmarl.lightning.exact import ExactCheckpointIO
from hetmarl.lightning.module import TeamModule

NUM_ENVS, STEPS = 3, 7
FRAMES = NUM_ENVS * STEPS
"""Frames per iteration."""

MUJOCO: dict[str, Any] = {"task": "mamujoco/hopper_3x1"}
VMAS: dict[str, Any] = {"task": "vmas/navigation", "max_steps": 12}
GAME: dict[str, Any] = {
    "task": "games/roles",
    "actions": ["discrete", "continuous", "discrete"],
    "bonus": True,
    "death_step": 3,
    "repeats": 5,
}
"""Choices and numbers, masks, and an agent that dies."""

OFF_POLICY = {"batch_size": 16, "n_step": 3, "updates_per_step": 0.7, "max_grad_norm": 1.0}
ON_POLICY = {"critic_epochs": 2, "critic_minibatches": 2, "chunk_length": STEPS}
GRADIENTS = {"epochs": 2, "minibatches": 2}
"""Of all on-policy algorithms but HATRPO."""
GRU = {"memory": "gru", "memory_size": 4}


def train(
    run_dir: Path,
    env: dict[str, Any],
    *,
    algo: str = "hasac",
    config: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    iterations: int = 9,
    evaluate_every: int = 2,
    checkpoint_every: int | None = None,
    resume: bool = False,
    capacity: int = 60,
    storage: str = "disk",
    data_config: dict[str, Any] | None = None,
    seed: int = 0,
    num_envs: int = NUM_ENVS,
    callbacks: tuple[Callback, ...] = (),
    **trainer_options: Any,
) -> tuple[Trainer, TeamModule, Any]:
    """Trains; all intervals are in iterations of this process.

    Args:
        config, network: settings of the algorithm and its networks, besides those above.
        capacity, storage: of the replay, where there is one.
        data_config: further settings of the DataModule.
    """
    seed_everything(seed, verbose=False)
    options = dict(env)
    make = partial(make_env, options.pop("task"), **options)
    processes = trainer_options.get("devices", 1)
    entry = get_algorithm(algo)
    if entry.data.endswith(":ReplayData"):
        settings: dict[str, Any] = OFF_POLICY
        collection: dict[str, Any] = {
            "frames_per_batch": num_envs * STEPS,
            "warmup_frames": 2 * num_envs * STEPS * processes,
            "buffer_size": capacity,
            "storage": storage,
        }
    else:
        settings = ON_POLICY | ({} if algo == "hatrpo" else GRADIENTS)
        collection = {"rollout_steps": STEPS}
    module = entry.load("module")(
        TeamSpec.from_env(make(num_envs=1)),
        settings | (config or {}),
        {"hidden_sizes": [8]} | (network or {}),
        seed=seed,
    )
    data = entry.load("data")(
        make,
        num_envs=num_envs,
        total_frames=iterations * num_envs * STEPS * processes,
        seed=seed,
        config=entry.load("data_config")(**collection | (data_config or {})),
        eval_episodes=2,
        checkpoint_frames=(checkpoint_every or evaluate_every) * num_envs * STEPS * processes,
        directory=run_dir / "resume" / "replay",
    )
    options = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "check_val_every_n_epoch": None,
        "val_check_interval": evaluate_every,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "logger": MetricsCSVLogger(run_dir),
        "plugins": [ExactCheckpointIO()],
    }
    trainer = Trainer(
        **{**options, **trainer_options},
        callbacks=[
            ResumeMetrics(),
            ThroughputCallback(),
            *checkpoint_callbacks(run_dir, checkpoint_every),
            *callbacks,
        ],
    )
    last = run_dir / "checkpoints" / "last.ckpt"
    trainer.fit(module, datamodule=data, ckpt_path=str(last) if resume else None)
    return trainer, module, data


class StopAfter(Callback):
    """Ends the run after an iteration as a crash does: by an exception."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.iterations:
            raise InterruptedError


def interrupt(run_dir: Path, env: dict[str, Any], after: int, **options: Any) -> None:
    """Trains to the end of an iteration and no further."""
    with pytest.raises(InterruptedError):
        train(run_dir, env, callbacks=(StopAfter(after),), **options)


def metrics(run_dir: Path, *, but: tuple[str, ...] = ("time/",)) -> list[dict[str, str]]:
    """The rows of ``metrics.csv`` without the columns that start with one of ``but``."""
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith(but)} for row in rows]


def result(run_dir: Path, data: TeamData) -> dict[str, Any]:
    """Everything that a resumed run must have in common with an uninterrupted one.

    Without the replay's contents where a finished run was resumed, which has not opened it again.
    """
    last = load_plain(run_dir / "checkpoints" / "last.ckpt")
    best = load_plain(run_dir / "checkpoints" / "best.ckpt")
    companion = load_plain(run_dir / "resume" / last["hetmarl_companion"]["file"])
    for rank in companion["ranks"]:
        # memory is a ring, and smaller: what lies outside of the visible part may differ
        for name in ("arrays", "slots"):
            rank.get("replay", {}).pop(name, None)
    return {
        "last": {k: last[k] for k in ("state_dict", "optimizer_states", "global_step", "loops")},
        "best": best["state_dict"],
        "score": last["callbacks"]["TeamCheckpoints"],
        "resume": companion,
        "replay": visible(data),
        "metrics": metrics(run_dir),
        "files": sorted(str(p.relative_to(run_dir)) for p in run_dir.glob("checkpoints/**/*")),
        "companions": len(list(run_dir.glob("resume/*.pt*")) + list(run_dir.glob("resume/.*"))),
    }


def visible(data: Any) -> dict[str, torch.Tensor] | None:
    """Every transition that the replay may draw; None where there is no replay."""
    replay = getattr(data, "replay", None)
    if replay is None:
        return None
    steps = torch.arange(max(0, replay.steps - replay.capacity), replay.steps)
    env = torch.arange(replay.num_envs).repeat_interleave(len(steps))
    rows = replay.transitions(env, steps.repeat(replay.num_envs), n_step=3, gamma=0.9)
    return {".".join(k) if isinstance(k, tuple) else k: v for k, v in rows.items(True, True)}


def difference(a: Any, b: Any, where: str = "") -> str:
    """Where two trees of tensors and plain values differ by a bit, or ``""``."""
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            return f"{where}: keys {set(a) ^ set(b) or 'in another order'}"
        return next((d for k in a if (d := difference(a[k], b[k], f"{where}/{k}"))), "")
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} entries"
        pairs = enumerate(zip(a, b, strict=True))
        return next((d for i, (x, y) in pairs if (d := difference(x, y, f"{where}[{i}]"))), "")
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and a.equal(b)
        return "" if same else f"{where}: {a.flatten()[:4]} and {b.flatten()[:4]}"
    return "" if a == b or (a != a and b != b) else f"{where}: {a!r} and {b!r}"
