"""What every scenario has: how it starts, what it pays, when it ends.

The classes are gymnasium's version 5 environments, in batch. Their fields are options of the
environment, named and set as there. ``N`` is the number of simulations; all sums are float64.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import numpy as np

from hetmarl_envs.mamujoco.features import Feature
from hetmarl_envs.mamujoco.simulator import Array, Simulator
from hetmarl_envs.options import FLAG, Kind, check, number, numbers

Range = tuple[float, float]
_RISING = Kind("two rising numbers", lambda value: numbers(2).fits(value) and value[0] <= value[1])


@dataclass
class Scenario(ABC):
    """What the simulation means: how it starts, what it pays, when it ends.

    Args:
        reset_noise_scale: size of the noise on the starting state.
    """

    frame_skip: ClassVar[int] = 5  # substeps per step
    max_episode_steps: ClassVar[int] = 1000
    camera: ClassVar[Mapping[str, Any]] = {"distance": 4.0}  # where the model has no "track" camera
    fields: ClassVar[tuple[str, ...]] = ()  # derived fields that reward and position read

    reset_noise_scale: float = 0.1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _check_option(type(self).__name__, field, getattr(self, field.name))
            setattr(self, field.name, value)

    def attach(self, simulator: Simulator) -> None:
        """Reads from ``simulator`` from now on, whose simulations stand where the model starts."""
        self.simulator = simulator
        self.init_qpos, self.init_qvel = simulator.qpos[0].copy(), simulator.qvel[0].copy()
        self.dt = simulator.model.opt.timestep * self.frame_skip  # seconds per step
        for name in self.fields:
            simulator.field(name)

    def start(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        """Starting states of ``n`` episodes: qpos ``[n, nq]`` and qvel ``[n, nv]``."""
        noise = self.reset_noise_scale
        qpos = self.init_qpos + rng.uniform(-noise, noise, (n, self.init_qpos.size))
        return qpos, self.init_qvel + self._velocity_noise(rng, (n, self.init_qvel.size))

    def _velocity_noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        noise = self.reset_noise_scale
        return rng.uniform(-noise, noise, shape)

    @abstractmethod
    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        """The global state: what gymnasium's environment for one agent observes."""

    def position(self) -> Array:
        """Place ``[N]`` whose change over a step is paid for, a copy."""
        return self.simulator.qpos[:, 0].copy()

    @abstractmethod
    def reward(self, before: Array) -> tuple[Array, Array | None]:
        """Reward ``[N]`` of the last step, and who has terminated ``[N]``, None for nobody.

        Args:
            before: ``position()`` before the step.
        """

    def _action_cost(self) -> Array:
        """Sum of the squared actions, not clipped to their range."""
        return np.square(self.simulator.ctrl).sum(1)


def _check_option(where: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """The option as bool, float or pair of floats, whichever its default is."""
    if isinstance(field.default, bool):
        return check(where, field.name, value, FLAG)
    if isinstance(field.default, tuple):
        return tuple(float(bound) for bound in check(where, field.name, value, _RISING))
    return float(check(where, field.name, value, number()))


def inside(values: Array, bounds: Range) -> Array:
    """Strictly between the bounds."""
    low, high = bounds
    return (low < values) & (values < high)
