"""One simulation, as a parallel environment of PettingZoo."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hetmarl_envs.errors import ConfigError
from hetmarl_envs.sumo.rendering import Roads

INFO = ("mean_waiting_time", "mean_delay")
_COMMAND = "--no-step-log --xml-validation never --device.tripinfo.probability 1"
_WAITED = "device.tripinfo.waitingTime"


class SumoSimulator:
    """``sumo_rl.SumoEnvironment`` with several agents, through SUMO's library in this process.

    The package's own ``parallel_env`` does not import with PettingZoo 1.27. Every episode has a
    seed of its own, drawn from what ``reset(seed=...)`` seeds; there it is the same in all.

    Args:
        arguments: of ``SumoEnvironment``, see ``networks.simulation_arguments``.

    Raises:
        ConfigError: there is another simulation in this process: the library can only have one.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        package = import_sumo_rl()
        if _library().isLoaded():
            raise ConfigError(
                "a simulation of SUMO is running in this process, and its library can only have "
                "one: end it first (libsumo.close())."
            )
        self.raw: Any = package.SumoEnvironment(
            **arguments,
            sumo_seed=0,
            add_system_info=False,
            add_per_agent_info=False,
            sumo_warnings=False,
            additional_sumo_cmd=_COMMAND,
        )
        self.possible_agents: list[str] = list(self.raw.ts_ids)
        self.agents: list[str] = []
        self._random = np.random.default_rng(0)
        self._seed: int | None = None
        self._actions: list[list[int]] = []
        self._observations: dict[str, NDArray[np.float32]] = {}
        self._roads: Roads | None = None

    # ------------------------------------------------------------------ PettingZoo's interface
    def observation_space(self, agent: str) -> Any:
        """A ``Box``: lights one-hot, whether they may change, density and queue per lane."""
        return self.raw.observation_spaces(agent)

    def action_space(self, agent: str) -> Any:
        """A ``Discrete``: which lights are green next."""
        return self.raw.action_spaces(agent)

    def reset(self, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._start(int(self._random.integers(2**31 - 1)))
        return self._observations, self._infos()

    def step(self, actions: Mapping[str, int]) -> tuple[dict[str, Any], ...]:
        """``delta_time`` seconds."""
        rewards, over = self._move([int(actions[agent]) for agent in self.possible_agents])
        infos, ends = self._infos(), dict.fromkeys(self.possible_agents, False)
        return self._observations, rewards, ends, dict.fromkeys(self.possible_agents, over), infos

    def state(self) -> NDArray[np.float32]:
        """All agents' observations side by side."""
        if not self._observations:
            spaces = [self.observation_space(agent) for agent in self.possible_agents]
            return np.zeros(sum(space.shape[0] for space in spaces), np.float32)
        return np.concatenate([self._observations[agent] for agent in self.possible_agents])

    def render(self) -> NDArray[np.uint8]:
        """The roads, the lights and the vehicles, uint8 ``[H, W, 3]``."""
        sumo = self.raw.sumo
        if self._roads is None:
            self._roads = Roads(sumo, self.possible_agents)
        return self._roads.draw(sumo, f"waiting {self._waiting()[0]:.0f} s per vehicle")

    def close(self) -> None:
        """Ends the simulation."""
        self.raw.close()

    # ------------------------------------------------------------------ the episode
    def _start(self, seed: int) -> None:
        self._seed, self._actions = seed, []
        self._observations = self.raw.reset(seed=seed)
        self.agents = list(self.possible_agents)

    def _move(self, actions: list[int]) -> tuple[dict[str, float], bool]:
        self._actions.append(actions)
        moves = dict(zip(self.possible_agents, actions, strict=True))
        self._observations, rewards, ends, _ = self.raw.step(moves)
        if ends["__all__"]:
            self.agents = []
        return rewards, ends["__all__"]

    def _infos(self) -> dict[str, dict[str, float]]:
        return {self.possible_agents[0]: dict(zip(INFO, self._waiting(), strict=True))}

    def _waiting(self) -> tuple[float, float]:
        """Mean waiting time and mean delay, in seconds per vehicle, of the episode so far.

        SUMO keeps both per trip (``tripinfo``): for trips that ended as means with two decimals,
        for vehicles under way each. Who cannot enter, the road being full, is delayed too.
        """
        simulation, vehicle = self.raw.sumo.simulation, self.raw.sumo.vehicle

        def ended(name: str) -> float:
            return float(simulation.getParameter("", f"device.tripinfo.{name}"))

        under_way, outside = vehicle.getIDList(), simulation.getPendingVehicles()
        arrived, entered = ended("count"), ended("count") + len(under_way)
        waited = sum(float(vehicle.getParameter(v, _WAITED)) for v in under_way)
        lost = sum(vehicle.getTimeLoss(v) for v in under_way)
        lost += sum(vehicle.getDepartDelay(v) for v in (*under_way, *outside))
        if arrived:  # without, the means are -1
            waited += arrived * ended("waitingTime")
            lost += arrived * (ended("timeLoss") + ended("departDelay"))
        return waited / max(entered, 1.0), lost / max(entered + len(outside), 1.0)

    # ------------------------------------------------------------------ exact resume
    def runtime_state(self) -> dict[str, Any]:
        """The episode's seed and actions: SUMO does the same again, given the same."""
        shape = (len(self._actions), len(self.possible_agents))
        return {
            "random": dict(self._random.bit_generator.state),
            "seed": self._seed,
            "actions": torch.tensor(self._actions, dtype=torch.int16).reshape(shape),
        }

    def load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Plays the episode again up to where ``runtime_state`` was taken."""
        self._random = np.random.default_rng()
        self._random.bit_generator.state = dict(state["random"])
        if state["seed"] is not None:
            self._start(state["seed"])
            for actions in state["actions"].tolist():
                self._move(actions)


def import_sumo_rl() -> Any:
    """The package ``sumo_rl`` on SUMO's library instead of a program behind a socket.

    It decides by an environment variable at its first import, and asks for ``SUMO_HOME``.
    """
    import sumo

    os.environ["SUMO_HOME"] = sumo.SUMO_HOME  # another installation may be of another version
    before = os.environ.get("LIBSUMO_AS_TRACI")
    os.environ["LIBSUMO_AS_TRACI"] = "quiet"
    try:
        import sumo_rl
    finally:
        if before is None:
            del os.environ["LIBSUMO_AS_TRACI"]
        else:
            os.environ["LIBSUMO_AS_TRACI"] = before
    return sumo_rl


def _library() -> Any:
    import libsumo

    return libsumo
