"""Trainer settings that manual optimisation cannot honour, refused before anything starts."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from hetmarl_envs.errors import ConfigError

PRECISIONS = ("32-true", "64-true", "bf16-mixed")


def check_trainer(trainer: Trainer) -> None:
    """Refuses settings that would silently do nothing, or the wrong thing.

    One optimiser per agent is stepped by hand and without Lightning's wrappers. A loss scaler
    (``16-mixed``) would scale losses that nothing unscales; clipping and accumulation by the
    Trainer never happen.

    A LightningModule calls it from ``configure_callbacks``, the one hook before Lightning's own
    checks, whose messages cannot know what to set instead.

    Raises:
        ConfigError: what was set, and what to set instead.
    """
    if trainer.strategy.root_device.type == "mps":
        raise ConfigError(
            "trainer.accelerator=mps (or auto, on this machine) is not supported: frames and "
            "returns are counted in double precision, which Apple's GPUs do not have. Set "
            "trainer.accelerator=cpu."
        )
    precision = str(trainer.precision)
    if precision not in PRECISIONS:
        raise ConfigError(
            f"trainer.precision={precision} is not supported: agents are updated one after the "
            "other with optimisers of their own, and nothing would unscale a 16-bit loss. Set "
            f"trainer.precision to one of {', '.join(PRECISIONS)}."
        )
    if trainer.gradient_clip_val:
        raise ConfigError(
            f"trainer.gradient_clip_val={trainer.gradient_clip_val} would clip nothing: each agent "
            "has an optimiser of its own. Set algo.max_grad_norm, which clips each agent's."
        )
    if trainer.accumulate_grad_batches != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} would accumulate "
            "nothing: a batch of the Trainer is a whole iteration of collecting and updating. Set "
            "a larger algo.batch_size instead."
        )


class RefuseUnsupported(Callback):
    """``check_trainer`` at the start of ``fit``, for modules that do not call it themselves."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            check_trainer(trainer)
