"""VMAS scenarios as one batched TorchRL environment (see ``VMASEnv``)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, MultiCategorical, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from hetmarl_envs.errors import (
    ConfigError,
    ContractError,
    HetmarlError,
    MissingExtraError,
    did_you_mean,
)
from hetmarl_envs.vmas import graph
from hetmarl_envs.vmas.randomness import PrivateRandomness
from hetmarl_envs.vmas.scenarios import check_scenario_options, import_vmas, load_scenario

if TYPE_CHECKING:
    from vmas.simulator.core import Agent
    from vmas.simulator.environment import Environment
    from vmas.simulator.scenario import BaseScenario

Actions = Literal["continuous", "discrete", "multi_discrete"]
TeamReward = Literal["mean", "sum"]
Opponents = Literal["random", "still"]

OWN_OPTIONS = ("max_steps", "actions", "team_reward", "team", "opponents")
DEFAULT_MAX_STEPS = 100
MAX_STEPS = {"football": 500}  # as in BenchMARL's task files; DEFAULT_MAX_STEPS for the others
MIN_FRESH = 64


class VMASEnv(EnvBase):
    """Any VMAS scenario, ``num_envs`` of them stepped together on ``device``.

    Agents with equal observation size, action space and body share a group, unequal ones are in
    different groups. The time limit truncates; only the scenario's own ``done`` terminates.

    A reset of some sub-environments copies rows of fresh ones, made beforehand in a second
    simulator that is reset as a whole, instead of resetting them one by one in Python. Every
    environment has a random stream of its own: another one, or an evaluation, never changes it.

    Keys, besides those of the data contract: ``(group, "reward")`` ``[num_envs, n_g, 1]``, the
    agents' own rewards. There is no ``"state"``: critics read every group's observations.

    Args:
        scenario: name such as ``"balance"``, or a subclass of ``vmas``'s ``BaseScenario``.
        num_envs: sub-environments.
        seed: of the environment's random stream.
        device: where the simulator and all tensors live.
        max_steps: time limit in steps; 100 by default, 500 for football.
        actions: ``"continuous"``, ``"discrete"`` (one choice out of all combinations) or
            ``"multi_discrete"`` (one choice per action dimension).
        team_reward: how the agents' rewards make the team's: ``"mean"`` (the default; with it the
            return is the one that BenchMARL reports) or ``"sum"``. No default for a scenario of
            opposed teams.
        team: for a scenario of opposed teams, the one that is controlled, rewarded and seen
            (``"good"`` or ``"adversaries"``; football ``"blue"`` or ``"red"``).
        opponents: what the other team does: ``"random"`` actions, uniform, or ``"still"``.
        **options: the scenario's own, see ``scenario_options``.

    Raises:
        UnknownNameError: no such scenario.
        ConfigError: an option is unknown, or has a value that the scenario does not take.
        ContractError: a scenario of opposed teams without ``team`` or ``team_reward``.
    """

    def __init__(
        self,
        scenario: str | type[BaseScenario],
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        max_steps: int | None = None,
        actions: Actions = "continuous",
        team_reward: TeamReward | None = None,
        team: str | None = None,
        opponents: Opponents = "random",
        **options: Any,
    ) -> None:
        cls = load_scenario(scenario) if isinstance(scenario, str) else scenario
        self.scenario_name = scenario if isinstance(scenario, str) else scenario.__name__
        self._where = f"vmas/{self.scenario_name}"
        check_scenario_options(cls, options, OWN_OPTIONS, self._where)
        if max_steps is None:
            max_steps = MAX_STEPS.get(self.scenario_name, DEFAULT_MAX_STEPS)
        if not isinstance(max_steps, int) or max_steps < 1:
            raise ConfigError(f"{self._where}: max_steps={max_steps!r}, expected a number >= 1.")
        if not isinstance(num_envs, int) or num_envs < 1:
            raise ConfigError(f"{self._where}: num_envs={num_envs!r}, expected a number >= 1.")
        self._check_choice("actions", actions, get_args(Actions))
        self._check_choice("team_reward", team_reward, (*get_args(TeamReward), None))
        self._check_choice("opponents", opponents, get_args(Opponents))
        device = torch.device("cpu" if device is None else device)
        super().__init__(device=device, batch_size=torch.Size([num_envs]))

        self.max_steps = max_steps
        self.num_envs = num_envs
        self._class, self._options, self._actions = cls, options, actions
        self._opponents = opponents
        self._randomness = PrivateRandomness(seed, device, _draws_elsewhere(cls))
        with self._randomness:
            self._simulator = self._build(num_envs)
        self._choose_team(team, team_reward)
        self._make_specs()
        self._steps = torch.zeros(num_envs, 1, dtype=torch.int64, device=device)
        self._observation: dict[str, Tensor] = {}
        self._fresh: _FreshRows | None = None
        self._set_seed(seed)  # what building drew must not shift the first episode

    # ------------------------------------------------------------------ construction
    def _check_choice(self, option: str, value: Any, choices: Sequence[Any]) -> None:
        if value not in choices:
            hint = did_you_mean(str(value), [c for c in choices if c is not None])
            raise ConfigError(
                f"{self._where}: {option}={value!r}, expected one of {list(choices)}.{hint}"
            )

    def _build(self, num_envs: int) -> Environment:
        """A simulator that draws from the environment's own stream."""
        import_vmas()
        from vmas.simulator.environment import Environment

        shared = list(Environment.vmas_random_state)
        Environment.vmas_random_state[:] = _global_states()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Scenario kwargs: ")
                warnings.filterwarnings("ignore", message="Force limits not specified")
                simulator = Environment(
                    self._class(),
                    num_envs=num_envs,
                    device=self.device,
                    continuous_actions=self._actions == "continuous",
                    multidiscrete_actions=self._actions == "multi_discrete",
                    clamp_actions=True,  # tanh may leave the bounds by one float
                    terminated_truncated=True,
                    **self._options,
                )
        except HetmarlError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self._where} cannot be built with num_envs={num_envs} and options "
                f"{self._options}: {type(error).__name__}: {error}"
            ) from error
        finally:
            _set_global_states(Environment.vmas_random_state)
            Environment.vmas_random_state[:] = shared
        for entity in simulator.world.entities:
            _ = entity.is_rendering  # created on first use; here, so that drawing adds no state
        return simulator

    def _choose_team(self, team: str | None, team_reward: TeamReward | None) -> None:
        simulator = self._simulator
        teams: dict[str, list[Agent]] = {}
        for agent in simulator.agents:
            teams.setdefault(_team_of(agent, simulator.scenario), []).append(agent)
        if team is not None and len(teams) == 1:
            raise ConfigError(f"{self._where} has one team; leave team={team!r} out.")
        if team is not None and team not in teams:
            raise ConfigError(
                f"{self._where} has no team '{team}'.{did_you_mean(team, teams)} "
                f"Teams: {', '.join(teams)}."
            )
        if len(teams) > 1 and team is None and team_reward is None:
            sides = "; ".join(f"{t}: {', '.join(a.name for a in teams[t])}" for t in teams)
            raise ContractError(
                f"{self._where} opposes teams ({sides}), and one reward for all of them would add "
                f"up opposed goals. Pass team={next(iter(teams))!r} to control one side while the "
                "other acts at random (opponents='still': does nothing), or team_reward='mean' or "
                "'sum' to treat all agents as one team nevertheless."
            )
        self._agents = teams[team] if team is not None else list(simulator.agents)
        self._team_reward = team_reward or "mean"
        # where the controlled agents stand among all agents of the simulator
        self._positions = [simulator.agents.index(agent) for agent in self._agents]
        self.agent_names = [_name(agent) for agent in self._agents]
        classes: dict[Any, list[int]] = {}
        for i, agent in enumerate(self._agents):
            classes.setdefault(self._kind(agent), []).append(i)
        names = _group_names([[self.agent_names[i] for i in m] for m in classes.values()])
        self._members = dict(zip(names, classes.values(), strict=True))
        self.group_map = {g: [self.agent_names[i] for i in m] for g, m in self._members.items()}

    def _kind(self, agent: Agent) -> Any:
        """Everything that must be equal for two agents to share a group."""
        simulator = self._simulator
        position = simulator.agents.index(agent)
        space = simulator.get_agent_action_space(agent)
        observation = simulator.observation_space[position]
        if observation.shape is None or len(observation.shape) != 1:
            raise ConfigError(
                f"{self._where}: agent {_name(agent)} observes {observation}, expected a vector "
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

    def _make_specs(self) -> None:
        batch, device = self.batch_size, self.device
        observations, actions, rewards = Composite(), Composite(), Composite()
        for group, members in self._members.items():
            shape = torch.Size([*batch, len(members)])
            position = self._simulator.agents.index(self._agents[members[0]])
            size = self._simulator.observation_space[position].shape
            observations[group] = Composite(
                observation=Unbounded((*shape, *size), device=device), shape=shape
            )
            space = self._simulator.get_agent_action_space(self._agents[members[0]])
            actions[group] = Composite(action=_action_spec(space, shape, self.device), shape=shape)
            rewards[group] = Composite(reward=Unbounded((*shape, 1), device=device), shape=shape)
        rewards["reward"] = Unbounded((*batch, 1), device=device)
        done = Categorical(2, shape=(*batch, 1), dtype=torch.bool, device=device)
        self.observation_spec = Composite(observations, shape=batch, device=device)
        self.action_spec = Composite(actions, shape=batch, device=device)
        self.reward_spec = Composite(rewards, shape=batch, device=device)
        self.done_spec = Composite(
            done=done, terminated=done.clone(), truncated=done.clone(), shape=batch, device=device
        )

    # ------------------------------------------------------------------ stepping
    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        simulator, scenario = self._simulator, self._simulator.scenario
        with self._randomness, torch.no_grad():
            for agent, action in zip(simulator.agents, self._read_actions(tensordict), strict=True):
                self._set_action(action, agent)
            for agent in simulator.world.agents:
                scenario.env_process_action(agent)
            scenario.pre_step()
            simulator.world.step()
            scenario.post_step()
            observations, rewards = simulator._get_from_scenario(
                get_observations=True, get_rewards=True, get_infos=False, get_dones=False
            )
            terminated = scenario.done().reshape(self.num_envs, 1).bool().clone()
        self._steps = self._steps + 1
        truncated = self._steps >= self.max_steps
        team = torch.stack([rewards[i].float() for i in self._positions], dim=1)
        return self._output(
            self._stack(observations),
            reward=getattr(team, self._team_reward)(dim=1, keepdim=True),
            rewards=team,
            terminated=terminated,
            truncated=truncated,
        )

    def _set_action(self, action: Tensor, agent: Agent) -> None:
        try:
            self._simulator._set_action(action, agent)
        except AssertionError as error:
            raise ContractError(
                f"{self._where}: the action of agent {_name(agent)} holds NaN or is not in its "
                f"space {self._simulator.get_agent_action_space(agent)}. {error}"
            ) from error

    def _read_actions(self, tensordict: TensorDictBase) -> list[Tensor]:
        """Actions of all agents of the simulator, in its order, each ``[num_envs, A]``."""
        chosen: dict[str, Tensor] = {}
        for group, members in self._members.items():
            action = tensordict.get((group, "action"))
            if self._actions == "discrete":
                action = action.unsqueeze(-1)
            for index, member in enumerate(members):
                chosen[self._agents[member].name] = action[:, index]
        return [
            chosen[agent.name] if agent.name in chosen else self._opponent_action(agent)
            for agent in self._simulator.agents
        ]

    def _opponent_action(self, agent: Agent) -> Tensor:
        simulator = self._simulator
        if self._opponents == "still":
            size = simulator.get_agent_action_size(agent)
            dtype = torch.float32 if self._actions == "continuous" else torch.int64
            return torch.zeros(self.num_envs, size, dtype=dtype, device=self.device)
        space = _action_spec(
            simulator.get_agent_action_space(agent), self.batch_size, torch.device(self.device)
        )
        action = space.rand()
        return action.unsqueeze(-1) if self._actions == "discrete" else action

    def _stack(self, observations: Sequence[Tensor]) -> dict[str, Tensor]:
        """Observations of all agents of the simulator as one tensor per group."""
        return {
            group: torch.stack([observations[self._positions[i]].float() for i in members], dim=1)
            for group, members in self._members.items()
        }

    def _output(
        self,
        observation: dict[str, Tensor],
        *,
        reward: Tensor | None = None,
        rewards: Tensor | None = None,
        terminated: Tensor | None = None,
        truncated: Tensor | None = None,
    ) -> TensorDictBase:
        self._observation = observation
        if terminated is None or truncated is None:
            terminated = torch.zeros(self.num_envs, 1, dtype=torch.bool, device=self.device)
            truncated = terminated.clone()
        source: dict[str, Any] = {
            "done": terminated | truncated,
            "terminated": terminated,
            "truncated": truncated,
        }
        if reward is not None:
            source["reward"] = reward
        for group, members in self._members.items():
            values = {"observation": observation[group]}
            if rewards is not None:
                values["reward"] = rewards[:, members].unsqueeze(-1)
            shape = torch.Size([self.num_envs, len(members)])
            source[group] = TensorDict(values, batch_size=shape, device=self.device)
        return TensorDict(source, batch_size=self.batch_size, device=self.device)

    # ------------------------------------------------------------------ resetting
    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        with self._randomness, torch.no_grad():
            if mask is None or bool(mask.all()) or not self._observation:
                observation = self._stack(self._simulator._reset())
                self._steps = torch.zeros_like(self._steps)
                if self._fresh is not None:
                    self._fresh.compare_again()
            else:
                rows = mask.reshape(self.num_envs).nonzero().squeeze(-1)
                observation = self._reset_rows(rows)
                self._steps = self._steps.index_fill(0, rows, 0)
        return self._output(observation)

    def _reset_rows(self, rows: Tensor) -> dict[str, Tensor]:
        """Starts new episodes in some sub-environments; the others do not move.

        Args:
            rows: indices of the finished sub-environments ``[k]``.

        Returns:
            Every group's observation of all sub-environments.
        """
        if len(rows) == 0:
            return {group: value.clone() for group, value in self._observation.items()}
        if self._fresh is None:
            self._fresh = _FreshRows(self)
        fresh = self._fresh.deal(rows)
        if fresh is None:  # one by one, as VMAS does it
            for row in rows.tolist():
                self._simulator.scenario.env_reset_world_at(row)
            fresh = self._look(rows)
        return {
            group: value.index_copy(0, rows, fresh[group])
            for group, value in self._observation.items()
        }

    def _look(self, rows: Tensor) -> dict[str, Tensor]:
        """The simulator's present observations of some sub-environments."""
        (observations,) = self._simulator._get_from_scenario(
            get_observations=True, get_rewards=False, get_infos=False, get_dones=False
        )
        stacked = self._stack(observations)
        return {group: value.index_select(0, rows) for group, value in stacked.items()}

    def _set_seed(self, seed: int | None) -> None:
        self._randomness.seed(0 if seed is None else seed)
        if self._fresh is not None:
            self._fresh.discard()

    # ------------------------------------------------------------------ state, pictures
    def runtime_state(self) -> dict[str, Any]:
        """Everything needed to continue bit-exactly, as tensors and plain values."""
        return {
            "simulator": graph.save(self._simulator.scenario),
            "steps": self._steps.clone(),
            "observation": {group: value.clone() for group, value in self._observation.items()},
            "randomness": self._randomness.state_dict(),
            "fresh": None if self._fresh is None else self._fresh.state_dict(),
        }

    def load_runtime_state(self, state: dict[str, Any]) -> None:
        """Continues where ``runtime_state`` was taken.

        Raises:
            ContractError: the state is of another scenario, other options, or another num_envs.
        """
        if tuple(state["steps"].shape) != tuple(self._steps.shape):
            raise ContractError(
                f"{self._where}: the saved state has {len(state['steps'])} sub-environments, this "
                f"environment has {self.num_envs}."
            )
        if graph.missing(self._simulator.scenario, state["simulator"]) is not None:
            with self._randomness:
                _first_step(self._simulator)
        graph.load(self._simulator.scenario, state["simulator"])
        if state["fresh"] is None:
            self._fresh = None
        else:
            if self._fresh is None:
                self._fresh = _FreshRows(self)
            self._fresh.load_state_dict(state["fresh"])
        self._steps = state["steps"].to(self.device, copy=True)
        self._observation = {
            group: value.to(self.device, copy=True) for group, value in state["observation"].items()
        }
        self._randomness.load_state_dict(state["randomness"])

    def render(self, index: int = 0) -> np.ndarray:
        """A picture of sub-environment ``index``, ``uint8 [H, W, 3]``, without a display.

        Raises:
            MissingExtraError: no OpenGL library to draw with; says what to install.
        """
        if not 0 <= index < self.num_envs:
            raise ConfigError(f"{self._where}: index={index}, expected 0 to {self.num_envs - 1}.")
        try:
            picture = self._simulator.render(mode="rgb_array", env_index=index)
        except Exception as error:
            if type(error).__module__.startswith(("vmas", "builtins")) and not isinstance(
                error, (ImportError, AttributeError)
            ):
                raise
            raise MissingExtraError(
                f"{self._where} cannot draw here ({type(error).__name__}: {error}). VMAS draws "
                "with pyglet over EGL, which needs no display: on Debian or Ubuntu run 'apt-get "
                "install libegl1 libgl1 libglu1-mesa', then 'pip install \"pyglet<2\"'."
            ) from error
        return np.ascontiguousarray(picture, dtype=np.uint8)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Frees the drawing window."""
        if self._simulator.viewer is not None:
            self._simulator.viewer.close()
            self._simulator.viewer = None
        super().close(raise_if_closed=raise_if_closed)


class _FreshRows:
    """First states of episodes, made in one go and dealt out one by one.

    A second simulator of the same scenario is reset as a whole whenever all its rows were dealt,
    so that one vectorised reset serves as many finished episodes as it has rows. Resetting them
    one by one, ``reset_at``, costs a whole vectorised reset for each.
    """

    def __init__(self, env: VMASEnv) -> None:
        self._env = env
        self.size = max(env.num_envs + 1, MIN_FRESH + (env.num_envs == MIN_FRESH))
        # building draws nothing from the environment's stream: an environment that has been built
        # and one that is given its seed later deal alike
        with PrivateRandomness(0, env._randomness.device, env._randomness.numpy_and_python):
            self._simulator = env._build(self.size)
            _first_step(self._simulator)
        self._copier = graph.RowCopier(env._simulator.scenario, self._simulator.scenario)
        # VMAS's scenarios are tested for rows that depend on what the whole batch shares, such as
        # a position in a ring buffer; others' are copied only while nothing shared differs
        self._tested = env._class.__module__.startswith("vmas.")
        self.discard()

    def discard(self) -> None:
        """Forgets the rows that are left."""
        self._next = self.size
        self._observation: dict[str, Tensor] = {}
        self.compare_again()

    def compare_again(self) -> None:
        """To be called when state that all sub-environments share may have changed."""
        self._alike: bool | None = None

    def deal(self, rows: Tensor) -> dict[str, Tensor] | None:
        """Puts fresh first states into ``rows`` of the environment.

        Args:
            rows: sub-environments of the environment ``[k]``.

        Returns:
            Their observations ``[k, n_g, O_g]`` per group, or None where rows cannot be copied.
        """
        if not self._copier.provable():
            return None
        if not self._tested:
            self.compare_again()
        parts: list[dict[str, Tensor]] = []
        while len(rows) > 0:
            if self._next == self.size:
                self._observation = self._env._stack(self._simulator._reset())
                self._next = 0
                self.compare_again()
            if self._alike is None:
                self._alike = not self._copier.shared_state_differs()
            if not self._alike and not self._tested:
                return None
            count = min(len(rows), self.size - self._next)
            now, rows = rows[:count], rows[count:]
            source = torch.arange(self._next, self._next + count, device=now.device)
            if not self._copier.copy(now, source):
                return None
            self._next += count
            if self._alike:
                parts.append({g: o.index_select(0, source) for g, o in self._observation.items()})
            else:
                parts.append(self._env._look(now))
        return {group: torch.cat([part[group] for part in parts]) for group in parts[0]}

    def state_dict(self) -> dict[str, Any]:
        """The simulator with the rows that are left, as tensors and plain values."""
        return {
            "simulator": graph.save(self._simulator.scenario),
            "next": self._next,
            "alike": self._alike,
            "observation": {group: value.clone() for group, value in self._observation.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        graph.load(self._simulator.scenario, state["simulator"])
        self._next = state["next"]
        device = self._env.device
        self._observation = {g: o.to(device, copy=True) for g, o in state["observation"].items()}
        # kept, not found anew: observations from either simulator may differ in their last bits
        self._alike = state["alike"]


def _first_step(simulator: Environment) -> None:
    """One step with zero actions: some attributes exist only after it."""
    for agent in simulator.agents:
        size = simulator.get_agent_action_size(agent)
        dtype = torch.float32 if simulator.continuous_actions else torch.int64
        action = torch.zeros(simulator.num_envs, size, dtype=dtype, device=simulator.device)
        simulator._set_action(action, agent)
    for agent in simulator.world.agents:
        simulator.scenario.env_process_action(agent)
    simulator.scenario.pre_step()
    simulator.world.step()
    simulator.scenario.post_step()
    simulator._get_from_scenario(
        get_observations=True, get_rewards=True, get_infos=False, get_dones=True
    )


# ---------------------------------------------------------------------- agents
def _name(agent: Agent) -> str:
    return str(agent.name).replace(" ", "_")


def _team_of(agent: Agent, scenario: BaseScenario) -> str:
    if hasattr(scenario, "red_agents"):  # football, whose agents carry no adversary flag
        return "red" if agent in scenario.red_agents else "blue"
    return "adversaries" if agent.adversary else "good"


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


def _group_names(classes: list[list[str]]) -> list[str]:
    """One name per class of agents: what the members' names have in common, or numbers."""
    if len(classes) == 1:
        return ["agents"]
    stems = [{re.sub(r"_?\d+$", "", name) for name in names} for names in classes]
    if all(len(s) == 1 for s in stems) and len(set().union(*stems)) == len(classes):
        return [stem.pop() for stem in stems]
    return [f"agents_{i}" for i in range(len(classes))]


def _action_spec(space: Any, shape: torch.Size, device: torch.device | None) -> TensorSpec:
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


# ---------------------------------------------------------------------- global random states
def _draws_elsewhere(cls: type[BaseScenario]) -> bool:
    """Whether a scenario may draw from numpy's or Python's generator.

    Judged by whether a module that it is defined in holds either: swapping them costs 130 us.
    """
    import random
    import sys

    return any(
        value is np or value is np.random or value is random
        for parent in cls.__mro__[:-1]
        for value in vars(sys.modules.get(parent.__module__, object)).values()
    )


def _global_states() -> list[Any]:
    import random

    return [torch.random.get_rng_state(), np.random.get_state(), random.getstate()]


def _set_global_states(states: list[Any]) -> None:
    import random

    torch.random.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
