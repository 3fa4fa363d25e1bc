"""What a person sees of a run: a live bar, a row per evaluation, and where things were written."""

from __future__ import annotations

import math
import os
from collections import deque
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from hetmarl.lightning.metrics_csv import frames_of

_WINDOW_SECONDS = 120.0  # the speed that "left" extrapolates, evaluations included


class TeamProgressBar(ProgressBar):
    """Live bar with frames, frames/s, returns and time left; a table that grows by evaluation.

    Without a terminal it prints a plain line every ``plain_interval`` seconds instead.

    Args:
        total_frames: where the run ends, frames; None: the DataModule's ``total_frames``, else
            extrapolated from the loader's length.
        run_dir: named at the end, with what lies in it.
        console: default: standard output.
        live_interval: seconds between updates of the live bar.
        plain_interval: seconds between plain lines.
    """

    def __init__(
        self,
        total_frames: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        *,
        console: Console | None = None,
        live_interval: float = 0.5,
        plain_interval: float = 20.0,
    ) -> None:
        super().__init__()
        self._total = total_frames
        self._run_dir = None if run_dir is None else Path(run_dir)
        self._console = console or Console()
        self._live_interval, self._plain_interval = live_interval, plain_interval
        self._enabled = True
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._marks: deque[tuple[float, int]] = deque(maxlen=4096)
        self._shown = self._start = 0.0
        self._elapsed_before = 0.0
        self._header_due = True
        self._returns = ""

    # ------------------------------------------------------------------ Lightning's interface
    @property
    def is_enabled(self) -> bool:
        """Whether it shows anything; ``LightningModule.print`` asks."""
        return self._enabled

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        """Shows nothing; Lightning calls it on every rank but the first."""
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints above the bar; ``LightningModule.print`` ends here."""
        if self._enabled:
            self._console.print(*args, markup=False, highlight=False, soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed_seconds": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._elapsed_before = float(state_dict["elapsed_seconds"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        frames = frames_of(trainer, pl_module)
        self._start = self._shown = perf_counter()
        self._marks.clear()
        self._marks.append((self._start, frames))
        self._header_due = True
        if not self._enabled:
            return
        if frames:
            self.print(f"Going on at frame {frames:,}.")
        if self._console.is_terminal or self._console.is_jupyter:
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24 if self._console.width >= 120 else 8),
                # A narrow terminal gets a second line rather than an ellipsis.
                TextColumn("{task.fields[text]}", table_column=Column(no_wrap=False)),
                console=self._console,
                refresh_per_second=2,
                transient=True,
            )
            self._task = self._live.add_task("training", total=None, text="")
            self._live.start()
            self._update(trainer, frames)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._enabled:
            return
        now = perf_counter()
        # An iteration in which no episode ended has none: the last that had one is shown.
        latest = float(trainer.callback_metrics.get("train/return_mean", math.nan))
        if not math.isnan(latest):
            self._returns = f"return {_number(latest)}"
        interval = self._plain_interval if self._live is None else self._live_interval
        if now - self._shown < interval:
            return
        self._shown = now
        frames = frames_of(trainer, pl_module)
        self._marks.append((now, frames))
        while len(self._marks) > 2 and now - self._marks[1][0] > _WINDOW_SECONDS:
            self._marks.popleft()
        self._update(trainer, frames)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._live is not None and self._task is not None:
            self._live.update(self._task, description="evaluating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._live is not None and self._task is not None:
            self._live.update(self._task, description="training")
        if self._enabled and not trainer.sanity_checking and trainer.state.fn == "fit":
            self._evaluation_row(trainer, frames_of(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()
        self._elapsed_before, self._start = self._elapsed(), 0.0

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()
        if self._enabled:
            frames, elapsed = frames_of(trainer, pl_module), _clock(self._elapsed())
            self.print(f"Finished at frame {frames:,} after {elapsed}.")
            self._say_where()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()
        if self._enabled and self._start:
            self.print(f"Stopped at frame {frames_of(trainer, pl_module):,}.")
            self._say_where()

    # ------------------------------------------------------------------ what is shown
    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = self._task = None

    def _elapsed(self) -> float:
        return self._elapsed_before + (perf_counter() - self._start if self._start else 0.0)

    def _total_frames(self, trainer: Trainer, frames: int) -> int | None:
        total = self._total or getattr(getattr(trainer, "datamodule", None), "total_frames", None)
        if total is None and trainer.global_step and math.isfinite(trainer.num_training_batches):
            total = round(frames / trainer.global_step * trainer.num_training_batches)
        return None if total is None else int(total)

    def _update(self, trainer: Trainer, frames: int) -> None:
        total = self._total_frames(trainer, frames)
        parts = [f"{frames:,}" + (f"/{total:,} frames" if total else " frames")]
        (then, before), (now, last) = self._marks[0], self._marks[-1]
        if last > before:
            speed = (last - before) / (now - then)
            parts.append(f"{speed:,.0f} frames/s")
        if self._returns:
            parts.append(self._returns)
        evaluation = trainer.callback_metrics.get("eval/return_mean")
        if evaluation is not None:
            parts.append(f"eval {_number(float(evaluation))}")
        if last > before and total:
            parts.append(f"{_clock(max(total - frames, 0) / speed)} left")
        text = " · ".join(parts)
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=frames, total=total, text=text)
        else:
            self.print(text)

    def _evaluation_row(self, trainer: Trainer, frames: int) -> None:
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if "eval/return_mean" not in metrics:
            return  # another module's validation
        if self._header_due:
            self.print(f"{'frames':>12}  {'evaluation return':>24}  {'length':>8}  {'elapsed':>9}")
            self._header_due = False
        returns = _number(metrics["eval/return_mean"])
        if "eval/return_std" in metrics:
            returns += f" ± {_number(metrics['eval/return_std'])}"
        length = _number(metrics["eval/length_mean"]) if "eval/length_mean" in metrics else ""
        self.print(f"{frames:>12,}  {returns:>24}  {length:>8}  {_clock(self._elapsed()):>9}")

    def _say_where(self) -> None:
        if self._run_dir is None:
            return
        self.print(f"Written to {self._run_dir}")
        for name, what in (
            ("checkpoints/best.ckpt", "best evaluation"),
            ("checkpoints/last.ckpt", "to go on from: resume=last"),
            ("curve.png", "evaluation return against frames"),
            ("metrics.csv", "every logged number"),
        ):
            if (self._run_dir / name).exists():
                self.print(f"  {name:<22} {what}")


def _number(value: float) -> str:
    """Four significant digits, without an exponent where a person would not write one."""
    return f"{value:,.1f}" if 100 <= abs(value) < 1e7 else f"{value:.4g}"


def _clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
