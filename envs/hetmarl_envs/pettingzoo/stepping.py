"""N PettingZoo environments, stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from hetmarl_envs.errors import ConfigError, ContractError
from hetmarl_envs.pettingzoo.layout import Agent, Layout, ParallelEnv
from hetmarl_envs.pettingzoo.spaces import MASK, Array
from hetmarl_envs.rows import read_saved

Opponents = Literal["random", "still"]


class InProcess:
    """Environments in rows, what they last gave in arrays.

    ``reset`` and ``step`` write to the arrays below; nobody else does. ``InWorkers`` has the same
    methods and arrays, the latter in shared memory.

    ================  ======================  ====================================================
    array             shape                   meaning
    ================  ======================  ====================================================
    ``observation``   group to ``[N, n, *O]`` zeros for an agent that is not there
    ``mask``          group to ``[N, n, K]``  legal choices; all of them for one that is not there
    ``alive``         ``[N, A]``              whether the agent will act in the next step
    ``acted``         ``[N, A]``              whether it was there in the last step
    ``reward``        ``[N, A]``              its own reward of the last step
    ``state``         ``[N, S]``              only where the environment has one
    ``info``          ``[N, I]``              what is told of the episode so far
    ``terminated``    ``[N]``                 nobody of the team is left, and nobody was cut off
    ``truncated``     ``[N]``                 nobody is left, and somebody was cut off at the end
    ================  ======================  ====================================================

    A row whose episode is over stays as it is, with rewards of zero, until it is reset.

    Args:
        envs: N environments, all alike.
        layout: of each of them.
        opponents: what agents do that are not in the team.
        leaving: whether agents may leave before the episode ends.
        where: what messages call the environment.
        first: row of the whole batch that ``envs`` begin with, in a worker.
        total: rows of the whole batch, if these are not all.
    """

    def __init__(
        self,
        envs: Sequence[ParallelEnv],
        layout: Layout,
        *,
        opponents: Opponents,
        leaving: bool,
        where: str,
        first: int = 0,
        total: int | None = None,
    ) -> None:
        self.envs, self.layout, self.where = list(envs), layout, where
        self.opponents, self.leaving = opponents, leaving
        if len({id(getattr(env, "unwrapped", env)) for env in envs}) < len(self.envs):
            raise ConfigError(f"{where}: make() must make a new environment at every call.")
        self._first, self._total = first, total or len(self.envs)
        rows = len(self.envs)
        self.bind(empty_arrays(layout, rows))
        self._left = np.zeros((rows, len(layout.team)), bool)  # in this episode: nobody comes back
        self._places: list[tuple[int, Agent, str, int]] = []
        for group, members in layout.groups.items():
            for index, position in enumerate(members):
                self._places.append((position, layout.team[position], group, index))
        self._other_masks = {
            agent.name: np.ones((rows, agent.spaces.width), bool)
            for agent in layout.others
            if agent.spaces.mask_in
        }
        self.seed(0)

    def bind(self, arrays: Mapping[tuple[str, str], Array]) -> None:
        """Takes ``arrays``, as ``empty_arrays`` makes them, for its own."""
        self.alive, self.acted = arrays["", "alive"], arrays["", "acted"]
        self.reward, self.state = arrays["", "reward"], arrays["", "state"]
        self.info = arrays["", "info"]
        self.terminated, self.truncated = arrays["", "terminated"], arrays["", "truncated"]
        self.observation = {k[1]: a for k, a in arrays.items() if k[0] == "observation"}
        self.mask = {k[1]: a for k, a in arrays.items() if k[0] == "mask"}

    # ------------------------------------------------------------------ random streams
    def seed(self, seed: int) -> None:
        """Gives every row a seed for its next reset, and starts the opponents' stream anew."""
        starts, moves = np.random.SeedSequence(seed).spawn(2)
        words = starts.generate_state(self._total)[self._first :][: len(self.envs)]
        self._seeds: list[int | None] = [int(word) % 2**31 for word in words]
        self._random = np.random.default_rng(moves)

    # ------------------------------------------------------------------ resetting
    def reset(self, rows: Iterable[int]) -> None:
        """Starts new episodes in ``rows``."""
        for row in rows:
            env = self.envs[row]
            observations, infos = env.reset(seed=self._seeds[row])
            self._seeds[row] = None  # from here on the environment's own stream
            present = set(env.agents)
            self.acted[row] = self._left[row] = False
            self.reward[row] = 0.0
            self._observe(row, observations, infos or {}, present)
            self.terminated[row] = self.truncated[row] = False
            if not self.alive[row].any():
                raise ContractError(
                    f"{self.where}: after reset() env.agents is {sorted(map(str, present))}, "
                    f"without any agent of the team {self.layout.names}."
                )

    # ------------------------------------------------------------------ stepping
    def step(self, actions: Mapping[str, Array]) -> None:
        """One step of every row whose episode goes on.

        Args:
            actions: per group ``[N, n, ...]``, in the layout of the action spec.
        """
        given = self._read_actions(actions)
        for row, env in enumerate(self.envs):
            if self.terminated[row] or self.truncated[row]:
                self.reward[row] = 0.0
                self.acted[row] = False
                continue
            self._check_known(env.agents, given)
            moves = {agent: given[agent](row) for agent in env.agents}
            observations, rewards, terminations, truncations, infos = env.step(moves)
            gone = {agent for agent in moves if terminations.get(agent) or truncations.get(agent)}
            cut = {agent for agent in gone if not terminations.get(agent)}
            self.acted[row] = self.alive[row]
            for position, agent in enumerate(self.layout.team):
                acted = self.acted[row, position]
                self.reward[row, position] = rewards.get(agent.id, 0.0) if acted else 0.0
            present = set(env.agents) - gone
            self._observe(row, observations, infos or {}, present)
            if not self.alive[row].any():
                self._end(row, cut, observations)
            elif not self.leaving and not self.alive[row].all():
                here = zip(self.layout.names, self.alive[row], strict=True)
                left = ", ".join(name for name, alive in here if not alive)
                raise ContractError(
                    f"{self.where}: {left} left before the others. Pass leaving=True, so that the "
                    "data says who is alive."
                )

    def _check_known(self, agents: Iterable[Any], known: Mapping[Any, Any]) -> None:
        for agent in agents:
            if agent not in known:
                raise ContractError(
                    f"{self.where}: agent {agent} appeared, which was not in possible_agents "
                    f"({', '.join(map(str, known))}). List there all that may ever appear."
                )

    def _end(self, row: int, cut: set[Any], observations: Mapping[Any, Any]) -> None:
        """Nobody of the team is left: whoever acted and was cut off would have gone on."""
        pairs = zip(self.layout.team, self.acted[row], strict=True)
        going_on = [bool(acted) and agent.id in cut for agent, acted in pairs]
        for agent, on in zip(self.layout.team, going_on, strict=True):
            if on and observations.get(agent.id) is None:
                raise ContractError(
                    f"{self.where}: agent {agent.name} was truncated, but there is no last "
                    "observation of it. Return one: what lies beyond the end is judged by it."
                )
        self.alive[row] = going_on
        self.truncated[row] = any(going_on)
        self.terminated[row] = not any(going_on)

    def _observe(
        self,
        row: int,
        observations: Mapping[Any, Any],
        infos: Mapping[Any, Any],
        present: set[Any],
    ) -> None:
        """Writes what the agents see that are ``present``, and those that left in this step."""
        for position, agent, group, index in self._places:
            acted = self.acted[row, position]
            here = agent.id in present and not self._left[row, position]
            self.alive[row, position] = here
            self._left[row, position] |= acted and not here
            found = observations.get(agent.id) if here or acted else None
            if found is None and here:
                raise ContractError(
                    f"{self.where}: agent {agent.name} is in env.agents, but there is no "
                    "observation of it. Return one for every agent of env.agents."
                )
            target = self.observation[group]
            target[row, index] = 0.0 if found is None else agent.spaces.read_observation(found)
            info = infos.get(agent.id) or {}
            if agent.spaces.mask_in:
                read = agent.spaces.read_mask if here else agent.spaces.last_mask
                self.mask[group][row, index] = True if found is None else read(found, info)
            elif MASK in info and agent.spaces.choices:
                raise ContractError(
                    f"{self.where}: agent {agent.name} had no action_mask in its info after the "
                    "first reset, but has one now. Return it from reset() too, for all who have "
                    "its spaces."
                )
        for agent in self.layout.others:
            if agent.spaces.mask_in and agent.id in present:
                info = infos.get(agent.id) or {}
                legal = agent.spaces.read_mask(observations.get(agent.id), info)
                self._other_masks[agent.name][row] = legal
        if self.layout.state_size is not None:
            state = np.ravel(self.envs[row].state())
            if state.size != self.layout.state_size:
                raise ContractError(
                    f"{self.where}: state() gave {state.size} numbers, {self.layout.state_size} "
                    "after the first reset. It must keep its size when agents leave."
                )
            self.state[row] = state
        for place, name in enumerate(self.layout.info):
            self.info[row, place] = self._told(name, infos)

    def _told(self, name: str, infos: Mapping[Any, Any]) -> float:
        """The number that the team's infos have in common; others' where the team has none."""
        team = [infos.get(agent.id) for agent in self.layout.team]
        told = [info[name] for info in team if info and name in info]
        told = told or [info[name] for info in infos.values() if info and name in info]
        if not told:
            raise ContractError(
                f"{self.where}: no agent's info has '{name}', which is to be told of the episode. "
                "Return it from reset() and from every step()."
            )
        try:
            numbers = {float(value) for value in told}
        except (TypeError, ValueError):
            numbers = set()
        if len(numbers) != 1:
            raise ContractError(
                f"{self.where}: the agents' infos have '{name}' = {told}, expected one number, of "
                "the whole episode. Return it from one agent, or the same from all."
            )
        return numbers.pop()

    # ------------------------------------------------------------------ actions
    def _read_actions(self, actions: Mapping[str, Array]) -> dict[Any, Callable[[int], Any]]:
        """Each agent's identifier to its action of a row."""
        given: dict[Any, Callable[[int], Any]] = {}
        for group, members in self.layout.groups.items():
            spaces = self.layout.team[members[0]].spaces
            count = len(members)
            chosen = actions[group]
            acting = self.alive[:, members].reshape(-1)  # who is gone may do anything
            flat = spaces.write_actions(chosen.reshape(-1, *chosen.shape[2:]), acting)
            for index, position in enumerate(members):
                agent = self.layout.team[position]
                given[agent.id] = self._own(agent, position, flat[index::count])
        for agent in self.layout.others:
            given[agent.id] = self._other(agent)
        return given

    def _own(self, agent: Agent, position: int, chosen: Any) -> Callable[[int], Any]:
        # one that an environment still lists though it ended it is given something harmless
        return lambda row: (
            chosen[row] if self.alive[row, position] else agent.spaces.still_action(None)
        )

    def _other(self, agent: Agent) -> Callable[[int], Any]:
        masks = self._other_masks.get(agent.name, [None] * len(self.envs))
        if self.opponents == "still":
            return lambda row: agent.spaces.still_action(masks[row])
        # of all rows at every step: what one row draws never depends on another one
        shares = self._random.random((self._total, agent.spaces.dims))[self._first :]
        return lambda row: agent.spaces.random_action(shares[row], masks[row])

    # ------------------------------------------------------------------ pictures, state, end
    def render(self, row: int) -> Any:
        """The picture that environment ``row`` draws."""
        return self.envs[row].render()

    def close(self) -> None:
        """Closes every environment."""
        for env in self.envs:
            env.close()

    def state_dict(self) -> dict[str, Any]:
        """Arrays, seeds and the opponents' stream, and each environment's ``runtime_state()``."""
        envs: list[Any] = self.envs
        return {
            "envs": [env.runtime_state() for env in envs],
            "arrays": {k: torch.from_numpy(array.copy()) for k, array in self._arrays().items()},
            "seeds": list(self._seeds),
            "opponents": self._random.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``.

        Raises:
            ConfigError: it is of another number of environments, or of other agents.
        """
        arrays = self._arrays()
        saved = read_saved(state["arrays"], arrays, self.where)
        envs: list[Any] = self.envs
        for env, own in zip(envs, state["envs"], strict=True):
            env.load_runtime_state(own)
        for key, array in arrays.items():
            array[...] = saved[key]
        self._seeds = list(state["seeds"])
        self._random = np.random.default_rng()
        self._random.bit_generator.state = dict(state["opponents"])

    def _arrays(self) -> dict[str, Array]:
        return {
            "alive": self.alive,
            **({"left": self._left} if self.leaving else {}),
            "terminated": self.terminated,
            "truncated": self.truncated,
            "state": self.state,
            **({"info": self.info} if self.layout.info else {}),
            **{f"observation.{group}": array for group, array in self.observation.items()},
            **{f"mask.{group}": array for group, array in self.mask.items()},
            **{f"other_mask.{name}": array for name, array in self._other_masks.items()},
        }


def empty_arrays(layout: Layout, rows: int) -> dict[tuple[str, str], Array]:
    """The arrays of ``InProcess``: (kind, group) to array; ``""`` for those of no group."""
    team = len(layout.team)
    arrays: dict[tuple[str, str], Array] = {
        ("", "alive"): np.zeros((rows, team), bool),
        ("", "acted"): np.zeros((rows, team), bool),
        ("", "reward"): np.zeros((rows, team), np.float32),
        ("", "terminated"): np.zeros(rows, bool),
        ("", "truncated"): np.zeros(rows, bool),
        ("", "state"): np.zeros((rows, layout.state_size or 0), np.float32),
        ("", "info"): np.zeros((rows, len(layout.info)), np.float32),
    }
    for group, members in layout.groups.items():
        spaces = layout.team[members[0]].spaces
        shape = (rows, len(members), *spaces.observation_shape)
        arrays["observation", group] = np.zeros(shape, np.float32)
        if spaces.mask_in:
            arrays["mask", group] = np.ones((rows, len(members), spaces.width), bool)
    return arrays
