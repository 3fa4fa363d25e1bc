"""Configuration: dataclasses are the schema, the YAML files beside this one compose them."""

from hetmarl.conf.schema import (
    CheckpointConfig,
    EvalConfig,
    TaskConfig,
    TrainConfig,
    TrainerConfig,
)
from hetmarl.conf.settings import Settings, resolve
from hetmarl.conf.store import register
from hetmarl.typed import build

__all__ = [
    "CheckpointConfig",
    "EvalConfig",
    "Settings",
    "TaskConfig",
    "TrainConfig",
    "TrainerConfig",
    "build",
    "register",
    "resolve",
]
