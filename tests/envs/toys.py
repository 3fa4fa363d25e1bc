"""Small PettingZoo environments for tests: whoever leaves, how, and with which masks, is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Space
from pettingzoo import ParallelEnv

End = tuple[int, str]
"""Step at which an agent leaves, and how: ``terminated``, ``truncated`` or ``silently``."""


class Scripted(ParallelEnv[str, Any, Any]):
    """Agents see ``[step, start, number of the agent]`` and leave when they are told to.

    ``start`` is drawn at each reset. An agent's reward is its number plus what it did.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "scripted", "render_modes": ["rgb_array"]}

    def __init__(
        self,
        ends: Mapping[str, End] | None = None,
        *,
        action: Space[Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.ends = dict(ends or {"a_0": (3, "truncated"), "a_1": (3, "truncated")})
        self.possible_agents = list(self.ends)
        self.agents: list[str] = []
        self.render_mode = render_mode
        self.action = action or Box(-1.0, 2.0, (1,), np.float32)
        self.sight: Space[Any] = Box(-np.inf, np.inf, (3,), np.float64)
        self.given: list[dict[str, Any]] = []

    def observation_space(self, agent: str) -> Space[Any]:
        return self.sight

    def action_space(self, agent: str) -> Space[Any]:
        return self.action

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.agents = [agent for agent in self.possible_agents if self.ends[agent][0] > 0]
        self.count, self.start = 0, self.random.random()
        return self.look(self.agents), self.infos(self.agents)

    def look(self, agents: list[str]) -> dict[str, Any]:
        return {
            agent: np.array([self.count, self.start, self.possible_agents.index(agent)])
            for agent in agents
        }

    def infos(self, agents: list[str]) -> dict[str, Any]:
        return {agent: {} for agent in agents}

    def reward(self, agent: str, action: Any) -> float:
        return self.possible_agents.index(agent) + float(np.sum(action))

    def step(self, actions: dict[str, Any]) -> Any:
        assert set(actions) == set(self.agents)
        self.given.append(actions)
        self.count += 1
        acted = self.agents
        leaving = {
            agent: self.ends[agent][1] for agent in acted if self.ends[agent][0] <= self.count
        }
        self.agents = [agent for agent in acted if agent not in leaving]
        return (
            self.look(acted),
            {agent: self.reward(agent, actions[agent]) for agent in acted},
            {agent: leaving.get(agent) == "terminated" for agent in acted},
            {agent: leaving.get(agent) == "truncated" for agent in acted},
            self.infos(acted),
        )

    def render(self) -> Any:
        if self.render_mode == "rgb_array":
            return np.full((4, 6, 3), self.count, np.uint8)
        return None


class Masked(Scripted):
    """Only one choice is legal at each step; the mask is in the observation, or in the info."""

    def __init__(self, place: str, action: Space[Any], **settings: Any) -> None:
        super().__init__(action=action, **settings)
        self.place = place
        self.sizes = np.ravel(getattr(self.action, "nvec", getattr(self.action, "n", 0)))
        if place == "observation":
            mask = Box(0, 1, (int(sum(self.sizes)),), np.int8)
            self.sight = Dict({"observation": self.sight, "action_mask": mask})

    def legal(self, agent: str) -> list[int]:
        """The one legal choice, per component."""
        number = self.possible_agents.index(agent) + self.count
        return [number % n for n in self.sizes]

    def mask(self, agent: str) -> Any:
        pairs = zip(self.sizes, self.legal(agent), strict=True)
        parts = [np.eye(n, dtype=np.int8)[i] for n, i in pairs]
        return parts[0] if isinstance(self.action, Discrete) else tuple(parts)

    def look(self, agents: list[str]) -> dict[str, Any]:
        seen = super().look(agents)
        if self.place == "info":
            return seen
        return {
            agent: {"observation": value, "action_mask": np.ravel(np.hstack(self.mask(agent)))}
            for agent, value in seen.items()
        }

    def infos(self, agents: list[str]) -> dict[str, Any]:
        if self.place == "info":
            return {agent: {"action_mask": self.mask(agent)} for agent in agents}
        return super().infos(agents)

    def step(self, actions: dict[str, Any]) -> Any:
        for agent, action in actions.items():
            chosen = np.ravel(action - getattr(self.action, "start", 0)).tolist()
            assert chosen == self.legal(agent), "an illegal action"
        return super().step(actions)


class Resumable(Scripted):
    """One that can be saved."""

    def runtime_state(self) -> dict[str, Any]:
        return {
            "agents": list(self.agents),
            "count": self.count,
            "start": self.start,
            "random": self.random.bit_generator.state,
        }

    def load_runtime_state(self, state: dict[str, Any]) -> None:
        self.agents, self.count, self.start = list(state["agents"]), state["count"], state["start"]
        self.random = np.random.default_rng()
        self.random.bit_generator.state = state["random"]
