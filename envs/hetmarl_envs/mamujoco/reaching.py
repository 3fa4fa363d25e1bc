"""Scenarios on a table and on a cart: rewards and ends as in gymnasium's version 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import numpy as np

from hetmarl_envs.mamujoco.features import (
    COS,
    QPOS,
    QVEL,
    QVEL_CLIPPED,
    SIN,
    Block,
    Feature,
    clip_10,
    span,
)
from hetmarl_envs.mamujoco.graph import PUSHER_BODIES, XPOS, tip_to_target
from hetmarl_envs.mamujoco.scenarios import Scenario
from hetmarl_envs.mamujoco.simulator import Array


@dataclass
class Reacher(Scenario):
    """Brings the fingertip to a target; never terminates."""

    frame_skip: ClassVar[int] = 2
    max_episode_steps: ClassVar[int] = 50
    camera: ClassVar[Mapping[str, Any]] = {"trackbodyid": 0}
    fields: ClassVar[tuple[str, ...]] = ("xpos",)

    reward_dist_weight: float = 1.0
    reward_control_weight: float = 1.0
    reset_noise_scale: float = 0.1  # of the arm's angles; gymnasium has it fixed

    def start(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        qpos, _ = super().start(rng, n)
        qpos[:, -2:] = _points(rng, n, (-0.2, -0.2), (0.2, 0.2), radius=0.2, inside=True)
        qvel = self.init_qvel + rng.uniform(-5e-3, 5e-3, (n, self.init_qvel.size))
        qvel[:, -2:] = 0.0
        return qpos, qvel

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        return (
            *(span(COS, 0, 2) + span(SIN, 0, 2) + span(QPOS, 2, model.nq) + span(QVEL, 0, 2)),
            *span(Block("xpos", tip_to_target), 0, 2),
        )

    def reward(self, before: Array) -> tuple[Array, Array | None]:
        distance = np.linalg.norm(tip_to_target(self.simulator.field("xpos")), axis=1)
        control = self.reward_control_weight * self._action_cost()
        return -self.reward_dist_weight * distance - control, None


@dataclass
class Pusher(Scenario):
    """Pushes an object to a goal; never terminates."""

    max_episode_steps: ClassVar[int] = 100
    camera: ClassVar[Mapping[str, Any]] = {"trackbodyid": -1, "distance": 4.0}
    fields: ClassVar[tuple[str, ...]] = ("xpos",)

    reward_near_weight: float = 0.5
    reward_dist_weight: float = 1.0
    reward_control_weight: float = 0.1
    reset_noise_scale: float = 5e-3  # of the arm's velocities; gymnasium has it fixed

    def start(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        qpos = np.repeat(self.init_qpos[None], n, 0)
        qpos[:, -4:-2] = _points(rng, n, (-0.3, -0.2), (0.0, 0.2), radius=0.17, inside=False)
        qpos[:, -2:] = 0.0
        qvel = self.init_qvel + self._velocity_noise(rng, (n, self.init_qvel.size))
        qvel[:, -4:] = 0.0
        return qpos, qvel

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        bodies = (f for body in PUSHER_BODIES.values() for f in span(XPOS, 3 * body, 3 * body + 3))
        return (*span(QPOS, 0, 7), *span(QVEL, 0, 7), *bodies)

    def reward(self, before: Array) -> tuple[Array, Array | None]:
        tip, thing, goal = (self.simulator.field("xpos")[:, b] for b in PUSHER_BODIES.values())
        near = self.reward_near_weight * np.linalg.norm(thing - tip, axis=1)
        far = self.reward_dist_weight * np.linalg.norm(thing - goal, axis=1)
        return -far - near - self.reward_control_weight * self._action_cost(), None


def _points(
    rng: np.random.Generator,
    n: int,
    low: tuple[float, float],
    high: tuple[float, float],
    radius: float,
    inside: bool,
) -> Array:
    """``n`` points of the rectangle, uniform among those inside or outside the circle around 0."""
    points = rng.uniform(low, high, (n, 2))
    while True:
        distance = np.linalg.norm(points, axis=1)
        wrong = np.flatnonzero((distance >= radius) if inside else (distance <= radius))
        if not wrong.size:
            return points
        points[wrong] = rng.uniform(low, high, (wrong.size, 2))


@dataclass
class InvertedPendulum(Scenario):
    """Keeps a pole upright; terminates when it leans."""

    frame_skip: ClassVar[int] = 2
    camera: ClassVar[Mapping[str, Any]] = {"trackbodyid": 0, "distance": 2.04}

    reset_noise_scale: float = 0.01

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        return span(QPOS, 0, model.nq) + span(QVEL, 0, model.nv)

    def reward(self, before: Array) -> tuple[Array, Array | None]:
        simulator = self.simulator
        finite = np.isfinite(simulator.qpos).all(1) & np.isfinite(simulator.qvel).all(1)
        terminated = ~finite | (np.abs(simulator.qpos[:, 1]) > 0.2)
        return (~terminated).astype(np.float64), terminated


@dataclass
class InvertedDoublePendulum(Scenario):
    """Keeps a jointed pole upright; terminates when its tip is low."""

    camera: ClassVar[Mapping[str, Any]] = {
        "trackbodyid": 0,
        "distance": 4.1225,
        "lookat": (0.0, 0.0, 0.1225),
    }
    fields: ClassVar[tuple[str, ...]] = ("site_xpos", "qfrc_constraint")

    healthy_reward: float = 10.0

    def _velocity_noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> Array:
        return self.reset_noise_scale * rng.standard_normal(shape)

    def state(self, model: mujoco.MjModel) -> tuple[Feature, ...]:
        angles = span(SIN, 1, model.nq) + span(COS, 1, model.nq)
        force = (Block("qfrc_constraint", clip_10), 0)
        return ((QPOS, 0), *angles, *span(QVEL_CLIPPED, 0, model.nv), force)

    def reward(self, before: Array) -> tuple[Array, Array | None]:
        x, height = (self.simulator.field("site_xpos")[:, 0, axis] for axis in (0, 2))
        qvel = self.simulator.qvel
        terminated = height <= 1
        reward = (
            self.healthy_reward * ~terminated
            - (0.01 * x**2 + (height - 2) ** 2)
            - (1e-3 * qvel[:, 1] ** 2 + 5e-3 * qvel[:, 2] ** 2)
        )
        return reward, terminated
