"""HASAC with Lightning's Trainer: no Hydra, no command line of ours.

    python recipes/lightning_trainer.py

Trainer, callbacks, loggers and strategies are Lightning's; add your own where it says so.
"""

import argparse
from functools import partial
from pathlib import Path

from lightning.pytorch import Trainer

from hetmarl import TeamSpec, make_env
from hetmarl.algorithms import HASAC, HASACConfig
from hetmarl.data import ReplayData, ReplayDataConfig
from hetmarl.lightning import build_loggers, quiet_lightning, team_callbacks
from hetmarl.lightning.checkpointing import checkpoint_callbacks
from hetmarl.lightning.exact import ExactCheckpointIO
from hetmarl.networks import NetworkConfig


def train(
    task: str = "mamujoco/halfcheetah_2x3",
    *,
    total_frames: int = 40_000,
    num_envs: int = 20,
    warmup_frames: int = 5_000,
    eval_interval_frames: int = 10_000,
    seed: int = 0,
    run_dir: str | Path = "runs/lightning_trainer",
    resume: bool = False,
) -> Trainer:
    """Trains on one task; all intervals are in frames."""
    run_dir = Path(run_dir)
    make = partial(make_env, task)
    module = HASAC(
        TeamSpec.from_env(make(num_envs=1)),
        HASACConfig(batch_size=500, gamma=0.99),
        NetworkConfig(hidden_sizes=[256, 256]),
        seed=seed,
    )
    data = ReplayData(
        make,
        num_envs=num_envs,
        total_frames=total_frames,
        seed=seed,
        config=ReplayDataConfig(warmup_frames=warmup_frames),
        eval_episodes=10,
        checkpoint_frames=eval_interval_frames,
        directory=run_dir / "resume" / "replay",
    )
    trainer = Trainer(
        max_epochs=1,  # one pass over the loader, whose length follows from total_frames
        accelerator="cpu",
        # One batch is one iteration; a validation is an evaluation.
        val_check_interval=max(1, eval_interval_frames // data.frames_per_iteration),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=1,
        logger=build_loggers("csv", run_dir),  # or any of Lightning's
        callbacks=[
            *team_callbacks(run_dir, total_frames),
            *checkpoint_callbacks(run_dir),  # best.ckpt and last.ckpt, at each evaluation
        ],
        # Plain, safe checkpoints; what only an exact resume needs goes beside last.ckpt.
        plugins=[ExactCheckpointIO()],
    )
    last = run_dir / "checkpoints" / "last.ckpt"
    trainer.fit(module, datamodule=data, ckpt_path=last if resume else None)
    return trainer


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="mamujoco/halfcheetah_2x3")
    parser.add_argument("--total-frames", type=int, default=40_000)
    parser.add_argument("--num-envs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", default="runs/lightning_trainer")
    parser.add_argument("--resume", action="store_true", help="go on from last.ckpt")
    given = parser.parse_args()
    quiet_lightning()
    train(
        given.task,
        total_frames=given.total_frames,
        num_envs=given.num_envs,
        seed=given.seed,
        run_dir=given.run_dir,
        resume=given.resume,
    )


if __name__ == "__main__":
    main()
