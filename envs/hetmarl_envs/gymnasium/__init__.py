"""Gymnasium's environments for one agent, anybody's, as teams of one.

Importing this package does not import gymnasium; making an environment does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetmarl_envs.lazy import exporting
from hetmarl_envs.registry import Family, lazily

if TYPE_CHECKING:
    from hetmarl_envs.gymnasium.env import GymnasiumEnv

__all__ = ["FAMILY", "GymnasiumEnv"]

# What gymnasium brings that needs no more than hetmarl's own packages. Every other name that is
# registered, by whomever, works as well.
LISTED = (
    "Acrobot-v1",
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "Blackjack-v1",
    "CliffWalking-v1",
    "FrozenLake-v1",
    "FrozenLake8x8-v1",
    "Taxi-v4",
    "Ant-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Pusher-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
)


__getattr__ = exporting(__name__, "hetmarl_envs.gymnasium.env:GymnasiumEnv")


FAMILY = Family(
    name="gymnasium",
    make=lazily("hetmarl_envs.gymnasium.env:GymnasiumEnv"),
    tasks=lambda: LISTED,
    requires=("gymnasium",),
    install="pip install 'gymnasium>=1.4,<2'",
)
