"""What hetmarl adds to Lightning's Trainer: loggers, what a person sees of a run, checks."""

from __future__ import annotations

import os

from lightning.pytorch import Callback

from hetmarl.lightning.checkpointing import checkpoint_callbacks
from hetmarl.lightning.curve import CurveCallback
from hetmarl.lightning.exact import ExactCheckpointIO
from hetmarl.lightning.loggers import build_loggers, list_loggers
from hetmarl.lightning.metrics_csv import MetricsCSVLogger, ResumeMetrics
from hetmarl.lightning.neptune import NeptuneOfflineLogger
from hetmarl.lightning.progress import TeamProgressBar
from hetmarl.lightning.quiet import quiet_lightning
from hetmarl.lightning.strategy import make_strategy
from hetmarl.lightning.throughput import ThroughputCallback
from hetmarl.lightning.trainer_checks import RefuseUnsupported, check_trainer


def team_callbacks(
    run_dir: str | os.PathLike[str], total_frames: int | None = None
) -> list[Callback]:
    """The callbacks of a run but its checkpoints: progress, metrics, curve, throughput, checks.

    Args:
        run_dir: where ``metrics.csv`` lies and ``curve.png`` goes.
        total_frames: where the run ends, frames; None: what the DataModule says.
    """
    return [
        RefuseUnsupported(),
        TeamProgressBar(total_frames, run_dir),
        ResumeMetrics(),
        CurveCallback(run_dir),
        ThroughputCallback(),  # behind the curve, whose drawing is part of the evaluation
    ]


__all__ = [
    "CurveCallback",
    "ExactCheckpointIO",
    "MetricsCSVLogger",
    "NeptuneOfflineLogger",
    "RefuseUnsupported",
    "ResumeMetrics",
    "TeamProgressBar",
    "ThroughputCallback",
    "build_loggers",
    "check_trainer",
    "checkpoint_callbacks",
    "list_loggers",
    "make_strategy",
    "quiet_lightning",
    "team_callbacks",
]
