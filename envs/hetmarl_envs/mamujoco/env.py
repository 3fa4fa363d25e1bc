"""Multi-agent MuJoCo as a batched TorchRL environment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from hetmarl_envs.errors import ConfigError
from hetmarl_envs.mamujoco.factorization import Division
from hetmarl_envs.mamujoco.rendering import Renderer
from hetmarl_envs.mamujoco.simulator import Array
from hetmarl_envs.mamujoco.team import Team, default_threads, make_scenario
from hetmarl_envs.options import check, whole
from hetmarl_envs.rows import done_spec, picture_of


class MAMuJoCoEnv(EnvBase):
    """One MuJoCo body moved by a team of agents, ``num_envs`` of them stepped together.

    Observations, state, reward, termination and truncation are those of
    ``gymnasium_robotics.mamujoco_v1`` (on gymnasium's version 5 environments), in float32. Agents
    with equal spaces share a group, called ``agents``; where spaces differ, the groups are
    ``agents_0``, ``agents_1``, ... in the order of their first agents.

    ==============================  ==================  =====================================
    key                             shape               meaning
    ==============================  ==================  =====================================
    ``(group, "observation")``      ``[N, n_g, O_g]``   what each agent sees
    ``(group, "action")``           ``[N, n_g, A_g]``   controls, in the actuators' own range
    ``"state"``                     ``[N, S]``          what gymnasium's single agent observes
    ``("next", "reward")``          ``[N, 1]``          the team's reward
    ``("next", "terminated")``      ``[N, 1]``          the body fell (or whatever ends it)
    ``("next", "truncated")``       ``[N, 1]``          ``max_episode_steps`` are over
    ==============================  ==================  =====================================

    Args:
        scenario: such as ``"HalfCheetah"``, see ``tasks.SCENARIOS``.
        factorization: such as ``"2x3"``: a native one, ``"1"`` for one agent that sees and moves
            everything, or ``"NxM"`` for N agents of M consecutive joints.
        num_envs: bodies stepped together, N.
        seed: of all starting states.
        device: where the tensors are; the simulation itself runs on the CPU.
        observability: ``"partial"``, or ``"full"`` as in the HARL papers: every agent sees the
            whole state and its one-hot number, every such vector (and ``"state"``) standardised.
        agent_obsk: distance in joints up to which an agent sees (partial only).
        partition: joint names of each agent, in place of ``factorization``.
        local_categories: quantities seen at distance 0, 1, ..., such as ``[["qpos", "qvel"],
            ["qpos"]]``; default: the scenario's.
        global_categories: quantities of the root that everyone sees; default: qpos and qvel.
        repair_graph: let agents of ManySegmentAnt and CoupledHalfCheetah see and move their own
            joints where the reference points them to others.
        max_episode_steps: time limit in steps; default: gymnasium's, 1000 but for Reacher (50) and
            Pusher (100).
        num_threads: threads that step the simulations; default: all cores, at most one per four
            simulations.
        **scenario_options: weights, healthy ranges and noise, named as in gymnasium.

    Raises:
        UnknownNameError: no such scenario or factorization.
        ConfigError: an option is unknown, of the wrong type or out of range.
    """

    batch_locked = True

    def __init__(
        self,
        scenario: str,
        factorization: str,
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        observability: Literal["partial", "full"] = "partial",
        agent_obsk: int = 1,
        partition: Sequence[Sequence[str]] | None = None,
        local_categories: Sequence[Sequence[str]] | None = None,
        global_categories: Sequence[str] | None = None,
        repair_graph: bool = False,
        max_episode_steps: int | None = None,
        num_threads: int | None = None,
        **scenario_options: Any,
    ) -> None:
        check("", "num_envs", num_envs, whole(1))
        threads = default_threads(num_envs) if num_threads is None else num_threads
        check("", "num_threads", threads, whole(1))
        check("", "seed", seed, whole())
        if observability not in ("partial", "full"):
            raise ConfigError(f"observability='{observability}': expected 'partial' or 'full'.")
        division = Division(
            scenario,
            factorization,
            partition,
            agent_obsk,
            local_categories,
            global_categories,
            repair_graph,
        )
        rules = make_scenario(scenario, scenario_options, _shared_options())
        self.max_steps = rules.max_episode_steps if max_episode_steps is None else max_episode_steps
        check("", "max_episode_steps", self.max_steps, whole(1))
        place = torch.device("cpu" if device is None else device)
        super().__init__(device=place, batch_size=torch.Size([num_envs]))
        self.scenario, self.num_envs = scenario, num_envs
        self._team = Team(
            rules,
            division,
            num_envs=num_envs,
            num_threads=threads,
            full=observability == "full",
            device=self.device,
        )
        self.agent_names = [f"agent_{i}" for i in range(self._team.num_agents)]
        self.group_map = {
            name: [self.agent_names[i] for i in group.members]
            for name, group in self._team.groups.items()
        }
        self._elapsed = np.zeros(num_envs, np.int64)
        self._renderers: dict[tuple[int, int], Renderer] = {}
        self._make_specs()
        self.set_seed(seed)

    def _make_specs(self) -> None:
        n, device = self.num_envs, self.device
        observations: dict[str, Composite] = {}
        actions: dict[str, Composite] = {}
        for name, group in self._team.groups.items():
            shape = (n, len(group.members))
            seen = Unbounded((*shape, group.observation_dim), device=device)
            action_shape = (*shape, len(group.low))
            moves = Bounded(
                low=group.low.expand(action_shape).clone(),
                high=group.high.expand(action_shape).clone(),
                shape=action_shape,
                device=device,
                dtype=torch.float32,
            )
            observations[name] = Composite(observation=seen, shape=shape, device=device)
            actions[name] = Composite(action=moves, shape=shape, device=device)
        state = Unbounded((n, self._team.state_dim), device=device)
        self.observation_spec = Composite(
            {**observations, "state": state}, shape=(n,), device=device
        )
        self.action_spec = Composite(actions, shape=(n,), device=device)
        self.reward_spec = Composite(
            reward=Unbounded((n, 1), device=device), shape=(n,), device=device
        )
        self.done_spec = done_spec(n, device)

    # ------------------------------------------------------------------ TorchRL's hooks
    def _set_seed(self, seed: int | None) -> None:
        self._rng = np.random.default_rng(seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        rows = None if mask is None else mask.reshape(self.num_envs).cpu().numpy()
        self._team.reset(self._rng, rows)
        self._elapsed[slice(None) if rows is None else rows] = 0
        source = self._observations()
        for key in ("done", "terminated", "truncated"):
            source[key] = torch.zeros(self.num_envs, 1, dtype=torch.bool, device=self.device)
        return TensorDict(source, self.batch_size, self.device)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        for name, group in self._team.groups.items():
            self._team.write_action(group, tensordict.get((name, "action")).detach().cpu().numpy())
        reward, ended = self._team.step()
        self._elapsed += 1
        late = self._elapsed >= self.max_steps
        source = self._observations()
        source["reward"] = self._column(reward.astype(np.float32))
        source["truncated"] = self._column(late)
        if ended is None:
            source["terminated"] = torch.zeros_like(source["truncated"])
            source["done"] = source["truncated"].clone()
        else:
            source["terminated"] = self._column(ended)
            source["done"] = self._column(ended | late)
        return TensorDict(source, self.batch_size, self.device)

    def _step_proc_data(self, next_tensordict_out: TensorDictBase) -> TensorDictBase:
        # EnvBase looks for missing flags and wrong shapes here, at every step; ``_step`` writes all
        # of them, in the shapes of the specs.
        return next_tensordict_out

    def rand_action(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        """Writes uniformly random actions; a tenth of the time that the specs' ``rand`` takes."""
        if tensordict is None:
            tensordict = TensorDict({}, self.batch_size, self.device)
        for name, group in self._team.groups.items():
            action = torch.rand(
                self.num_envs, len(group.members), len(group.low), device=group.low.device
            )
            tensordict.set((name, "action"), action.mul_(group.high - group.low).add_(group.low))
        return tensordict

    def _column(self, values: Array) -> Tensor:
        column = torch.from_numpy(values).unsqueeze(1)
        return column if self._team.device.type == "cpu" else column.to(self._team.device)

    def _observations(self) -> dict[str, Any]:
        observations, state = self._team.observe()
        source: dict[str, Any] = {
            name: TensorDict({"observation": seen}, seen.shape[:2], self.device)
            for name, seen in observations.items()
        }
        source["state"] = state
        return source

    # ------------------------------------------------------------------ beside TorchRL
    @property
    def observation_index(self) -> dict[str, Tensor]:
        """What each observed number is, ``[n_g, O_g]``: see ``hetmarl_envs.observation_index``."""
        return self._team.observation_index

    def runtime_state(self) -> dict[str, Any]:
        """All that continuing bit-exactly needs, as tensors and plain values.

        Simulations (MuJoCo's integration state and the derived fields that observations and rewards
        read as the last step left them), step counters, random generator.
        """
        return {
            "scenario": self.scenario,
            "simulator": self._team.simulator.snapshot(),
            "elapsed": torch.from_numpy(self._elapsed.copy()),
            "rng": self._rng.bit_generator.state,
        }

    def load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what ``runtime_state`` returned, in an environment made alike.

        Raises:
            ConfigError: the state is that of another scenario, view or number of environments.
        """
        theirs = state["scenario"], len(state["elapsed"]), set(state["simulator"])
        ours = self.scenario, self.num_envs, set(self._team.simulator.snapshot())
        if theirs != ours:
            raise ConfigError(
                f"this state is of scenario '{theirs[0]}' with {theirs[1]} sub-environments and "
                f"{sorted(theirs[2])}; the environment is '{ours[0]}' with num_envs={ours[1]} and "
                f"{sorted(ours[2])}. Make it with the options that the saved one had."
            )
        self._team.simulator.restore(state["simulator"])
        self._elapsed[...] = state["elapsed"].cpu().numpy()
        self._rng = np.random.default_rng()
        self._rng.bit_generator.state = dict(state["rng"])

    def render(self, index: int | Sequence[int] = 0, height: int = 480, width: int = 480) -> Array:
        """A picture of sub-environment ``index``, uint8 ``[height, width, 3]``, drawn headless.

        Of a list of sub-environments one picture in a grid, each so large, see ``rows.picture_of``.
        """
        return picture_of(index, self.num_envs, lambda i: self._draw(i, height, width), "render")

    def _draw(self, index: int, height: int, width: int) -> Array:
        renderer = self._renderers.get((height, width))
        if renderer is None:
            camera = self._team.scenario.camera
            renderer = Renderer(self._team.simulator.model, camera, height, width)
            self._renderers[height, width] = renderer
        return renderer.render(self._team.simulator.state[index])

    def to(self, device: torch.device | str) -> MAMuJoCoEnv:
        """Moves the environment's tensors; the simulation stays on the CPU."""
        super().to(device)
        self._team.to(torch.device(device))
        return self

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Frees simulations, threads and renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self._team.close()
        super().close(raise_if_closed=raise_if_closed)


def _shared_options() -> list[str]:
    """Options that every scenario has."""
    parameters = inspect.signature(MAMuJoCoEnv.__init__).parameters.values()
    everywhere = ("num_envs", "seed", "device")
    keywords = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
    return [name for name in keywords if name not in everywhere]
