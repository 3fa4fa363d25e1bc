"""Which of a VMAS simulator's agents are controlled, and which of them are equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torchrl.data import Bounded, Categorical, MultiCategorical, TensorSpec

from hetmarl_envs.errors import ConfigError, ContractError, did_you_mean
from hetmarl_envs.grouping import group_agents
from hetmarl_envs.vmas import graph

if TYPE_CHECKING:
    from vmas.simulator.core import Agent
    from vmas.simulator.environment import Environment
    from vmas.simulator.scenario import BaseScenario


class Team:
    """The controlled agents, those with equal spaces and bodies in one group.

    Args:
        simulator: where they live.
        agents: the controlled ones, see ``choose_agents``.
        where: what messages call the environment, such as ``"vmas/balance"``.

    Attributes:
        agents: the controlled agents, in the team's order.
        names: theirs.
        positions: where each stands among all agents of the simulator.
        members: group to its agents' indices in the team.
        group_map: group to its agents' names.

    Raises:
        ConfigError: an agent observes something else than a vector.
    """

    def __init__(self, simulator: Environment, agents: list[Agent], where: str) -> None:
        self.agents = agents
        self.names = [agent_name(agent) for agent in agents]
        self.positions = [simulator.agents.index(agent) for agent in agents]
        kinds = [_kind(agent, simulator, where) for agent in agents]
        self.members = group_agents(self.names, kinds)
        self.group_map = {g: [self.names[i] for i in m] for g, m in self.members.items()}

    def stack(self, observations: Sequence[Tensor]) -> dict[str, Tensor]:
        """Observations of all agents of the simulator as one tensor per group.

        Args:
            observations: ``[num_envs, O]`` each, in the simulator's order.

        Returns:
            Group to ``[num_envs, n_g, O_g]``.
        """
        return {
            group: torch.stack([observations[self.positions[i]].float() for i in members], dim=1)
            for group, members in self.members.items()
        }


def choose_agents(
    simulator: Environment, team: str | None, where: str, *, together: bool
) -> list[Agent]:
    """The agents of one team, or all of them.

    Args:
        simulator: where they live.
        team: its name; None: all agents.
        where: what messages call the environment.
        together: whether opposed teams may be controlled as one.

    Raises:
        ConfigError: no such team, or nothing to choose from.
        ContractError: the teams are opposed and none was chosen.
    """
    teams: dict[str, list[Agent]] = {}
    for agent in simulator.agents:
        teams.setdefault(_team_of(agent, simulator.scenario), []).append(agent)
    if team is not None and len(teams) == 1:
        raise ConfigError(f"{where} has one team; leave team={team!r} out.")
    if team is not None and team not in teams:
        raise ConfigError(
            f"{where} has no team '{team}'.{did_you_mean(team, teams)} Teams: {', '.join(teams)}."
        )
    if len(teams) > 1 and team is None and not together:
        sides = "; ".join(f"{t}: {', '.join(a.name for a in teams[t])}" for t in teams)
        raise ContractError(
            f"{where} opposes teams ({sides}), and one reward for all of them would add "
            f"up opposed goals. Pass team={next(iter(teams))!r} to control one side while the "
            "other acts at random (opponents='still': does nothing), or team_reward='mean' or "
            "'sum' to treat all agents as one team nevertheless."
        )
    return teams[team] if team is not None else list(simulator.agents)


def agent_name(agent: Agent) -> str:
    """The agent's name without spaces."""
    return str(agent.name).replace(" ", "_")


def action_spec(space: Any, shape: torch.Size, device: torch.device | None) -> TensorSpec:
    """A ``gym`` action space of one agent as the spec of a batch of agents ``[*shape]``."""
    if hasattr(space, "low"):
        low, high = (
            torch.as_tensor(bound, device=device).expand(*shape, -1).clone()
            for bound in (space.low, space.high)
        )
        return Bounded(low, high, low.shape, dtype=torch.float32, device=device)
    if hasattr(space, "nvec"):
        nvec = torch.as_tensor(space.nvec, device=device).expand(*shape, -1)
        return MultiCategorical(nvec, (*shape, len(space.nvec)), dtype=torch.int64, device=device)
    return Categorical(int(space.n), shape, dtype=torch.int64, device=device)


def _team_of(agent: Agent, scenario: BaseScenario) -> str:
    if hasattr(scenario, "red_agents"):  # football, whose agents carry no adversary flag
        return "red" if agent in scenario.red_agents else "blue"
    return "adversaries" if agent.adversary else "good"


def _kind(agent: Agent, simulator: Environment, where: str) -> Any:
    """Everything that must be equal for two agents to share a group."""
    space = simulator.get_agent_action_space(agent)
    observation = simulator.observation_space[simulator.agents.index(agent)]
    if observation.shape is None or len(observation.shape) != 1:
        raise ConfigError(
            f"{where}: agent {agent_name(agent)} observes {observation}, expected a vector "
            "(football: leave dict_obs at False)."
        )
    return (
        observation.shape,
        repr(space),
        getattr(space, "low", np.empty(0)).tobytes(),
        getattr(space, "high", np.empty(0)).tobytes(),
        _team_of(agent, simulator.scenario),
        *_body(agent),
    )


def _body(agent: Agent) -> tuple[Any, ...]:
    """What VMAS's physics, sensors and controllers know of an agent, its name aside."""
    fields = (
        "mass max_speed v_range f_range max_f t_range max_t u_range u_multiplier u_noise c_noise "
        "obs_noise _obs_range silent movable rotatable collide drag linear_friction "
        "angular_friction gravity action_size discrete_action_nvec"
    )
    return (
        *(_comparable(getattr(agent, name)) for name in fields.split()),
        _parts(agent.shape),
        _parts(agent.dynamics),
        _parts(getattr(agent, "controller", None)),
        tuple(_parts(sensor) for sensor in agent.sensors),
    )


def _parts(thing: Any) -> tuple[Any, ...]:
    """Class and plain attributes of a shape, sensor, controller or dynamics."""
    values = getattr(thing, "__dict__", {})
    plain = {k: v for k, v in values.items() if graph.is_plain(v) and v is not None}
    rays = values["_angles"][0].tolist() if "_angles" in values else []
    return type(thing).__qualname__, tuple(sorted(plain.items())), tuple(rays)


def _comparable(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.flatten().tolist())
    return tuple(value) if isinstance(value, list) else value
