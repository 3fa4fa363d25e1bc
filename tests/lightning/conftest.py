"""A module and loader as small as Lightning takes them, shaped like those of an algorithm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class TinyModule(LightningModule):
    """Counts frames by 100 per iteration and logs what an algorithm logs."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.frames: Tensor
        self.register_buffer("frames", torch.zeros((), dtype=torch.int64))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": []}], lr=0.0)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.frames += 100
        self.optimizers().step()
        ended = batch_idx % 3 == 2
        values = {
            "train/return_mean": float(self.frames) / 7 if ended else float("nan"),
            "train/loss_qvalue": 1 / float(self.frames),
        }
        self.log_dict({**values, "step": self.frames.double()}, batch_size=1)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        frames = float(self.frames)
        values = {"return_mean": frames / 3, "return_std": frames / 30, "length_mean": 25.0}
        values = {f"eval/{name}": value for name, value in values.items()}
        self.log_dict({**values, "step": self.frames.double()}, batch_size=1)


class TinyLoader:
    """Yields ``length`` batches in all; its state is the number that were yielded."""

    def __init__(self, length: int) -> None:
        self._length, self._done = length, 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        while self._done < self._length:
            self._done += 1
            yield self._done

    def state_dict(self) -> dict[str, int]:
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._done = state["done"]


class Kill(BaseException):
    """Ends a fit as abruptly as a test can without ending the test."""


class KillAt(Callback):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.iteration:
            raise Kill


FitTiny = Callable[..., Trainer]


@pytest.fixture
def fit_tiny(tmp_path: Path) -> FitTiny:
    """``fit_tiny(iterations, kill_at=None, resume=None, **trainer)``, an evaluation every 4."""

    def fit(
        iterations: int,
        *,
        kill_at: int | None = None,
        resume: Path | None = None,
        callbacks: list[Callback] | None = None,
        **trainer: Any,
    ) -> Trainer:
        callbacks = list(callbacks or [])
        if kill_at is not None:
            callbacks.append(KillAt(kill_at))
        settings: dict[str, Any] = {
            "max_epochs": 1,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "log_every_n_steps": 1,
            "val_check_interval": 4,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": tmp_path,
        }
        trainer_ = Trainer(callbacks=callbacks, **settings | trainer)
        arguments = {"train_dataloaders": TinyLoader(iterations), "val_dataloaders": [0]}
        try:
            trainer_.fit(TinyModule(), **arguments, ckpt_path=resume)
        except Kill:
            assert kill_at is not None
        return trainer_

    return fit
