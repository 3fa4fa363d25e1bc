"""A run's environments, from the task's settings."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torchrl.envs import EnvBase

from hetmarl.conf import TaskConfig
from hetmarl.conf.settings import import_path
from hetmarl_envs.errors import ConfigError
from hetmarl_envs.registry import make_env


@dataclass(frozen=True)
class EnvFactory:
    """``make_env(num_envs=, seed=, device=)`` for a task; can be sent to other processes."""

    task: TaskConfig

    def __call__(self, *, num_envs: int, seed: int, device: Any = "cpu") -> EnvBase:
        """A batched environment ``[num_envs]``."""
        arguments = {"num_envs": num_envs, "seed": seed, "device": device} | self.task.options
        if self.task.target is None:
            return make_env(self.task.name, **arguments)
        make = import_path(self.task.target, "task")
        try:
            inspect.signature(make).bind(**arguments)
        except TypeError as error:
            raise ConfigError(f"task: {self.task.target}: {error}.") from error
        return make(**arguments)
