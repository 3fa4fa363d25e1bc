"""What all games share: groups, specs, time limit, randomness, exact state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from hetmarl_envs.contract import ActionSpace
from hetmarl_envs.errors import ConfigError, ContractError
from hetmarl_envs.options import check, whole
from hetmarl_envs.rows import done_spec, flag


class GameEnv(EnvBase):
    """A team of ``n`` agents with equal observations, ``num_envs`` games played side by side.

    Agents with equal action spaces share a group: ``agents`` where all are alike, otherwise
    ``agents_0``, ``agents_1``, ... in the order of their first members. A subclass writes
    ``_begin``, ``_play`` and ``_look``, and keeps what changes during a game in ``self._memory``.

    Random numbers come from a generator of the environment's own that lives on the CPU, so that a
    seed means the same games on every device.

    Args:
        where: name of the task, for messages.
        spaces: action spaces of the agents in the team's order.
        observation_dim: numbers that each agent sees, O.
        state_dim: numbers of the global state, S.
        masked: whether discrete agents have an action mask.
        mortal: whether there is an alive mask.
        num_envs: games side by side, N.
        seed: of the environment's random numbers.
        device: where all tensors live.
        max_steps: time limit in steps (truncation), None for no limit.
    """

    batch_locked = True

    def __init__(
        self,
        where: str,
        spaces: Sequence[ActionSpace],
        observation_dim: int,
        state_dim: int,
        *,
        masked: bool = False,
        mortal: bool = False,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        max_steps: int | None = None,
    ) -> None:
        check(where, "num_envs", num_envs, whole(1))
        check(where, "seed", seed, whole(0))
        if max_steps is not None:
            check(where, "the time limit", max_steps, whole(1))
        place = torch.device("cpu" if device is None else device)
        super().__init__(device=place, batch_size=torch.Size([num_envs]))
        self.where, self.num_envs, self.max_steps = where, num_envs, max_steps
        self.spaces = tuple(spaces)
        self.agent_names = [f"agent_{i}" for i in range(len(self.spaces))]
        classes: dict[ActionSpace, list[int]] = {}
        for i, space in enumerate(self.spaces):
            classes.setdefault(space, []).append(i)
        names = [f"agents_{c}" for c in range(len(classes))] if len(classes) > 1 else ["agents"]
        self._members = dict(zip(names, classes.values(), strict=True))
        self.group_map = {g: [self.agent_names[i] for i in m] for g, m in self._members.items()}
        self._masked, self._mortal = masked, mortal
        self._make_specs(observation_dim, state_dim)
        self._memory: dict[str, Tensor] = {}
        self._steps = torch.zeros(num_envs, 1, dtype=torch.int64, device=self.device)
        self._set_seed(seed)

    def _make_specs(self, observation_dim: int, state_dim: int) -> None:
        n, device = self.num_envs, self.device
        observations, actions = {}, {}
        for group, members in self._members.items():
            shape = (n, len(members))
            space = self.spaces[members[0]]
            seen = Composite(
                observation=Unbounded((*shape, observation_dim), device=device), shape=shape
            )
            if self._mortal:
                seen["alive"] = flag((*shape, 1), device)
            if self._masked and space.kind == "discrete":
                seen["action_mask"] = flag((*shape, *space.choices), device)
            observations[group] = seen
            actions[group] = Composite(action=_action_spec(space, shape, device), shape=shape)
        state = Unbounded((n, state_dim), device=device)
        self.observation_spec = Composite(
            {**observations, "state": state}, shape=(n,), device=device
        )
        self.action_spec = Composite(actions, shape=(n,), device=device)
        self.reward_spec = Composite(
            reward=Unbounded((n, 1), device=device), shape=(n,), device=device
        )
        self.done_spec = done_spec(n, device)

    # ------------------------------------------------------------------ what a game writes
    @abstractmethod
    def _begin(self, rows: Tensor) -> None:
        """Starts new games in ``rows`` (bool ``[N]``), the others stay as they are."""

    @abstractmethod
    def _play(self, actions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """One step of all games.

        Args:
            actions: of the agents in the team's order, ``[N, A]`` floats or ``[N]`` numbers.

        Returns:
            The team's reward ``[N]`` and whether the game is over by its own rules ``[N]``.
        """

    @abstractmethod
    def _look(self) -> dict[str, Tensor]:
        """``observation [N, n, O]`` and ``state [N, S]``.

        With ``mortal`` also ``alive [N, n]``, with ``masked`` also ``action_mask [N, n, K]``.
        """

    def _uniform(self, *shape: int) -> Tensor:
        """Fresh uniform numbers ``[*shape]`` in [0, 1), float64."""
        drawn = torch.rand(shape, generator=self._random, dtype=torch.float64)
        return drawn.to(self.device)

    # ------------------------------------------------------------------ TorchRL's hooks
    def _set_seed(self, seed: int | None) -> None:
        self._random = torch.Generator().manual_seed(0 if seed is None else int(seed))

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        rows = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        if mask is not None:
            rows = mask.reshape(self.num_envs)
        self._steps = torch.where(rows.unsqueeze(-1), 0, self._steps)
        self._begin(rows)
        never = torch.zeros_like(self._steps, dtype=torch.bool)
        return self._output({"terminated": never, "truncated": never.clone()})

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        reward, over = self._play(self._read_actions(tensordict))
        self._steps = self._steps + 1
        terminated = over.unsqueeze(-1)
        late = torch.zeros_like(terminated)
        if self.max_steps is not None:
            late = self._steps >= self.max_steps
        values = {"terminated": terminated, "truncated": late}
        return self._output(values | {"reward": reward.float().unsqueeze(-1)})

    def _output(self, values: dict[str, Tensor]) -> TensorDictBase:
        look = self._look()
        source: dict[str, Any] = {**values, "done": values["terminated"] | values["truncated"]}
        source["state"] = look["state"].float()
        for group, members in self._members.items():
            seen = {"observation": look["observation"][:, members].float()}
            if self._mortal:
                seen["alive"] = look["alive"][:, members].unsqueeze(-1)
            if self._masked and self.spaces[members[0]].kind == "discrete":
                seen["action_mask"] = look["action_mask"][:, members]
            source[group] = TensorDict(seen, [self.num_envs, len(members)], self.device)
        return TensorDict(source, self.batch_size, self.device)

    def rand_action(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        """Writes uniformly random actions, legal ones where there is a mask."""
        tensordict = super().rand_action(tensordict)
        if self._masked:
            legal = self._look()["action_mask"].float()
            for group, members in self._members.items():
                if self.spaces[members[0]].kind == "discrete":
                    drawn = torch.multinomial(legal[:, members].flatten(0, 1), 1)
                    tensordict.set((group, "action"), drawn.reshape(self.num_envs, len(members)))
        return tensordict

    def _read_actions(self, tensordict: TensorDictBase) -> list[Tensor]:
        actions: list[Tensor] = [torch.empty(0)] * len(self.spaces)
        for group, members in self._members.items():
            action, space = tensordict.get((group, "action")), self.spaces[members[0]]
            if space.kind == "continuous":
                fits, expected = action.isfinite().all(), "finite numbers"
            else:
                fits = ((action >= 0) & (action < space.choices[0])).all()
                expected = f"whole numbers from 0 to {space.choices[0] - 1}"
            if not bool(fits):
                raise ContractError(
                    f"{self.where}: ({group!r}, 'action') holds {action.detach().cpu().tolist()}, "
                    f"expected {expected}."
                )
            for position, i in enumerate(members):
                actions[i] = action[:, position]
        return actions

    # ------------------------------------------------------------------ exact state
    def runtime_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, as tensors and plain values."""
        return {
            "task": self.where,
            "memory": {key: value.clone() for key, value in self._memory.items()},
            "steps": self._steps.clone(),
            "random": self._random.get_state(),
        }

    def load_runtime_state(self, state: dict[str, Any]) -> None:
        """Continues bit-exactly where ``runtime_state`` was taken, in an environment made alike.

        Raises:
            ConfigError: the state is of another task or another number of environments.
        """
        theirs = state["task"], len(state["steps"])
        if theirs != (self.where, self.num_envs):
            raise ConfigError(
                f"this state is of {theirs[0]} with num_envs={theirs[1]}; the environment is "
                f"{self.where} with num_envs={self.num_envs}. Make it as the saved one was made."
            )
        self._memory = {k: v.to(self.device, copy=True) for k, v in state["memory"].items()}
        self._steps = state["steps"].to(self.device, copy=True)
        self._random.set_state(state["random"].cpu())

    def to(self, device: torch.device | str) -> GameEnv:
        """Moves the environment and all that it holds."""
        super().to(device)
        self._memory = {key: value.to(self.device) for key, value in self._memory.items()}
        self._steps = self._steps.to(self.device)
        return self


def _action_spec(
    space: ActionSpace, shape: tuple[int, int], device: torch.device | None
) -> TensorSpec:
    if space.kind == "discrete":
        return Categorical(space.choices[0], shape, dtype=torch.int64, device=device)
    low, high = (
        torch.tensor(bound, device=device).expand(*shape, -1).clone()
        for bound in (space.low, space.high)
    )
    return Bounded(low, high, low.shape, dtype=torch.float32, device=device)
