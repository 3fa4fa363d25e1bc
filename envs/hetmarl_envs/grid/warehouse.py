"""A warehouse whose robots bring requested shelves to a goal, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rware.warehouse import Direction, ObservationType, RewardType
from rware.warehouse import Warehouse as Library

from hetmarl_envs.errors import ConfigError
from hetmarl_envs.grid.env import GridEnv
from hetmarl_envs.grid.picture import AGENT, GOAL, LOADED, REQUESTED, SHELF, Tile, draw
from hetmarl_envs.grid.tasks import warehouse_arguments
from hetmarl_envs.grid.together import Together

_POINTERS = {Direction.UP: "^", Direction.DOWN: "v", Direction.LEFT: "<", Direction.RIGHT: ">"}
_NAMED = {"reward_type": RewardType, "observation_type": ObservationType}


class Warehouse(Together):
    """``rware``'s environment; it goes on until its time limit.

    Args:
        arguments: of it; those of an enumeration by their names in lower case.

    Raises:
        ConfigError: no such name.
    """

    family = "rware"
    library = Library
    hidden = ("self", "render_mode", "image_observation_layers", "max_inactivity_steps")
    limit = "max_steps"
    arguments = staticmethod(warehouse_arguments)

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        values = dict(arguments)
        for option, names in _NAMED.items():
            if option in values:
                known = {name.name.lower(): name for name in names}
                if values[option] not in known:
                    raise ConfigError(
                        f"rware: {option}={values[option]!r}, expected one of {list(known)}."
                    )
                values[option] = known[values[option]]
        super().__init__(values)

    def solved(self) -> bool:
        """Never: there is always another request."""
        return False

    def save(self) -> dict[str, Any]:
        """Robots, shelves, requests, counters."""
        env = self.env
        return {
            "agents": [
                {
                    "place": [int(agent.x), int(agent.y)],
                    "direction": agent.dir.value,
                    "message": agent.message.tolist(),
                    "shelf": agent.carrying_shelf.id if agent.carrying_shelf else 0,
                    "delivered": agent.has_delivered,
                }
                for agent in env.agents
            ],
            "shelves": [[int(shelf.x), int(shelf.y)] for shelf in env.shelfs],
            "requests": [shelf.id for shelf in env.request_queue],
            "steps": [env._cur_steps, env._cur_inactive_steps],
        }

    def load(self, world: Mapping[str, Any]) -> None:
        """The inverse of ``save``."""
        env = self.env
        for shelf, (x, y) in zip(env.shelfs, world["shelves"], strict=True):
            shelf.x, shelf.y = x, y
        for agent, saved in zip(env.agents, world["agents"], strict=True):
            agent.x, agent.y = saved["place"]
            agent.dir = Direction(saved["direction"])
            agent.message[:] = saved["message"]
            agent.carrying_shelf = env.shelfs[saved["shelf"] - 1] if saved["shelf"] else None
            agent.has_delivered = saved["delivered"]
        env.request_queue = [env.shelfs[number - 1] for number in world["requests"]]
        env._cur_steps, env._cur_inactive_steps = world["steps"]
        env._recalc_grid()

    def render(self) -> NDArray[np.uint8]:
        """Goals dark, shelves grey, requested ones green; robots blue, with a shelf red."""
        env = self.env
        tiles = [Tile(y, x, GOAL, "") for x, y in env.goals]
        tiles += [
            Tile(s.y, s.x, REQUESTED if s in env.request_queue else SHELF, "") for s in env.shelfs
        ]
        tiles += [
            Tile(a.y, a.x, LOADED if a.carrying_shelf else AGENT, _POINTERS[a.dir], round=True)
            for a in env.agents
        ]
        return draw(env.grid_size, tiles)


class WarehouseEnv(GridEnv):
    """Batched warehouses."""

    world = Warehouse
