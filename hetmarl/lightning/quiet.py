"""Lightning's banners and advice that do not apply to a run of hetmarl, silenced in one place."""

from __future__ import annotations

import logging
import re
import warnings

# What each line is about, and why nobody needs it here.
_MESSAGES = (
    r"^(GPU|TPU|HPU) available",  # `hetmarl doctor` reports the accelerator
    r"^💡 Tip: ",  # advertisements
    r"`Trainer\.fit` stopped: `max_epochs=1` reached",  # every run ends so
    r"`weights_only` was not set",  # our checkpoints choose for themselves
    r"Restor(ing|ed) (all )?states? from the checkpoint",  # the progress display says it
)
_WARNINGS = (
    r".*does not have many workers",  # the loader steps environments, it reads no data set
    r".*Checkpoint directory .* exists and is not empty",  # a resumed run
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's use of torch, not the user's
    # every process evaluates the same policy on the same episodes: there is nothing to average
    r".*It is recommended to use `self.log\('(eval/\w+|step)', ..., sync_dist=True\)`",
    r".*The number of training batches .* is smaller than the logging interval",
)


class _Irrelevant(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(re.search(pattern, message) for pattern in _MESSAGES)


_FILTER = _Irrelevant()
_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.fabric.utilities.rank_zero",
)


def quiet_lightning() -> None:
    """Drops the messages above, and only them; every other message and warning stays."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)  # adding it twice does nothing
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
