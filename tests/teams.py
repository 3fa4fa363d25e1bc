"""Small teams for tests: specs, random batches, environments whose every number is known."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, Unbounded
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


def batch(
    spec: TeamSpec, size: int = 8, *, deaths: bool = False, dtype: torch.dtype = torch.float32
) -> TensorDict:
    """A replay batch ``[size]`` of random numbers, actions within bounds."""

    def observed() -> dict[str, Any]:
        values: dict[str, Any] = {}
        for group, members in spec.groups.items():
            shape = spec.agents[members[0]].observation_shape
            entry = {"observation": torch.randn(size, len(members), *shape, dtype=dtype)}
            if deaths:
                entry["alive"] = torch.rand(size, len(members), 1) < 0.6
            values[group] = entry
        if spec.state_dim is not None:
            values["state"] = torch.randn(size, spec.state_dim, dtype=dtype)
        return values

    root = observed()
    for group, members in spec.groups.items():
        space = spec.agents[members[0]].action
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
