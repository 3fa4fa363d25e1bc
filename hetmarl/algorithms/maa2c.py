"""MAA2C: multi-agent advantage actor-critic with a joint critic."""

from __future__ import annotations

from dataclasses import dataclass

from hetmarl.algorithms.haa2c import HAA2C
from hetmarl.algorithms.on_policy import GradientConfig


@dataclass
class MAA2CConfig(GradientConfig):
    """Hyperparameters of MAA2C and IA2C."""

    epochs: int = 1
    """Passes of each actor over each rollout; more than 1 is no longer A2C proper."""


class MAA2C(HAA2C):
    """HAA2C's objective with everybody's M = Â: all agents at once (EPyMARL, arXiv 2006.07869)."""

    name = "maa2c"
    config_type = MAA2CConfig
    sequential = False
