"""Small teams for tests: specs, random batches, environments whose every number is known."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    OneHot,
    Unbounded,
)
from torchrl.envs import EnvBase

from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec


def agent(
    name: str, group: str, index: int, observation: int, low: list[float], high: list[float]
) -> AgentSpec:
    space = ActionSpace("continuous", tuple(low), tuple(high))
    return AgentSpec(name, group, index, (observation,), space)


# Unequal spaces, asymmetric bounds, and an order of the team that is not the groups'.
UNEQUAL = TeamSpec(
    (
        agent("left", "legs", 0, 3, [-1.0, 0.0], [1.0, 5.0]),
        agent("body", "body", 0, 4, [-0.4], [0.4]),
        agent("right", "legs", 1, 3, [-1.0, 0.0], [1.0, 5.0]),
    ),
    state_dim=5,
)
STATELESS = TeamSpec(UNEQUAL.agents, None)
ALONE = TeamSpec((agent("solo", "agents", 0, 3, [-1.0, 0.0], [1.0, 5.0]),), 3)
# Every kind of action in one team, whose order is again not the groups'.
MIXED = TeamSpec(
    (
        AgentSpec("panel_0", "panel", 0, (4,), ActionSpace("multi_discrete", choices=(3, 2))),
        agent("arm", "arm", 0, 3, [-1.0, 0.0], [1.0, 5.0]),
        AgentSpec("valve", "valve", 0, (2,), ActionSpace("discrete", choices=(4,))),
        AgentSpec("panel_1", "panel", 1, (4,), ActionSpace("multi_discrete", choices=(3, 2))),
    ),
    state_dim=5,
)


def batch(
    spec: TeamSpec,
    size: int = 8,
    *,
    deaths: bool = False,
    masks: bool = False,
    dtype: torch.dtype = torch.float32,
) -> TensorDict:
    """A replay batch ``[size]`` of random numbers, actions within bounds and legal.

    With ``masks`` half of the choices are illegal, and all of a dead agent's.
    """

    def observed() -> dict[str, Any]:
        values: dict[str, Any] = {}
        for group, members in spec.groups.items():
            shape = spec.agents[members[0]].observation_shape
            entry = {"observation": torch.randn(size, len(members), *shape, dtype=dtype)}
            if deaths:
                entry["alive"] = torch.rand(size, len(members), 1) < 0.6
            choices = spec.agents[members[0]].action.choices
            if masks and choices:
                parts = [torch.rand(size, len(members), k) < 0.5 for k in choices]
                for part in parts:  # one of them stays
                    part.scatter_(-1, torch.randint(part.shape[-1], (size, len(members), 1)), True)
                mask = torch.cat(parts, -1)
                entry["action_mask"] = mask & entry["alive"] if deaths else mask
            values[group] = entry
        if spec.state_dim is not None:
            values["state"] = torch.randn(size, spec.state_dim, dtype=dtype)
        return values

    root = observed()
    for group, members in spec.groups.items():
        space = spec.agents[members[0]].action
        if space.choices:
            shares = torch.rand(size, len(members), space.width)
            legal = root[group].get("action_mask", torch.ones_like(shares)).to(shares)
            parts = (shares * legal).split(list(space.choices), -1)
            index = torch.stack([part.argmax(-1) for part in parts], -1)
            root[group]["action"] = space.write(index)
            continue
        low, high = torch.tensor(space.low, dtype=dtype), torch.tensor(space.high, dtype=dtype)
        share = torch.rand(size, len(members), space.dim, dtype=dtype)
        root[group]["action"] = low + (high - low) * share
    following = observed() | {
        "reward": torch.randn(size, 1, dtype=dtype),
        "terminated": torch.rand(size, 1) < 0.4,
    }
    steps = torch.randint(1, 4, (size, 1))
    return TensorDict(root | {"next": following, "steps_to_next_obs": steps}, [size])


class CountingEnv(EnvBase):
    """Two unequal agents; every number in it says which episode and step it belongs to.

    Observations and state count steps; the reward is a function of the actions where ``game`` is
    given, else 1 per step. Episodes end after ``max_steps`` steps, by truncation or, with
    ``terminates``, termination.
    """

    def __init__(
        self,
        *,
        num_envs: int = 2,
        seed: int = 0,
        device: Any = "cpu",
        max_steps: int = 5,
        terminates: bool = False,
        poison: str | None = None,
    ) -> None:
        super().__init__(device=device, batch_size=[num_envs])
        self.group_map = {"wide": ["wide"], "narrow": ["narrow"]}
        self.agent_names = ["wide", "narrow"]
        self.max_steps, self.terminates, self.poison = max_steps, terminates, poison
        batch = torch.Size([num_envs])
        self.observation_spec = Composite(
            wide=Composite(observation=Unbounded((*batch, 1, 3)), shape=(*batch, 1)),
            narrow=Composite(observation=Unbounded((*batch, 1, 2)), shape=(*batch, 1)),
            state=Unbounded((*batch, 2)),
            shape=batch,
        )
        self.action_spec = Composite(
            wide=Composite(action=Bounded(-2.0, 1.0, (*batch, 1, 2)), shape=(*batch, 1)),
            narrow=Composite(action=Bounded(-1.0, 1.0, (*batch, 1, 1)), shape=(*batch, 1)),
            shape=batch,
        )
        self.reward_spec = Unbounded((*batch, 1))
        flags = ("done", "terminated", "truncated")
        self.done_spec = Composite(
            {name: Categorical(2, shape=(*batch, 1), dtype=torch.bool) for name in flags},
            shape=batch,
        )
        self.total = 0
        self._step_count = torch.zeros(num_envs, 1)
        self._episode = torch.zeros(num_envs, 1)
        self.set_seed(seed)

    def _set_seed(self, seed: int | None) -> None:
        self._random = torch.Generator().manual_seed(seed or 0)

    def _observe(self) -> dict[str, Any]:
        at = torch.cat([self._episode, self._step_count], -1) / 10
        return {
            "wide": {"observation": torch.nn.functional.pad(at, (0, 1), value=1.0)[:, None]},
            "narrow": {"observation": at[:, None].clone()},
            "state": at.clone(),
        }

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        rows = torch.ones_like(self._step_count, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict.keys():
            rows = tensordict["_reset"].reshape(rows.shape)
        self._episode = self._episode + rows
        self._step_count = torch.where(rows, 0.0, self._step_count)
        never = torch.zeros_like(rows)
        flags = {"done": never, "terminated": never.clone(), "truncated": never.clone()}
        return TensorDict(self._observe() | flags, self.batch_size)

    def reward(self, wide: Tensor, narrow: Tensor) -> Tensor:
        """``[N, 1]`` of actions ``[N, 2]`` and ``[N, 1]``."""
        return torch.ones_like(narrow)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.total += self.batch_size[0]
        self._step_count = self._step_count + 1
        ended = self._step_count >= self.max_steps
        never = torch.zeros_like(ended)
        values = self._observe() | {
            "reward": self.reward(
                tensordict["wide", "action"][:, 0], tensordict["narrow", "action"][:, 0]
            ),
            "done": ended,
            "terminated": ended if self.terminates else never,
            "truncated": never if self.terminates else ended,
        }
        if self.poison is not None and self.total > 100:
            values[self.poison]["observation"][-1, 0, 1] = float("nan")
        return TensorDict(values, self.batch_size)

    def runtime_state(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "step": self._step_count.clone(),
            "episode": self._episode.clone(),
            "random": self._random.get_state(),
        }

    def load_runtime_state(self, state: dict[str, Any]) -> None:
        self.total = state["total"]
        self._step_count, self._episode = state["step"].clone(), state["episode"].clone()
        self._random.set_state(state["random"])


class GameEnv(CountingEnv):
    """One step: the team gets −(w₀−.5)² −(w₁+1)² −(n−.3)² −(w₀+n−.2)², best at (.3, −1, .1)."""

    BEST = (0.3, -1.0, 0.1)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"max_steps": 1, "terminates": True})

    def _observe(self) -> dict[str, Any]:
        values = super()._observe()
        return {
            "wide": {"observation": torch.ones_like(values["wide"]["observation"])},
            "narrow": {"observation": torch.ones_like(values["narrow"]["observation"])},
            "state": torch.ones_like(values["state"]),
        }

    def reward(self, wide: Tensor, narrow: Tensor) -> Tensor:
        w0, w1 = wide.split(1, -1)
        return -(
            (w0 - 0.5).square()
            + (w1 + 1).square()
            + (narrow - 0.3).square()
            + (w0 + narrow - 0.2).square()
        )


class HybridEnv(EnvBase):
    """Five agents of every kind of action, with masks, deaths, and noise of its own stream.

    ======== ========================== ====================== ===============
    group    agents                     action                 mask
    ======== ========================== ====================== ===============
    arm      arm_0, arm_1               continuous, 2 numbers  none
    valve    valve                      discrete, 4 choices    4
    panel    panel_0, panel_1           multi-discrete, 3 × 2  3 + 2
    ======== ========================== ====================== ===============

    The team's order is not the groups'. Every step each choice of a living agent is illegal with
    probability one half, at least one per component stays; a dead agent has no legal choice. A
    living agent's illegal action is an error. Sub-environment i is cut off after
    ``max_steps + i`` steps, and terminates when nobody lives.

    Args:
        death_rate: probability per step and agent.
        one_hot: choices as one-hot vectors instead of indices.
        state: whether there is a global one.
    """

    GROUPS: ClassVar = {"arm": 2, "valve": 1, "panel": 2}
    CHOICES: ClassVar = {"valve": (4,), "panel": (3, 2)}
    OBSERVATION: ClassVar = {"arm": 3, "valve": 2, "panel": 4}
    STATE = 6

    def __init__(
        self,
        *,
        num_envs: int = 3,
        seed: int = 0,
        device: Any = "cpu",
        max_steps: int = 5,
        death_rate: float = 0.15,
        one_hot: bool = False,
        state: bool = True,
    ) -> None:
        super().__init__(device=device, batch_size=[num_envs])
        self.max_steps, self.death_rate, self.one_hot = max_steps, death_rate, one_hot
        self.group_map = {
            "arm": ["arm_0", "arm_1"],
            "valve": ["valve"],
            "panel": ["panel_0", "panel_1"],
        }
        self.agent_names = ["arm_0", "panel_0", "valve", "arm_1", "panel_1"]
        size = torch.Size([num_envs])
        observed, actions = {}, {}
        for group, n in self.GROUPS.items():
            entries: dict[str, Any] = {
                "observation": Unbounded((*size, n, self.OBSERVATION[group])),
                "alive": Binary(1, (*size, n, 1), dtype=torch.bool),
            }
            if group in self.CHOICES:
                width = sum(self.CHOICES[group])
                entries["action_mask"] = Binary(width, (*size, n, width), dtype=torch.bool)
            observed[group] = Composite(entries, shape=(*size, n))
            actions[group] = Composite(
                action=self._action_spec(group, (*size, n)), shape=(*size, n)
            )
        if state:
            observed["state"] = Unbounded((*size, self.STATE))
        self.observation_spec = Composite(observed, shape=size)
        self.action_spec = Composite(actions, shape=size)
        self.reward_spec = Unbounded((*size, 1))
        flags = ("done", "terminated", "truncated")
        self.done_spec = Composite(
            {name: Categorical(2, shape=(*size, 1), dtype=torch.bool) for name in flags},
            shape=size,
        )
        self._state = torch.zeros(num_envs, self.STATE)
        self._steps = torch.zeros(num_envs, 1)
        self._alive = {g: torch.ones(num_envs, n, 1).bool() for g, n in self.GROUPS.items()}
        self._masks: dict[str, Tensor] = {}
        self._limit = max_steps + torch.arange(num_envs)[:, None]
        self.set_seed(seed)

    def _action_spec(self, group: str, shape: tuple[int, ...]) -> Any:
        if group == "arm":
            low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0])
            return Bounded(low.expand(*shape, 2), high.expand(*shape, 2))
        choices = self.CHOICES[group]
        if len(choices) == 1:
            if self.one_hot:
                return OneHot(choices[0], shape=(*shape, choices[0]))
            return Categorical(choices[0], shape=shape)
        if self.one_hot:
            return MultiOneHot(list(choices), shape=(*shape, sum(choices)))
        return MultiCategorical(list(choices), shape=(*shape, len(choices)))

    def _set_seed(self, seed: int | None) -> None:
        self._random = torch.Generator().manual_seed(seed or 0)

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self._random)

    def _observe(self, rows: Tensor | None = None) -> dict[str, Any]:
        """What everybody sees; with new masks in ``rows [N, 1]``, None: everywhere."""
        values: dict[str, Any] = {}
        for group, n in self.GROUPS.items():
            seen = [self._state.roll(i, -1)[:, : self.OBSERVATION[group]] for i in range(n)]
            values[group] = {"observation": torch.stack(seen, 1), "alive": self._alive[group]}
            if group in self.CHOICES:
                parts = []
                for count in self.CHOICES[group]:
                    part = self._rand(self.batch_size[0], n, count) < 0.5
                    part.scatter_(-1, self._rand(*part.shape).argmax(-1, keepdim=True), True)
                    parts.append(part)
                mask = torch.cat(parts, -1) & self._alive[group]
                if rows is not None and group in self._masks:
                    mask = torch.where(rows[:, None], mask, self._masks[group])
                self._masks[group] = mask
                values[group]["action_mask"] = self._masks[group]
        if "state" in self.observation_spec.keys():
            values["state"] = self._state
        return TensorDict(values, self.batch_size).clone().to_dict()

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        rows = torch.ones_like(self._steps, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict.keys():
            rows = tensordict["_reset"].reshape(rows.shape)
        self._state = torch.where(rows, 2 * self._rand(*self._state.shape) - 1, self._state)
        self._steps = torch.where(rows, 0.0, self._steps)
        self._alive = {g: a | rows[:, None] for g, a in self._alive.items()}
        never = torch.zeros_like(rows)
        flags = {"done": never, "terminated": never.clone(), "truncated": never.clone()}
        return TensorDict(self._observe(rows) | flags, self.batch_size)

    def _effect(self, group: str, action: Tensor) -> Tensor:
        """One number per agent ``[N, n_g]``; checks that living agents act legally."""
        if group == "arm":
            return action.sum(-1)
        choices = self.CHOICES[group]
        if self.one_hot:
            assert action.dtype == torch.bool, action.dtype
            hot = action
        else:
            indices = action.reshape(*action.shape[:2], len(choices)).unbind(-1)
            pairs = zip(indices, choices, strict=True)
            hot = torch.cat([torch.nn.functional.one_hot(a, k) for a, k in pairs], -1).bool()
        assert (hot.sum(-1) == len(choices)).all()
        illegal = (hot & ~self._masks[group]).any(-1) & self._alive[group].squeeze(-1)
        assert not illegal.any(), f"an illegal action of {group}"
        return (hot * torch.linspace(-1, 1, hot.shape[-1])).sum(-1)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        effect = [
            self._effect(g, tensordict[g, "action"]) * self._alive[g][..., 0] for g in self.GROUPS
        ]
        joint = torch.cat(effect, -1)
        reward = (
            self._state.sum(-1, keepdim=True)
            + joint.prod(-1, keepdim=True)
            - joint.square().mean(-1, keepdim=True)
        )
        noise = 2 * self._rand(*self._state.shape) - 1
        self._state = 0.7 * self._state + 0.3 * noise + 0.1 * joint.mean(-1, keepdim=True)
        self._steps = self._steps + 1
        for group, alive in self._alive.items():
            self._alive[group] = alive & (self._rand(*alive.shape) >= self.death_rate)
        terminated = ~torch.cat([a[..., 0] for a in self._alive.values()], -1).any(-1, keepdim=True)
        truncated = (self._steps >= self._limit) & ~terminated
        return TensorDict(
            self._observe()
            | {
                "reward": reward,
                "done": terminated | truncated,
                "terminated": terminated,
                "truncated": truncated,
            },
            self.batch_size,
        )

    def runtime_state(self) -> dict[str, Any]:
        values = {"state": self._state, "steps": self._steps}
        groups = {"alive": self._alive, "masks": self._masks}
        copies = {k: {g: v.clone() for g, v in d.items()} for k, d in groups.items()}
        own = {k: v.clone() for k, v in values.items()}
        return own | copies | {"random": self._random.get_state()}

    def load_runtime_state(self, state: dict[str, Any]) -> None:
        self._state, self._steps = state["state"].clone(), state["steps"].clone()
        self._alive = {g: v.clone() for g, v in state["alive"].items()}
        self._masks = {g: v.clone() for g, v in state["masks"].items()}
        self._random.set_state(state["random"])
