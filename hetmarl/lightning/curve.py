"""Redraws ``curve.png`` at each evaluation."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from hetmarl.curves import plot_curves
from hetmarl_envs.errors import ConfigError


class CurveCallback(Callback):
    """Draws the evaluation return against frames, with its standard deviation over episodes.

    It reads ``metrics.csv``, so a resumed run shows everything. A curve that cannot be drawn is a
    warning, once, and never stops the training.

    Args:
        run_dir: holds ``metrics.csv`` and gets ``filename``.
        filename: the image.
        title: above the axes; None: the last parts of ``run_dir``.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        filename: str = "curve.png",
        title: str | None = None,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._filename = filename
        self._title = title or " / ".join(self._run_dir.resolve().parts[-3:])
        self._warned = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = self._run_dir / "metrics.csv"
        if trainer.sanity_checking or not trainer.is_global_zero or not metrics.exists():
            return
        try:
            plot_curves(metrics, self._run_dir / self._filename, title=self._title)
        except ConfigError:
            pass  # no evaluation return among the values: another module's validation
        except Exception as error:  # a broken font or a full disk must not end a training
            if not self._warned:
                warnings.warn(f"Could not draw {self._filename}: {error}", stacklevel=1)
                self._warned = True
