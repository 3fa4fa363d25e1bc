"""Scenarios that move forward or stand up: rewards and ends as in gymnasium's version 5."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import numpy as np

from hetmarl_envs.mamujoco.features import (
    QPOS,
    QVEL,
    QVEL_CLIPPED,
    Block,
    Feature,
    clip_1,
    span,
)
from hetmarl_envs.mamujoco.graph import TENDON
from hetmarl_envs.mamujoco.scenarios import Range, Scenario, inside
from hetmarl_envs.mamujoco.simulator import Array


class _NormalVelocity(Scenario):
    """Starts with normally distributed velocities."""

    def _velocity_noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return self.reset_noise_scale * rng.standard_normal(shape)


@dataclass
class Swimmer(Scenario):
    """Swims, or is many segments long and swims; never terminates."""

    frame_skip: ClassVar[int] = 4
    root: ClassVar[int] = 2  # first position that is observed

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 1e-4

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        return span(QPOS, self.root, model.nq) + span(QVEL, 0, model.nv)

    def reward(self, before: Array) -> tuple[Array, Array | None]:
        velocity = (self.position() - before) / self.dt
        reward = self.forward_reward_weight * velocity
        return reward - self.ctrl_cost_weight * self._action_cost(), None


@dataclass
class HalfCheetah(_NormalVelocity, Swimmer):
    """Runs; never terminates."""

    frame_skip: ClassVar[int] = 5
    root: ClassVar[int] = 1

    ctrl_cost_weight: float = 0.1


@dataclass
class CoupledHalfCheetah(HalfCheetah):
    """Two cheetahs on an elastic tendon; pays their mean; never terminates."""

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        positions = span(QPOS, 1, 9) + span(QPOS, 10, 18)
        tendon = tuple(feature for features in TENDON.values() for feature in features)
        return positions + span(QVEL, 0, model.nv) + tendon

    def position(self) -> Array:
        """The mean of both."""
        return (self.simulator.qpos[:, 0] + self.simulator.qpos[:, 9]) / 2

    def _action_cost(self) -> Array:
        return super()._action_cost() / 2


@dataclass
class Ant(_NormalVelocity):
    """Walks; terminates when it jumps, lies or breaks. ManySegmentAnt is the same, longer."""

    fields: ClassVar[tuple[str, ...]] = ("xpos", "cfrc_ext")

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.5
    contact_cost_weight: float = 5e-4
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (0.2, 1.0)
    contact_force_range: Range = (-1.0, 1.0)

    def _clip_forces(self, forces: Array) -> Array:
        return np.clip(forces, *self.contact_force_range)

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        clipped = clip_1 if self.contact_force_range == (-1.0, 1.0) else self._clip_forces
        forces = Block("cfrc_ext", clipped)
        return span(QPOS, 2, model.nq) + span(QVEL, 0, model.nv) + span(forces, 6, 6 * model.nbody)

    def position(self) -> Array:
        return self.simulator.field("xpos")[:, 1, 0].copy()

    def reward(self, before: Array) -> tuple[Array, Array | None]:
        simulator = self.simulator
        velocity = (self.position() - before) / self.dt
        forces = self._clip_forces(simulator.field("cfrc_ext"))
        low, high = self.healthy_z_range
        height = simulator.qpos[:, 2]
        healthy = (low <= height) & (height <= high)
        healthy &= np.isfinite(simulator.qpos).all(1) & np.isfinite(simulator.qvel).all(1)
        reward = (
            self.forward_reward_weight * velocity
            + self.healthy_reward * healthy
            - self.ctrl_cost_weight * self._action_cost()
            - self.contact_cost_weight * np.square(forces).sum((1, 2))
        )
        return reward, ~healthy if self.terminate_when_unhealthy else None


_SIDE_VIEW = {"trackbodyid": 2, "lookat": (0.0, 0.0, 1.15), "elevation": -20.0}


@dataclass
class Walker2d(Scenario):
    """Walks; terminates when it falls."""

    frame_skip: ClassVar[int] = 4
    camera: ClassVar[Mapping[str, Any]] = {**_SIDE_VIEW, "distance": 4.0}

    reset_noise_scale: float = 5e-3
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 1e-3
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (0.8, 2.0)
    healthy_angle_range: Range = (-1.0, 1.0)

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        return span(QPOS, 1, model.nq) + span(QVEL_CLIPPED, 0, model.nv)

    def _healthy(self) -> Array:
        qpos = self.simulator.qpos
        upright = inside(qpos[:, 2], self.healthy_angle_range)
        return inside(qpos[:, 1], self.healthy_z_range) & upright

    def reward(self, before: Array) -> tuple[Array, Array | None]:
        velocity = (self.position() - before) / self.dt
        healthy = self._healthy()
        reward = (
            self.forward_reward_weight * velocity
            + self.healthy_reward * healthy
            - self.ctrl_cost_weight * self._action_cost()
        )
        return reward, ~healthy if self.terminate_when_unhealthy else None


@dataclass
class Hopper(Walker2d):
    """Hops; terminates when it falls."""

    camera: ClassVar[Mapping[str, Any]] = {**_SIDE_VIEW, "distance": 3.0}

    healthy_z_range: Range = (0.7, math.inf)
    healthy_angle_range: Range = (-0.2, 0.2)
    healthy_state_range: Range = (-100.0, 100.0)

    def _healthy(self) -> Array:
        bounds, simulator = self.healthy_state_range, self.simulator
        bounded = inside(simulator.qpos[:, 2:], bounds).all(1)
        return super()._healthy() & bounded & inside(simulator.qvel, bounds).all(1)


_HUMANOID_CAMERA = {"trackbodyid": 1, "distance": 4.0, "elevation": -20.0}


def _humanoid_state(model: mujoco.MjModel) -> tuple[Feature, ...]:
    """All but the world's body and the free joint's forces."""
    bodies = (("cinert", 10), ("cvel", 6))
    return (
        *(span(QPOS, 2, model.nq) + span(QVEL, 0, model.nv)),
        *(f for name, width in bodies for f in span(Block(name), width, width * model.nbody)),
        *span(Block("qfrc_actuator"), 6, model.nv),
        *span(Block("cfrc_ext"), 6, 6 * model.nbody),
    )


@dataclass
class Humanoid(Scenario):
    """Walks; terminates when it falls."""

    fields: ClassVar[tuple[str, ...]] = ("xipos", "cfrc_ext")
    camera: ClassVar[Mapping[str, Any]] = {**_HUMANOID_CAMERA, "lookat": (0.0, 0.0, 2.0)}

    reset_noise_scale: float = 1e-2
    forward_reward_weight: float = 1.25
    ctrl_cost_weight: float = 0.1
    contact_cost_weight: float = 5e-7
    contact_cost_range: Range = (-math.inf, 10.0)
    healthy_reward: float = 5.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (1.0, 2.0)

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        return _humanoid_state(model)

    def position(self) -> Array:
        """Of the centre of mass."""
        mass = self.simulator.model.body_mass
        return self.simulator.field("xipos")[:, :, 0] @ mass / mass.sum()

    def reward(self, before: Array) -> tuple[Array, Array | None]:
        velocity = (self.position() - before) / self.dt
        forces = np.square(self.simulator.field("cfrc_ext")).sum((1, 2))
        healthy = inside(self.simulator.qpos[:, 2], self.healthy_z_range)
        reward = (
            self.forward_reward_weight * velocity
            + self.healthy_reward * healthy
            - self.ctrl_cost_weight * self._action_cost()
            - np.clip(self.contact_cost_weight * forces, *self.contact_cost_range)
        )
        return reward, ~healthy if self.terminate_when_unhealthy else None


@dataclass
class HumanoidStandup(Scenario):
    """Stands up; never terminates."""

    fields: ClassVar[tuple[str, ...]] = ("cfrc_ext",)
    camera: ClassVar[Mapping[str, Any]] = {**_HUMANOID_CAMERA, "lookat": (0.0, 0.0, 0.8925)}

    reset_noise_scale: float = 1e-2
    ctrl_cost_weight: float = 0.1
    impact_cost_weight: float = 5e-7
    impact_cost_range: Range = (-math.inf, 10.0)

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        return _humanoid_state(model)

    def reward(self, before: Array) -> tuple[Array, Array | None]:
        simulator = self.simulator
        forces = np.square(simulator.field("cfrc_ext")).sum((1, 2))
        reward = (
            simulator.qpos[:, 2] / simulator.model.opt.timestep
            - self.ctrl_cost_weight * self._action_cost()
            - np.clip(self.impact_cost_weight * forces, *self.impact_cost_range)
            + 1.0
        )
        return reward, None
