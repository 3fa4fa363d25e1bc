"""One game: ``smacv2``'s own environment, with what is wrong in it put right.

Needs ``smacv2`` and ``pysc2``, but not torch.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import portpicker
from absl import logging
from numpy.typing import NDArray
from s2clientprotocol import debug_pb2
from smacv2.env.starcraft2.distributions import get_distribution
from smacv2.env.starcraft2.starcraft2 import CannotResetException, StarCraft2Env

from hetmarl_envs.entities import Entities
from hetmarl_envs.sc2sim import SEED_TEXT

ATTEMPTS = 5
"""Tries to place the units of an episode, each with another draw."""
_SIZES = ("n_units", "n_enemies")
_PER_AGENT = ("attack", "health")


PORTS = range(15_000, 25_000)
"""Where games listen: below the ports that systems give to connections."""


def own_port() -> int:
    """A free port, tried from another one on in every process of this machine."""
    start = os.getpid()
    for step in range(len(PORTS)):
        port = PORTS[(start + 101 * step) % len(PORTS)]
        if portpicker.is_port_free(port):
            return port
    raise GameLostError(f"no free port in {PORTS} for the game to listen on")


class GameLostError(Exception):
    """The game's process is gone or does not answer."""


class Game(StarCraft2Env):
    """A ``StarCraft2Env`` whose episodes are functions of a seed.

    Put right, in the order of the package's code:

    * A reset launches the game only if none runs (upstream: every reset until an episode has
      *finished*), and ``max_reward`` is that of the episode at hand (upstream: the enemies' life is
      added at each of those resets, and the first episode's sum scales all later ones).
    * ``play`` tells a battle that is over from the time limit.
    * ``begin(seed)`` seeds teams, places, and every other draw.
    * The ``capability_config`` that is given is left as it was.
    * Values drawn per agent are numbers, not arrays of one, which NumPy 2.4 does not assign.
    * Agents' unit types on SMAC's maps count from the map's first one (upstream counts from the
      enemies' ids, which is an index out of range).
    * Observations hide the enemies that ``prob_obs_enemy`` hides, no others (upstream: an enemy
      that nobody has seen yet, or that is dead, hides all those with smaller numbers).
    * A lost connection is an error (upstream relaunches the game and calls the episode finished).
    * The game's port is this process' own (upstream: one that the system may give to a connection,
      or to another game, before this one listens; of forty that start at once some met).
    """

    stochastic_attack: bool

    def __init__(self, **arguments: Any) -> None:
        logging.set_verbosity(logging.ERROR)
        config = _capabilities(arguments.pop("capability_config", {}))
        super().__init__(capability_config=config, continuing_episode=True, **arguments)
        self._draws = [
            get_distribution(entry["dist_type"])(entry)
            for key, entry in config.items()
            if key not in _SIZES
        ]
        self._episode_seed = 0
        self._legal: dict[int, list[int]] = {}

    # ------------------------------------------------------------------ episodes
    def launch(self) -> str:
        """Starts the game's process; returns what it calls itself."""
        self._launch()
        self._episode_count = 1  # upstream's sign that a game is running
        self._obs = self._controller.observe()
        return str(self._controller.ping().game_version)

    def begin(self, seed: int) -> None:
        """A new episode, the same for the same seed."""
        streams = np.random.SeedSequence(seed)
        for words in streams.generate_state(2 * ATTEMPTS).reshape(ATTEMPTS, 2):
            self._episode_seed = int(words[0])
            random.seed(self._episode_seed)
            np.random.seed(self._episode_seed)
            _seed(self._draws, np.random.default_rng(int(words[1])))
            drawn: dict[str, Any] = {}
            for distribution in self._draws:
                drawn |= distribution.generate()
            for key in _PER_AGENT:
                if key in drawn:
                    drawn[key]["item"] = np.asarray(drawn[key]["item"]).reshape(-1)
            try:
                self.reset(drawn)
                break
            except CannotResetException:  # units did not appear: where they should was no room
                continue
        else:
            raise GameLostError(f"no units appeared in {ATTEMPTS} attempts to start an episode")
        enemies = self.enemies.values()
        life = sum(unit.health_max + unit.shield_max for unit in enemies)
        self.max_reward = self.n_enemies * self.reward_death_value + self.reward_win + life

    def play(self, actions: Sequence[int]) -> tuple[float, bool, bool, dict[str, Any]]:
        """One step.

        Returns:
            The team's reward, whether the battle is over, whether it was cut off by the time limit,
            and ``smacv2``'s info.
        """
        reward, ended, info = self.step(list(actions))
        truncated = bool(ended and info.get("episode_limit", False))
        return float(reward), bool(ended) and not truncated, truncated, info

    def full_restart(self) -> None:
        raise GameLostError("the connection to the game broke")

    def _launch(self) -> None:
        portpicker.pick_unused_port = own_port
        super()._launch()
        self._tell_seed()

    def _restart(self) -> None:
        self._tell_seed()
        super()._restart()

    def _tell_seed(self) -> None:
        """For the simulator; a real game draws a text that nobody sees."""
        text = debug_pb2.DebugText(text=f"{SEED_TEXT}{self._episode_seed}")
        command = debug_pb2.DebugCommand(draw=debug_pb2.DebugDraw(text=[text]))
        self._controller.debug(command)

    def entities(self) -> tuple[list[tuple[Entities, ...]], list[Entities]]:
        """The blocks of each agent's observation, and those of the state.

        Where there are medivacs the choices that attack an enemy heal the agent of that number.
        """
        size, (enemies, width) = self.get_obs_move_feats_size(), self.get_obs_enemy_feats_size()
        first = self.n_actions_no_attack
        attacked = Entities("enemies", size, enemies, width, (*range(first, first + enemies),))
        allies, width = self.get_obs_ally_feats_size()
        heals = self.map_type in ("MMM", "terran_gen")
        agents: list[tuple[Entities, ...]] = []
        for agent in range(self.n_agents):
            others = (*(first + i for i in range(self.n_agents) if i != agent),) if heals else ()
            agents.append((attacked, Entities("allies", attacked.stop, allies, width, others)))
        if self.obs_instead_of_state:
            return agents, []
        healed = (*range(first, first + self.n_agents),) if heals else ()
        team = Entities("agents", 0, self.n_agents, self.get_ally_num_attributes(), healed)
        width = self.get_enemy_num_attributes()
        other = Entities("enemies", team.stop, enemies, width, attacked.choices)
        return agents, [team, other]

    # ------------------------------------------------------------------ repairs
    def get_agent_action(self, a_id: int, action: int) -> Any:
        """Draws whether an attack succeeds from the episode's stream instead of a fresh one."""
        if not self.stochastic_attack or action < self.n_actions_no_attack:
            return super().get_agent_action(a_id, action)
        if np.random.uniform() > self.agent_attack_probabilities[a_id]:
            return None
        self.stochastic_attack = False
        try:
            return super().get_agent_action(a_id, action)
        finally:
            self.stochastic_attack = True

    def init_units(self, ally_team: Any, enemy_team: Any, episode_config: Any = None) -> None:
        self._legal.clear()
        super().init_units(ally_team, enemy_team, episode_config or {})
        if not ally_team and not self._min_unit_type:  # upstream: in the episode that launches
            self._init_ally_unit_types(min(unit.unit_type for unit in self.agents.values()))

    @property
    def obs_enemies(self) -> Any:
        """Which enemies each agent may see; ``smacv2`` makes, writes, and reads it."""
        return self._sightings

    @obs_enemies.setter
    def obs_enemies(self, seen: Any) -> None:
        self._sightings = _Sightings(np.asarray(seen, bool))

    def get_obs_agent(self, agent_id: int, fully_observable: bool = False) -> Any:
        """Hides an enemy's own features where upstream would hide everybody's before it."""
        observation = super().get_obs_agent(agent_id, fully_observable)
        if not fully_observable:
            start, (count, width) = self.get_obs_move_feats_size(), self.get_obs_enemy_feats_size()
            enemies = observation[start : start + count * width].reshape(count, width)
            enemies[~self._sightings.seen[:, agent_id]] = 0.0
        return observation

    def update_units(self) -> Any:
        self._legal.clear()
        return super().update_units()

    def get_avail_agent_actions(self, agent_id: int) -> list[int]:
        """Works out once a step what upstream does five times: a third of its time."""
        if agent_id not in self._legal:
            self._legal[agent_id] = super().get_avail_agent_actions(agent_id)
        return self._legal[agent_id]

    def get_true_avail_agent_actions(self, agent_id: int) -> list[int]:
        return self.get_avail_agent_actions(agent_id)

    def get_unit_type_id(self, unit: Any, ally: bool) -> int:
        if ally and not self.replace_teammates:
            return int(unit.unit_type - self._min_unit_type)
        return int(super().get_unit_type_id(unit, ally))


class _Sightings:
    """``seen [E, A]``, written as the array that it is; whoever reads finds everything seen."""

    def __init__(self, seen: NDArray[np.bool_]) -> None:
        self.seen = seen

    def __setitem__(self, where: Any, value: Any) -> None:
        self.seen[where] = value

    def __getitem__(self, where: Any) -> bool:
        return True


def _capabilities(given: dict[str, Any]) -> dict[str, Any]:
    """A copy in which every distribution knows its name and the teams' sizes."""
    sizes = {name: given[name] for name in _SIZES if name in given}
    return sizes | {
        key: {**deepcopy(entry), **sizes, "env_key": key}
        for key, entry in given.items()
        if key not in _SIZES
    }


def _seed(owners: Sequence[Any], generator: np.random.Generator) -> None:
    """Gives every ``rng``, of distributions inside of distributions too, a stream of its own."""
    for owner in owners:
        if hasattr(owner, "rng"):
            owner.rng = np.random.default_rng(generator.integers(2**63))
        inner = [v for v in vars(owner).values() if hasattr(v, "generate")]
        _seed(inner, generator)
