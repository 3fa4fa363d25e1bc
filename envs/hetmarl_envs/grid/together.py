"""Gymnasium environments of several agents that act at once, as PettingZoo's parallel ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class Together(ABC):
    """An environment whose spaces are tuples, whose observations and rewards are lists.

    The end at its time limit, which such environments report like any other, is truncation.

    Args:
        arguments: of ``library``.
    """

    family: ClassVar[str]
    """Of its tasks."""
    library: ClassVar[type[Any]]
    """The ``gymnasium.Env`` of that kind."""
    hidden: ClassVar[tuple[str, ...]]
    """Arguments of it that are no options."""
    limit: ClassVar[str]
    """The argument that is the time limit in steps."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        env = self.env = self.library(**arguments)
        self.possible_agents = [f"agent_{i}" for i in range(len(env.action_space))]
        self.agents: list[str] = []
        env.reset(seed=0)  # so that there is a world to save

    def observation_space(self, agent: str) -> Any:
        """The agent's own."""
        return self.env.observation_space[self.possible_agents.index(agent)]

    def action_space(self, agent: str) -> Any:
        """The agent's own."""
        return self.env.action_space[self.possible_agents.index(agent)]

    def reset(self, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode: observations, infos."""
        observations, _ = self.env.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return self._named(observations), {}

    def step(self, actions: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Observations, rewards, terminations, truncations, infos."""
        chosen = [actions[agent] for agent in self.possible_agents]
        observations, rewards, over, *_ = self.env.step(chosen)
        solved = self.solved()
        if over:
            self.agents = []
        terminations = dict.fromkeys(self.possible_agents, solved)
        truncations = dict.fromkeys(self.possible_agents, bool(over) and not solved)
        return self._named(observations), self._named(rewards), terminations, truncations, {}

    def _named(self, values: Any) -> dict[str, Any]:
        return dict(zip(self.possible_agents, values, strict=True))

    def close(self) -> None:
        """Frees what the environment holds."""
        self.env.close()

    def runtime_state(self) -> dict[str, Any]:
        """The world, the random stream, whether an episode runs, as plain values."""
        return {
            "world": self.save(),
            "random": self.env.np_random.bit_generator.state,
            "running": bool(self.agents),
        }

    def load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Continues where ``runtime_state`` was taken, in an environment made alike."""
        self.load(state["world"])
        self.env.np_random.bit_generator.state = dict(state["random"])
        self.agents = list(self.possible_agents) if state["running"] else []

    # ------------------------------------------------------------------ what a world adds
    @staticmethod
    @abstractmethod
    def arguments(task: str) -> dict[str, Any]:
        """What a task's name means."""

    @abstractmethod
    def solved(self) -> bool:
        """Whether the task itself has ended."""

    @abstractmethod
    def save(self) -> dict[str, Any]:
        """Everything that the next steps depend on, but for the random stream."""

    @abstractmethod
    def load(self, world: Mapping[str, Any]) -> None:
        """The inverse of ``save``."""

    @abstractmethod
    def render(self) -> NDArray[np.uint8]:
        """A picture ``[H, W, 3]``."""
