"""The batched environment itself, before TorchRL: tensors and arrays in, tensors and arrays out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hetmarl_envs.mamujoco.assets import load_model
from hetmarl_envs.mamujoco.factorization import Agent, Division
from hetmarl_envs.mamujoco.features import FeatureTable
from hetmarl_envs.mamujoco.locomotion import (
    Ant,
    CoupledHalfCheetah,
    HalfCheetah,
    Hopper,
    Humanoid,
    HumanoidStandup,
    Swimmer,
    Walker2d,
)
from hetmarl_envs.mamujoco.reaching import (
    InvertedDoublePendulum,
    InvertedPendulum,
    Pusher,
    Reacher,
)
from hetmarl_envs.mamujoco.scenarios import Scenario
from hetmarl_envs.mamujoco.simulator import Array, Simulator
from hetmarl_envs.options import check_names

SCENARIO_CLASSES: dict[str, type[Scenario]] = {
    "Ant": Ant,
    "CoupledHalfCheetah": CoupledHalfCheetah,
    "HalfCheetah": HalfCheetah,
    "Hopper": Hopper,
    "Humanoid": Humanoid,
    "HumanoidStandup": HumanoidStandup,
    "InvertedDoublePendulum": InvertedDoublePendulum,
    "InvertedPendulum": InvertedPendulum,
    "ManySegmentAnt": Ant,
    "ManySegmentSwimmer": Swimmer,
    "Pusher": Pusher,
    "Reacher": Reacher,
    "Swimmer": Swimmer,
    "Walker2d": Walker2d,
}


@dataclass(frozen=True)
class Group:
    """Agents with equal spaces.

    Args:
        members: their positions in the team.
        actuators: of all of them, agent after agent, ``[n_g * A_g]``.
        columns: of their observations in the table, ``[n_g * O_g]``; unused where they see all.
        observation_dim: ``O_g``.
        low, high: bounds of one agent's action, ``[A_g]``.
    """

    members: tuple[int, ...]
    actuators: Array
    columns: Tensor
    observation_dim: int
    low: Tensor
    high: Tensor


def default_threads(num_envs: int) -> int:
    """All cores this process may use, but no more than one per four simulations.

    Waking a thread for less work than that costs more than it saves.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, num_envs // 4))


def make_scenario(name: str, options: Mapping[str, Any], known: Sequence[str]) -> Scenario:
    """The scenario with its options set.

    Args:
        name: one of ``tasks.SCENARIOS``.
        options: of the scenario.
        known: other options the user may have meant, for the message.
    """
    scenario = SCENARIO_CLASSES[name]
    own = [field.name for field in fields(scenario)]
    check_names(f"MAMuJoCo scenario '{name}'", options, own, known)
    return scenario(**options)


class Team:
    """``num_envs`` copies of a scenario whose body is divided among agents.

    Args:
        scenario: reward, end and start.
        division: of the body among the agents.
        num_envs: copies stepped together.
        num_threads: threads that step them.
        full: every agent sees the whole state and which agent it is, and that standardised.
        device: of the tensors.
    """

    def __init__(
        self,
        scenario: Scenario,
        division: Division,
        *,
        num_envs: int,
        num_threads: int,
        full: bool,
        device: torch.device,
    ) -> None:
        self.scenario, self.num_envs, self.full, self.device = scenario, num_envs, full, device
        model = load_model(division.scenario, division.segments)
        state = scenario.state(model)
        agents = division.agents(model.nu, state)
        features = [*state, *(feature for agent in agents for feature in agent.observation)]
        fields_read = {block.field for block, _ in features} | set(scenario.fields)
        self.simulator = Simulator(model, num_envs, num_threads, "cfrc_ext" in fields_read)
        scenario.attach(self.simulator)
        self._table = FeatureTable(self.simulator, features, double=full)
        self._state_columns = torch.tensor(self._table.columns(state), device=device)
        self.state_dim = len(state)
        self.num_agents = len(agents)
        self.groups = self._group(agents, model.actuator_ctrlrange)
        self.observation_index = self._index()
        """Every group's observed numbers as places ``[n_g, O_g]``; the state's come first."""
        self._everything = np.arange(num_envs, dtype=np.int32)

    def _group(self, agents: list[Agent], bounds: Array) -> dict[str, Group]:
        """Groups in the order of their first members."""
        classes: dict[Any, list[int]] = {}
        for position, agent in enumerate(agents):
            ranges = tuple(map(tuple, bounds[list(agent.actuators)].tolist()))
            size = self.state_dim + len(agents) if self.full else len(agent.observation)
            classes.setdefault((size, ranges), []).append(position)
        groups = {}
        for number, ((size, ranges), members) in enumerate(classes.items()):
            seen = [f for i in members for f in agents[i].observation]
            low, high = torch.tensor(ranges, dtype=torch.float32, device=self.device).unbind(1)
            groups["agents" if len(classes) == 1 else f"agents_{number}"] = Group(
                members=tuple(members),
                actuators=np.array([a for i in members for a in agents[i].actuators]),
                columns=torch.tensor(self._table.columns(seen), device=self.device),
                observation_dim=size,
                low=low,
                high=high,
            )
        return groups

    def _index(self) -> dict[str, Tensor]:
        """See ``hetmarl_envs.observation_index``."""
        if self.full:  # after the state: the state as agents see it, "it is me", "it is not"
            start, count = self.state_dim, self.num_agents
            number = 2 * start + 1 - torch.eye(count, dtype=torch.long)
            everything = torch.cat([torch.arange(start, 2 * start).expand(count, -1), number], 1)
            return {name: everything[list(g.members)] for name, g in self.groups.items()}
        places = {column: i for i, column in enumerate(self._state_columns.tolist())}
        columns = {name: group.columns.tolist() for name, group in self.groups.items()}
        others = dict.fromkeys(c for seen in columns.values() for c in seen if c not in places)
        places |= {column: self.state_dim + i for i, column in enumerate(others)}
        return {
            name: torch.tensor([places[c] for c in seen]).view(len(self.groups[name].members), -1)
            for name, seen in columns.items()
        }

    def to(self, device: torch.device) -> None:
        """Gives observations on ``device`` from now on."""
        self.device = device
        self._state_columns = self._state_columns.to(device)
        for name, group in self.groups.items():
            moved = {key: getattr(group, key).to(device) for key in ("columns", "low", "high")}
            self.groups[name] = replace(group, **moved)

    def write_action(self, group: Group, action: Array) -> None:
        """Sets the controls of a group's agents to ``action [N, n_g, A_g]``, not clipped.

        MuJoCo limits what the actuators do; the reward charges for what was asked.
        """
        self.simulator.ctrl[:, group.actuators] = action.reshape(self.num_envs, -1)

    def step(self) -> tuple[Array, Array | None]:
        """One step with the controls as they stand: reward ``[N]`` and who terminated ``[N]``."""
        before = self.scenario.position()
        self.simulator.step(self.scenario.frame_skip)
        return self.scenario.reward(before)

    def reset(self, rng: np.random.Generator, mask: Array | None = None) -> None:
        """Starts new episodes where ``mask [N]`` is true, or everywhere."""
        ids = self._everything if mask is None else self._everything[mask]
        if ids.size:
            self.simulator.reset(ids, *self.scenario.start(rng, ids.size))

    def observe(self) -> tuple[dict[str, Tensor], Tensor]:
        """Every group's observations ``[N, n_g, O_g]`` and the state ``[N, S]``, float32."""
        table = self._table.read()
        if self.device.type != "cpu":
            table = table.to(self.device)
        if self.full:
            return self._observe_everything(table.index_select(1, self._state_columns))
        observations = {
            name: table.index_select(1, group.columns).view(
                self.num_envs, -1, group.observation_dim
            )
            for name, group in self.groups.items()
        }
        return observations, table.index_select(1, self._state_columns)

    def close(self) -> None:
        """Frees the simulations and their threads."""
        self.simulator.close()

    def _observe_everything(self, state: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The papers' setting: [state, one-hot of the agent], every vector standardised.

        The agents' vectors are one another's permutations: one is standardised for all of them.
        """
        first = torch.zeros(self.num_envs, self.num_agents, dtype=state.dtype, device=state.device)
        first[:, 0] = 1.0
        seen = _standardise(torch.cat([state, first], 1)).float()
        own = _standardise(state).float()
        source = torch.cat([own, seen[:, : self.state_dim + 2]], 1)
        observations = {
            name: source.index_select(1, index.flatten().to(source.device)).view(
                self.num_envs, *index.shape
            )
            for name, index in self.observation_index.items()
        }
        return observations, own


def _standardise(vectors: Tensor) -> Tensor:
    """Each vector less its mean, by its (population) standard deviation."""
    deviation, mean = torch.std_mean(vectors, dim=-1, correction=0, keepdim=True)
    return (vectors - mean) / deviation
