"""How fast the run is: ``time/...`` columns, exempt from the equality of resumed runs."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from hetmarl.lightning.metrics_csv import frames_of


class ThroughputCallback(Callback):
    """Logs how the time of the iterations since the last logged one was spent.

    ============================  ==============================================================
    ``time/frames_per_second``    frames per second; evaluations do not count, checkpoints do
    ``time/collect_fraction``     part of that time before ``training_step``: acting, not learning
    ``time/elapsed_seconds``      since the first frame, over all resumed parts, with evaluations
    ``time/staleness_mean``       iterations that the policy which collected lags behind the
                                  learner's, over frames; only where they collect side by side
    ``time/staleness_max``        the same of the worst frame
    ============================  ==============================================================

    Cost: two clock readings per iteration, three logged values per logged one.
    """

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._start: float | None = None
        self._frames = 0
        self._reset(0.0)

    def _reset(self, now: float) -> None:
        self._since = self._idle_from = now
        self._collect = self._evaluation = 0.0
        self._staleness: list[Tensor] = []

    @property
    def elapsed_seconds(self) -> float:
        """Seconds of training so far, over all parts of a resumed run."""
        return self._elapsed + (0.0 if self._start is None else perf_counter() - self._start)

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed_seconds": self.elapsed_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._elapsed = float(state_dict["elapsed_seconds"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = perf_counter()
        self._frames = frames_of(trainer, pl_module)
        self._reset(self._start)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._collect += perf_counter() - self._idle_from

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = self._idle_from = perf_counter()
        if getattr(batch, "staleness", None) is not None:
            self._staleness.append(batch.staleness)
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if interval < 1 or (batch_idx + 1) % interval:
            return
        frames = frames_of(trainer, pl_module)
        seconds = max(now - self._since - self._evaluation, 1e-9)
        logged: dict[str, Any] = {
            "time/frames_per_second": (frames - self._frames) / seconds,
            "time/collect_fraction": min(self._collect / seconds, 1.0),
            "time/elapsed_seconds": self.elapsed_seconds,
        }
        if self._staleness:
            stale = torch.cat(self._staleness)
            logged |= {"time/staleness_mean": stale.mean(), "time/staleness_max": stale.max()}
        pl_module.log_dict(logged, batch_size=1)
        self._frames = frames
        self._reset(now)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluation_from = perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._idle_from = perf_counter()
        self._evaluation += self._idle_from - self._evaluation_from

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._elapsed, self._start = self.elapsed_seconds, None
