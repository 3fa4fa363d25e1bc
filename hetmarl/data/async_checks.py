"""Which settings go with collection beside learning; needs none of what it takes to collect."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from hetmarl_envs.errors import ConfigError, did_you_mean

MODES = ("sync", "async", "ray")


def check_mode(config: Any) -> None:
    """Refuses settings (``ReplayDataConfig``) that make no sense by themselves."""
    if config.mode not in MODES:
        raise ConfigError(
            f"data.mode='{config.mode}': expected one of {', '.join(MODES)}."
            + did_you_mean(config.mode, MODES)
        )
    for name in ("actors", "max_staleness"):
        value = getattr(config, name)
        if value < 1:
            raise ConfigError(
                f"data.{name}={value}: expected a whole number of at least 1. Collecting with the "
                "learner's present policy alone is data.mode=sync."
            )
    if config.mode == "sync":
        if (config.actors, config.max_staleness) != (1, 1):
            raise ConfigError(
                f"data.actors={config.actors}, data.max_staleness={config.max_staleness}: for "
                "data.mode=async or ray only; in mode=sync the learner collects by itself. Set "
                "data.mode too."
            )
    elif config.env_device != "cpu":
        raise ConfigError(
            f"data.env_device={config.env_device}: actors in other processes step on the CPU. Set "
            "data.env_device=cpu, or data.mode=sync."
        )


def check_run(mode: str, policy: Any, processes: int) -> None:
    """Refuses what cannot collect beside learning, and says what such a run does not promise."""
    if processes > 1:
        raise ConfigError(
            f"data.mode={mode} with {processes} learning processes: it has one learner. Set "
            "trainer.devices=1 and trainer.num_nodes=1 (more actors: data.actors), or "
            "data.mode=sync."
        )
    if policy.recurrent:
        raise ConfigError(
            f"data.mode={mode} with network.memory: actors do not hand over what agents remember. "
            "Set network.memory=none, or data.mode=sync."
        )
    rank_zero_info(
        f"data.mode={mode}: what is collected depends on timing, so that equal seeds do not give "
        "equal runs, and a resume goes on from saved weights and replay but in fresh episodes."
    )
