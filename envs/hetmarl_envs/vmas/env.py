"""VMAS scenarios as one batched TorchRL environment (see ``VMASEnv``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Composite, Unbounded
from torchrl.envs import EnvBase

from hetmarl_envs.errors import ContractError
from hetmarl_envs.options import check, choice, whole
from hetmarl_envs.rows import done_spec, picture_of
from hetmarl_envs.vmas import graph
from hetmarl_envs.vmas.agents import Team, action_spec, choose_agents
from hetmarl_envs.vmas.options import check_scenario_options
from hetmarl_envs.vmas.randomness import PrivateRandomness, draws_elsewhere
from hetmarl_envs.vmas.resetting import FreshRows, fresh_size
from hetmarl_envs.vmas.scenarios import load_scenario
from hetmarl_envs.vmas.simulator import build_simulator, draw, first_step, step, still_action

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
        check(self._where, "max_steps", max_steps, whole(1))
        check(self._where, "num_envs", num_envs, whole(1))
        check(self._where, "actions", actions, choice(get_args(Actions)))
        check(self._where, "team_reward", team_reward, choice((*get_args(TeamReward), None)))
        check(self._where, "opponents", opponents, choice(get_args(Opponents)))
        device = torch.device("cpu" if device is None else device)
        super().__init__(device=device, batch_size=torch.Size([num_envs]))

        self.max_steps = max_steps
        self.num_envs = num_envs
        self._class, self._options, self._actions = cls, options, actions
        self._opponents = opponents
        self._randomness = PrivateRandomness(seed, device, draws_elsewhere(cls))
        with self._randomness:
            self._simulator = self._build(num_envs)
        chosen = choose_agents(self._simulator, team, self._where, together=team_reward is not None)
        self._team = Team(self._simulator, chosen, self._where)
        self._team_reward = team_reward or "mean"
        self.agent_names, self.group_map = self._team.names, self._team.group_map
        self._make_specs()
        self._steps = torch.zeros(num_envs, 1, dtype=torch.int64, device=device)
        self._observation: dict[str, Tensor] = {}
        self._fresh: FreshRows | None = None
        self._set_seed(seed)  # what building drew must not shift the first episode

    # ------------------------------------------------------------------ construction
    def _build(self, num_envs: int) -> Environment:
        return build_simulator(
            self._class,
            self._options,
            num_envs=num_envs,
            device=self.device,
            actions=self._actions,
            where=self._where,
        )

    def _make_specs(self) -> None:
        batch, device = self.batch_size, self.device
        observations, actions, rewards = Composite(), Composite(), Composite()
        for group, members in self._team.members.items():
            shape = torch.Size([*batch, len(members)])
            size = self._simulator.observation_space[self._team.positions[members[0]]].shape
            observations[group] = Composite(
                observation=Unbounded((*shape, *size), device=device), shape=shape
            )
            space = self._simulator.get_agent_action_space(self._team.agents[members[0]])
            actions[group] = Composite(action=action_spec(space, shape, self.device), shape=shape)
            rewards[group] = Composite(reward=Unbounded((*shape, 1), device=device), shape=shape)
        rewards["reward"] = Unbounded((*batch, 1), device=device)
        self.observation_spec = Composite(observations, shape=batch, device=device)
        self.action_spec = Composite(actions, shape=batch, device=device)
        self.reward_spec = Composite(rewards, shape=batch, device=device)
        self.done_spec = done_spec(self.num_envs, device)

    # ------------------------------------------------------------------ stepping
    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        with self._randomness, torch.no_grad():
            observations, rewards, ended = step(
                self._simulator, self._read_actions(tensordict), self._where
            )
            terminated = ended.reshape(self.num_envs, 1).bool().clone()
        self._steps = self._steps + 1
        truncated = self._steps >= self.max_steps
        team = torch.stack([rewards[i].float() for i in self._team.positions], dim=1)
        return self._output(
            self._team.stack(observations),
            reward=getattr(team, self._team_reward)(dim=1, keepdim=True),
            rewards=team,
            terminated=terminated,
            truncated=truncated,
        )

    def _read_actions(self, tensordict: TensorDictBase) -> list[Tensor]:
        """Actions of all agents of the simulator, in its order, each ``[num_envs, A]``."""
        chosen: dict[str, Tensor] = {}
        for group, members in self._team.members.items():
            action = tensordict.get((group, "action"))
            if self._actions == "discrete":
                action = action.unsqueeze(-1)
            for index, member in enumerate(members):
                chosen[self._team.agents[member].name] = action[:, index]
        return [
            chosen[agent.name] if agent.name in chosen else self._opponent_action(agent)
            for agent in self._simulator.agents
        ]

    def _opponent_action(self, agent: Agent) -> Tensor:
        if self._opponents == "still":
            return still_action(self._simulator, agent)
        space = self._simulator.get_agent_action_space(agent)
        action = action_spec(space, self.batch_size, torch.device(self.device)).rand()
        return action.unsqueeze(-1) if self._actions == "discrete" else action

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
        for group, members in self._team.members.items():
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
                observation = self._team.stack(self._simulator._reset())
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
        started = self._fresh_rows()
        fresh = started.deal(rows) or started.reset_one_by_one(rows)
        return {
            group: value.index_copy(0, rows, fresh[group])
            for group, value in self._observation.items()
        }

    def _fresh_rows(self) -> FreshRows:
        if self._fresh is None:
            # draws nothing from the environment's stream: an environment that has been built and
            # one that is given its seed later deal alike
            with self._randomness.another(0):
                simulator = self._build(fresh_size(self.num_envs))
                first_step(simulator, self._where)
            self._fresh = FreshRows(self._simulator, simulator, self._team)
        return self._fresh

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
                first_step(self._simulator, self._where)
        graph.load(self._simulator.scenario, state["simulator"])
        if state["fresh"] is None:
            self._fresh = None
        else:
            self._fresh_rows().load_state_dict(state["fresh"])
        self._steps = state["steps"].to(self.device, copy=True)
        self._observation = {
            group: value.to(self.device, copy=True) for group, value in state["observation"].items()
        }
        self._randomness.load_state_dict(state["randomness"])

    def render(self, index: int | Sequence[int] = 0) -> np.ndarray:
        """A picture of sub-environment ``index``, ``uint8 [H, W, 3]``, without a display.

        Of a list of sub-environments one picture in a grid, see ``rows.picture_of``.

        Raises:
            ConfigError: no such sub-environment.
            MissingExtraError: no OpenGL library to draw with; says what to install.
        """
        return picture_of(
            index, self.num_envs, lambda i: draw(self._simulator, i, self._where), self._where
        )

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Frees the drawing window."""
        if self._simulator.viewer is not None:
            self._simulator.viewer.close()
            self._simulator.viewer = None
        super().close(raise_if_closed=raise_if_closed)
