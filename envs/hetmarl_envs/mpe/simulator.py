"""One world of ``mpe2``, stepped without its turn-by-turn machinery, saved and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hetmarl_envs.errors import ConfigError, ContractError
from hetmarl_envs.mpe.scenarios import load_scenario
from hetmarl_envs.pettingzoo.spaces import Array

Dicts = tuple[dict[str, Any], ...]


class MPESimulator:
    """A parallel environment with the numbers of ``mpe2``'s own ``parallel_env``.

    That one converts an environment of turns, in which every agent is asked for its observation
    twice a step. Here all actions go to the world at once and everybody observes once.

    Args:
        name: of the scenario.
        options: the scenario's.

    Raises:
        ConfigError: ``mpe2`` refuses the options.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name, self._options = name, dict(options)
        self.raw = self._build()
        # each has a surface of 2 MB and an open font file: needed to draw only
        self.raw.screen = self.raw.game_font = None
        self.possible_agents: list[str] = list(self.raw.possible_agents)
        self.agents: list[str] = []
        self._seen: dict[str, Array] = {}

    def _build(self) -> Any:
        scenario = load_scenario(self.name)
        try:
            return scenario(render_mode="rgb_array", **self._options)
        except Exception as error:  # mpe2 asserts, or fails in whatever it does with the value
            raise ConfigError(
                f"mpe/{self.name} cannot be built with options {self._options}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def observation_space(self, agent: str) -> Any:
        """The agent's ``Box``."""
        return self.raw.observation_space(agent)

    def action_space(self, agent: str) -> Any:
        """The agent's ``Box`` or ``Discrete``."""
        return self.raw.action_space(agent)

    def reset(self, seed: int | None = None) -> Dicts:
        """Starts an episode: observations, infos."""
        self.raw.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return self._observe(), {}

    def step(self, actions: Mapping[str, Any]) -> Dicts:
        """Observations, rewards, terminations, truncations, infos."""
        raw = self.raw
        raw.current_actions = [actions[agent] for agent in self.possible_agents]
        raw._execute_world_step()
        raw.steps += 1
        late = raw.steps >= raw.max_cycles
        ended = not late and bool(raw.scenario.is_terminal(raw.world))
        if late or ended:
            self.agents = []
        terminations = dict.fromkeys(self.possible_agents, ended)
        truncations = dict.fromkeys(self.possible_agents, late)
        return self._observe(), dict(raw.rewards), terminations, truncations, {}

    def _observe(self) -> dict[str, Array]:
        self._seen = {agent: self.raw.observe(agent) for agent in self.possible_agents}
        return self._seen

    def state(self) -> Array:
        """All agents' observations side by side."""
        return np.concatenate(list(self._seen.values()))

    def render(self) -> Array:
        """A picture ``uint8 [700, 700, 3]``, without a screen."""
        canvas = self._build()  # pygame may have been shut down by whoever used it too
        self.raw.screen, self.raw.game_font = canvas.screen, canvas.game_font
        try:
            return self.raw.render()
        finally:
            self.raw.screen = self.raw.game_font = None

    def close(self) -> None:
        """Nothing to free; ``mpe2``'s own shuts pygame down for everybody in the process."""

    # ------------------------------------------------------------------ exact resume
    def runtime_state(self) -> dict[str, Any]:
        """World, scenario, step counter and random stream as plain values."""
        raw = self.raw
        return {
            "scenario": self.name,
            "entities": [_attributes(e, raw.world) for e in raw.world.entities],
            "world": _attributes(raw.world, raw.world),
            "rules": _attributes(raw.scenario, raw.world),
            "random": _encode(raw.np_random, raw.world),
            "steps": raw.steps,
            "camera": float(raw.original_cam_range),
            "running": bool(self.agents),
        }

    def load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Continues where ``runtime_state`` was taken.

        Raises:
            ConfigError: it is of another scenario, or of one with other options.
        """
        raw = self.raw
        entities = raw.world.entities
        if state["scenario"] != self.name or len(state["entities"]) != len(entities):
            raise ConfigError(
                f"this state is of mpe/{state['scenario']} with {len(state['entities'])} entities, "
                f"the environment is mpe/{self.name} with {len(entities)}. Make it with the "
                "options that the saved one had."
            )
        raw.reset(seed=0)
        for entity, saved in zip(entities, state["entities"], strict=True):
            _restore(entity, saved, entities)
        _restore(raw.world, state["world"], entities)
        _restore(raw.scenario, state["rules"], entities)
        raw.np_random = _decode(state["random"], entities)
        raw.steps = state["steps"]
        raw.original_cam_range = state["camera"]
        self.agents = list(self.possible_agents) if state["running"] else []
        self._observe()


# ---------------------------------------------------------------------- objects as plain values
def _attributes(thing: Any, world: Any) -> dict[str, Any]:
    return {key: _encode(value, world) for key, value in vars(thing).items()}


def _encode(value: Any, world: Any) -> Any:
    """A value of a world's object; entities stand for themselves by their position."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, np.random.Generator):
        return {"generator": value.bit_generator.state}
    if isinstance(value, list):
        return [_encode(item, world) for item in value]
    for position, entity in enumerate(world.entities):
        if value is entity:
            return {"entity": position}
    if type(value).__module__.startswith("mpe2."):  # an entity's state, an agent's action
        return {"attributes": _attributes(value, world)}
    raise ContractError(
        f"mpe2's world holds a {type(value).__name__}, which cannot be saved. Use the version of "
        "mpe2 that hetmarl[mpe] asks for."
    )


def _decode(value: Any, entities: list[Any]) -> Any:
    if isinstance(value, list):
        return [_decode(item, entities) for item in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.array(value["array"], dtype=value["dtype"])
    if "entity" in value:
        return entities[value["entity"]]
    bits = getattr(np.random, value["generator"]["bit_generator"])()
    bits.state = value["generator"]
    return np.random.Generator(bits)


def _restore(thing: Any, saved: Mapping[str, Any], entities: list[Any]) -> None:
    # into __dict__: mpe2's properties check and copy
    for key, value in saved.items():
        if isinstance(value, dict) and "attributes" in value:
            _restore(vars(thing)[key], value["attributes"], entities)
        else:
            vars(thing)[key] = _decode(value, entities)
