"""Level-based foraging: agents of unequal strength load food together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from lbforaging.foraging.environment import ForagingEnv as Library
from numpy.typing import NDArray

from hetmarl_envs.grid.env import GridEnv
from hetmarl_envs.grid.picture import AGENT, FOOD, Tile, draw
from hetmarl_envs.grid.tasks import foraging_arguments
from hetmarl_envs.grid.together import Together


class Foraging(Together):
    """``lbforaging``'s environment."""

    family = "lbf"
    library = Library
    hidden = ("self", "render_mode", "grid_observation")  # the last one fails in lbforaging 2.0
    limit = "max_episode_steps"
    arguments = staticmethod(foraging_arguments)

    def reset(self, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; with a seed whatever was before it is forgotten."""
        if seed is not None:
            for player in self.env.players:
                player.position = None  # else nobody is placed where somebody stood last
        return super().reset(seed)

    def solved(self) -> bool:
        """No food is left."""
        return not self.env.field.any()

    def save(self) -> dict[str, Any]:
        """Food, agents, counters."""
        players = self.env.players
        return {
            "field": self.env.field.tolist(),
            "players": [[*map(int, p.position), int(p.level), float(p.score)] for p in players],
            "spawned": int(self.env._food_spawned),
            "step": self.env.current_step,
        }

    def load(self, world: Mapping[str, Any]) -> None:
        """The inverse of ``save``."""
        env = self.env
        env.field[...] = world["field"]
        for player, (row, column, level, score) in zip(env.players, world["players"], strict=True):
            player.position, player.level, player.score = (row, column), level, score
        env._food_spawned, env.current_step = world["spawned"], world["step"]
        env._gen_valid_moves()

    def render(self) -> NDArray[np.uint8]:
        """Food green, agents blue, with their levels."""
        field = self.env.field
        tiles = [Tile(r, c, FOOD, str(field[r, c])) for r, c in np.argwhere(field)]
        for player in self.env.players:
            row, column = player.position
            tiles.append(Tile(row, column, AGENT, str(player.level), round=True))
        return draw(field.shape, tiles)


class ForagingEnv(GridEnv):
    """Batched foraging."""

    world = Foraging
