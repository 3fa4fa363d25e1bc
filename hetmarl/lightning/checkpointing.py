"""When checkpoints are written, so that a resumed run is the run that was never interrupted."""

from __future__ import annotations

import math
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from hetmarl.lightning.interruption import Interrupted, Interruption


def checkpoint_callbacks(
    run_dir: str | os.PathLike[str], every_n_iterations: int | None = None
) -> list[Callback]:
    """The callbacks that write ``run_dir/checkpoints/{best,last}.ckpt``.

    Use them with the plugin ``ExactCheckpointIO``.

    Args:
        run_dir: the run's directory.
        every_n_iterations: iterations between two ``last.ckpt``; None: one at each evaluation.
    """
    return [TeamCheckpoints(Path(run_dir) / "checkpoints", every_n_iterations)]


class TeamCheckpoints(Checkpoint):
    """``best.ckpt`` at the best evaluation, and ``last.ckpt`` to go on from exactly.

    ``last.ckpt`` is written when an iteration is over in every respect: its row logged, its
    evaluation done, ``best.ckpt`` and its score brought up to date. The run ends with an evaluation
    and a ``last.ckpt``, also where it is stopped early (``max_time``, ``EarlyStopping``). Ctrl-C
    and SIGTERM wait for the end of the iteration, write a ``last.ckpt`` and end the program
    (``Interrupted``); the resumed run is the one that was never interrupted.

    Lightning's ``ModelCheckpoint`` is not exact: it writes ``last.ckpt`` only where the best one
    changed, or at the end of a training batch, when the batch's metrics are not logged yet and an
    evaluation that is due would be left out after a resume; and it forgets the best score in a
    directory that was moved.

    Args:
        directory: where the two files lie.
        every_n_iterations: iterations between two ``last.ckpt``; None: one at each evaluation.
        monitor: the logged evaluation that ``best.ckpt`` has the greatest value of.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every_n_iterations: int | None = None,
        monitor: str = "eval/return_mean",
    ) -> None:
        self.every_n_iterations = every_n_iterations
        self.monitor = monitor
        self.best_score = -math.inf
        self._best, self._last = Path(directory, "best.ckpt"), Path(directory, "last.ckpt")
        self._saved_at = -1
        self._interruption = Interruption()

    @property
    def best_model_path(self) -> str:
        """Of the best checkpoint, as ``trainer.test(ckpt_path="best")`` asks for it."""
        return str(self._best) if self._best.exists() else ""

    # ------------------------------------------------------------------ Lightning's interface
    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score = state_dict["best_score"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # No hook of Lightning's lies between the logging of one iteration and the next's data.
        trainer.datamodule.after_iteration = partial(self._after_iteration, trainer)  # type: ignore[attr-defined]

        self._interruption.listen()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._interruption.end()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._interruption.end()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning evaluates after the last iteration only if its number is a multiple of the
        # interval, but whenever it was asked to stop.
        limits = (trainer.num_training_batches, trainer.max_steps)
        if trainer.global_step in limits:
            trainer.should_stop = True
            if not sum(trainer.num_val_batches):  # nothing will be evaluated
                self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        score = float(trainer.callback_metrics.get(self.monitor, -math.inf))
        score = trainer.strategy.broadcast(score)  # one decision for all processes
        if score > self.best_score:
            self.best_score = score
            trainer.save_checkpoint(self._best, weights_only=True)
        if trainer.should_stop or self._due(trainer.global_step):
            self._save_last(trainer)

    def _after_iteration(self, trainer: Trainer) -> None:
        received = self._interruption.received
        # one decision for all processes
        interrupted = trainer.strategy.reduce_boolean_decision(received is not None, all=False)
        if interrupted or (self.every_n_iterations is not None and self._due(trainer.global_step)):
            self._save_last(trainer)
        if interrupted:
            # Lightning kills everybody where one of the processes that it started reports a failure
            code = 128 + (received or signal.SIGTERM)
            raise Interrupted(code if trainer.is_global_zero else 0)

    # ------------------------------------------------------------------ last.ckpt
    def _due(self, iteration: int) -> bool:
        return self.every_n_iterations is None or iteration % self.every_n_iterations == 0

    def _save_last(self, trainer: Trainer) -> None:
        if self._saved_at != trainer.global_step:
            trainer.save_checkpoint(self._last, weights_only=False)
            self._saved_at = trainer.global_step
