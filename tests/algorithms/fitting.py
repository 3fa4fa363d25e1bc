"""An algorithm under Lightning's Trainer, as small as it gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from hetmarl.algorithms import HASAC, OnPolicyModule, get_algorithm
from hetmarl.lightning.checkpointing import checkpoint_callbacks
from hetmarl.lightning.exact import ExactCheckpointIO
from hetmarl_envs import TeamSpec


def fit(
    make: Callable[..., Any],
    run_dir: Path | None = None,
    *,
    frames: int = 60,
    num_envs: int = 2,
    config: dict[str, Any] | None = None,
    data_config: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    module: type[Any] = HASAC,
    prepare: Callable[[Any], None] | None = None,
    evaluate_every: int = 2,
    eval_episodes: int = 2,
    seed: int = 0,
    callbacks: tuple[Callback, ...] = (),
    **trainer: Any,
) -> Any:
    """Trains, iterations of 10 frames, off-policy the first two of them warm-up."""
    if issubclass(module, OnPolicyModule):
        entry = get_algorithm("happo")
        settings: dict[str, Any] = {"chunk_length": 5}
        collection: dict[str, Any] = {"rollout_steps": 5}
    else:
        entry = get_algorithm("hasac")
        settings = {"batch_size": 16, "n_step": 2, "updates_per_step": 0.6}
        collection = {"frames_per_batch": 10, "warmup_frames": 20, "buffer_size": 1000}
    spec = TeamSpec.from_env(make(num_envs=1))
    sizes = {"hidden_sizes": [8]} | (network or {})
    algorithm = module(spec, settings | (config or {}), sizes, seed)
    if prepare is not None:
        prepare(algorithm)
    data = entry.load("data")(
        make,
        num_envs=num_envs,
        total_frames=frames,
        seed=seed,
        config=entry.load("data_config")(**collection | (data_config or {})),
        eval_episodes=eval_episodes,
        checkpoint_frames=20,
        directory=None if run_dir is None else run_dir / "resume" / "replay",
    )
    saving = [] if run_dir is None else checkpoint_callbacks(run_dir)
    flags: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "check_val_every_n_epoch": None,
        "val_check_interval": evaluate_every,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_checkpointing": run_dir is not None,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "plugins": [] if run_dir is None else [ExactCheckpointIO()],
    }
    Trainer(callbacks=[*saving, *callbacks], **flags | trainer).fit(algorithm, datamodule=data)
    return algorithm
