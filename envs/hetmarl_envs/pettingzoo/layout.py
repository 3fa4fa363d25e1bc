"""Who is in a PettingZoo environment, with which spaces, in which groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hetmarl_envs.errors import ConfigError, ContractError, did_you_mean
from hetmarl_envs.grouping import group_agents
from hetmarl_envs.pettingzoo.spaces import AgentSpaces, Array


class ParallelEnv(Protocol):
    """What is used of ``pettingzoo.ParallelEnv``."""

    agents: list[Any]
    possible_agents: list[Any]

    def observation_space(self, agent: Any) -> Any: ...

    def action_space(self, agent: Any) -> Any: ...

    def reset(self, seed: int | None = None) -> tuple[dict[Any, Any], dict[Any, Any]]: ...

    def step(self, actions: dict[Any, Any]) -> tuple[dict[Any, Any], ...]: ...

    def render(self) -> Any: ...

    def state(self) -> Array: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Agent:
    """An agent: PettingZoo's identifier, the name as text, its spaces."""

    id: Any
    name: str
    spaces: AgentSpaces


@dataclass(frozen=True)
class Layout:
    """Who is controlled and who not, the groups, and the width of ``state()`` where there is one.

    ``groups`` maps a group's name to the positions of its agents in ``team``; ``info`` names the
    numbers that are told of the episode.
    """

    team: tuple[Agent, ...]
    others: tuple[Agent, ...]
    groups: dict[str, list[int]]
    state_size: int | None
    info: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of the controlled agents, in the order of the team."""
        return [agent.name for agent in self.team]


def read_layout(
    env: ParallelEnv,
    where: str,
    team: Sequence[str] | None,
    kinds: Mapping[str, Any],
    state: bool,
    info: Sequence[str] = (),
) -> Layout:
    """Resets ``env`` once and reads its agents.

    Args:
        env: a parallel environment.
        where: what messages call it.
        team: names of the controlled agents; None: all.
        kinds: agent's name to what must be equal, besides the spaces, for two to share a group.
        state: whether ``state()`` is to be read where there is one.
        info: numbers in the agents' infos that are told of the episode.

    Raises:
        ContractError: it is no parallel environment, or a space is not supported.
        ConfigError: ``team`` names an agent that it does not have.
    """
    if hasattr(env, "agent_iter"):
        raise ContractError(
            f"{where} is PettingZoo's turn-by-turn kind of environment (AEC). Pass a parallel one: "
            "its module's parallel_env, or pettingzoo.utils.conversions.aec_to_parallel(env)."
        )
    for needed in ("reset", "step", "observation_space", "action_space"):
        if not callable(getattr(env, needed, None)):
            raise ContractError(
                f"{where} is a {type(env).__name__} without {needed}(). Expected a "
                "pettingzoo.ParallelEnv."
            )
    _, infos = env.reset(seed=0)
    possible = getattr(env, "possible_agents", None) or list(env.agents)
    pairs = {agent: (env.observation_space(agent), env.action_space(agent)) for agent in possible}
    everyone = []
    for agent, pair in pairs.items():
        # one that joins later brings masks if its like, that are there already, do
        like = [agent, *(other for other in pairs if pairs[other] == pair)]
        there = next((other for other in like if other in env.agents), None)
        first = None if there is None else (infos or {}).get(there) or {}
        spaces = AgentSpaces(*pair, first, f"{where}, agent {agent}")
        everyone.append(Agent(agent, str(agent), spaces))
    names = [agent.name for agent in everyone]
    for name in team or ():
        if name not in names:
            raise ConfigError(
                f"{where} has no agent '{name}' to be in the team.{did_you_mean(name, names)} "
                f"Agents: {', '.join(names)}."
            )
    for name in kinds:
        if name not in names:
            raise ConfigError(
                f"{where} has no agent '{name}', named in kinds.{did_you_mean(name, names)} "
                f"Agents: {', '.join(names)}."
            )
    ours = tuple(agent for agent in everyone if team is None or agent.name in team)
    if not ours:
        raise ConfigError(f"{where}: team={team!r} is empty. Agents: {', '.join(names)}.")
    return Layout(
        team=ours,
        others=tuple(agent for agent in everyone if agent not in ours),
        groups=group_agents(
            [agent.name for agent in ours],
            [(agent.spaces.kind, kinds.get(agent.name)) for agent in ours],
        ),
        state_size=_state_size(env) if state else None,
        info=tuple(info),
    )


def _state_size(env: ParallelEnv) -> int | None:
    try:
        return int(np.asarray(env.state()).size)
    except (AttributeError, NotImplementedError):  # PettingZoo's way to say that there is none
        return None
