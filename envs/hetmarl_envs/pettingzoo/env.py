"""PettingZoo's parallel environments as one batched TorchRL environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Composite, Unbounded
from torchrl.envs import EnvBase

from hetmarl_envs.errors import ConfigError, ContractError
from hetmarl_envs.options import SECONDS, check, choice, optional, whole
from hetmarl_envs.pettingzoo.layout import ParallelEnv, read_layout
from hetmarl_envs.pettingzoo.spaces import Array
from hetmarl_envs.pettingzoo.stepping import InProcess, Opponents
from hetmarl_envs.pettingzoo.workers import TIMEOUT, InWorkers, StartMethod
from hetmarl_envs.rows import done_spec, flag, picture_of, rows_to_reset

TeamReward = Literal["sum", "mean"]


class PettingZooEnv(EnvBase):
    """``num_envs`` parallel environments of PettingZoo, in this process or in workers.

    Agents with equal observation and action spaces share a group, unequal ones are in different
    groups; nothing is padded.

    ==============================  ==================  ============================================
    key                             shape               meaning
    ==============================  ==================  ============================================
    ``(group, "observation")``      ``[N, n, *O]``      float32, in the shape of the ``Box``; zeros
                                                        for an agent that is not there
    ``(group, "action")``           see below           ``Box``: ``[N, n, A]``, flat; ``Discrete``:
                                                        ``[N, n]``; ``MultiDiscrete``: ``[N, n, D]``
    ``(group, "action_mask")``      ``[N, n, K]``       where observation or info have one
    ``(group, "alive")``            ``[N, n, 1]``       False once an agent died or left
    ``"state"``                     ``[N, S]``          where the environment has ``state()``
    ``("info", name)``              ``[N, 1]``          those of ``info``
    ``("next", group, "reward")``   ``[N, n, 1]``       the agents' own rewards
    ``("next", "reward")``          ``[N, 1]``          the team's
    ==============================  ==================  ============================================

    **Ends.** PettingZoo ends agents one by one; here the episode ends when no agent of the team is
    left. It is *truncated* if an agent that went in that last step was truncated: it would have
    gone on, so that there is a value beyond, and such agents stay alive in ``"next"``. Otherwise it
    is *terminated*. Who left before, for whatever reason, is in no later state and does not matter.
    In the step in which an agent leaves its last observation is kept; afterwards it is zero, its
    reward 0, its action ignored, until the next reset.

    Args:
        make: makes one environment; called ``num_envs`` times. An environment that has
            ``runtime_state()`` and ``load_runtime_state(state)`` gives this one both, and with them
            exact resume.
        num_envs: sub-environments, N.
        seed: each sub-environment is given a seed of its own at its first reset, none later.
        device: where the tensors are; the environments compute on the CPU.
        team_reward: how the agents' rewards make the team's: ``"sum"``, or ``"mean"`` over the
            whole team, those who left counting 0. None: the reward that all who acted have in
            common; an error where they differ.
        team: names of the controlled agents; None: all. The others' observations, rewards and ends
            are left out.
        opponents: what the others do: ``"random"`` legal actions, uniform, or ``"still"`` (zeros,
            or the first legal choice).
        leaving: False where agents never leave before the episode ends: ``alive`` is then left out.
        kinds: agent's name to what must be equal, besides the spaces, for two to share a group.
        num_workers: processes among which the sub-environments are shared out, 0 for none. The
            numbers do not depend on it. Worth it where a step takes much longer than 0.1 ms.
        start_method: how workers are started: ``"spawn"``, ``"forkserver"``, or ``"fork"``, see
            ``InWorkers``.
        timeout: seconds after which workers count as hung that have not answered: a vector step, a
            reset, a resume or the start of all may take so long. None: for ever.
        state: False leaves ``state()`` out, as one that is a whole screen; critics then read every
            group's observations.
        info: names of numbers in the agents' infos that tell of the episode so far, each in one
            agent's or the same in several; their means over episodes are logged.
        name: what messages call the environment.

    Raises:
        ContractError: it is no parallel environment, or does not keep PettingZoo's rules.
        ConfigError: a setting is wrong.
    """

    batch_locked = True

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        team_reward: TeamReward | None = None,
        team: Sequence[str] | None = None,
        opponents: Opponents = "random",
        leaving: bool = True,
        kinds: Mapping[str, Any] | None = None,
        state: bool = True,
        info: Sequence[str] = (),
        num_workers: int = 0,
        start_method: StartMethod = "spawn",
        timeout: float | None = TIMEOUT,
        name: str | None = None,
    ) -> None:
        if not callable(make):
            raise ConfigError(
                f"make is a {type(make).__name__}, expected a function that makes an environment, "
                "such as lambda: parallel_env(max_cycles=100)."
            )
        self._where = name or f"pettingzoo/{getattr(make, '__name__', type(make).__name__)}"
        check(self._where, "num_envs", num_envs, whole(1))
        check(self._where, "team_reward", team_reward, choice((*get_args(TeamReward), None)))
        check(self._where, "opponents", opponents, choice(get_args(Opponents)))
        check(self._where, "start_method", start_method, choice(get_args(StartMethod)))
        if type(num_workers) is not int or not 0 <= num_workers <= num_envs:
            raise ConfigError(
                f"{self._where}: num_workers={num_workers!r}, expected 0 (none) to num_envs="
                f"{num_envs}."
            )
        check(self._where, "timeout", timeout, optional(SECONDS), " to wait for ever")
        place = torch.device("cpu" if device is None else device)
        super().__init__(device=place, batch_size=torch.Size([num_envs]))
        self.num_envs, self._team_reward, self._leaving = num_envs, team_reward, leaving
        envs: list[ParallelEnv] = [make() for _ in range(1 if num_workers else num_envs)]
        layout = read_layout(envs[0], self._where, team, kinds or {}, state, info)
        rules: Any = {"opponents": opponents, "leaving": leaving, "where": self._where}
        self._rows: InProcess | InWorkers
        if num_workers:
            envs[0].close()  # only asked for its layout
            self._rows = InWorkers(
                make,
                layout,
                num_envs=num_envs,
                num_workers=num_workers,
                start_method=start_method,
                timeout=timeout,
                **rules,
            )
        else:
            self._rows = InProcess(envs, layout, **rules)
        self.agent_names = layout.names
        self.group_map = {
            group: [layout.names[i] for i in members] for group, members in layout.groups.items()
        }
        methods = ("runtime_state", "load_runtime_state")
        if all(hasattr(env, method) for env in envs for method in methods):
            # only then: whoever lacks them cannot be resumed, and is told so
            self.runtime_state = self._runtime_state
            self.load_runtime_state = self._load_runtime_state
        self._started = False
        self._make_specs()
        self._set_seed(seed)

    def _make_specs(self) -> None:
        batch, device = self.batch_size, torch.device(self.device)
        rows, layout = self._rows, self._rows.layout
        observations, actions, rewards = Composite(), Composite(), Composite()
        for group, members in layout.groups.items():
            shape = torch.Size([*batch, len(members)])
            spaces = layout.team[members[0]].spaces
            seen = {"observation": Unbounded((*shape, *spaces.observation_shape), device=device)}
            if group in rows.mask:
                seen["action_mask"] = flag((*shape, spaces.width), device)
            if self._leaving:
                seen["alive"] = flag((*shape, 1), device)
            observations[group] = Composite(seen, shape=shape)
            actions[group] = Composite(action=spaces.spec(shape, device), shape=shape)
            rewards[group] = Composite(reward=Unbounded((*shape, 1), device=device), shape=shape)
        if layout.state_size is not None:
            observations["state"] = Unbounded((*batch, layout.state_size), device=device)
        if layout.info:
            told = {name: Unbounded((*batch, 1), device=device) for name in layout.info}
            observations["info"] = Composite(told, shape=batch)
        rewards["reward"] = Unbounded((*batch, 1), device=device)
        self.observation_spec = Composite(observations, shape=batch, device=device)
        self.action_spec = Composite(actions, shape=batch, device=device)
        self.reward_spec = Composite(rewards, shape=batch, device=device)
        self.done_spec = done_spec(self.num_envs, device)

    # ------------------------------------------------------------------ TorchRL's hooks
    def _set_seed(self, seed: int | None) -> None:
        self._rows.seed(0 if seed is None else int(seed) % 2**63)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        self._rows.reset(rows_to_reset(tensordict if self._started else None, self.num_envs))
        self._started = True
        return self._output()

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        groups = self._rows.layout.groups
        actions = {group: tensordict.get((group, "action")) for group in groups}
        self._rows.step({group: a.detach().cpu().numpy() for group, a in actions.items()})
        data = self._output()
        for group, members in groups.items():
            data[group].set("reward", self._tensor(self._rows.reward[:, members, None]))
        return data.set("reward", self._tensor(self._reward_of_the_team()))

    def _step_proc_data(self, next_tensordict_out: TensorDictBase) -> TensorDictBase:
        # EnvBase looks for missing flags and wrong shapes here, at every step; ``_step`` writes all
        # of them, in the shapes of the specs.
        return next_tensordict_out

    def rand_action(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        """Writes uniformly random actions, legal ones where ``tensordict`` holds masks."""
        data = super().rand_action(tensordict)
        if tensordict is None:
            return data
        for group, members in self._rows.layout.groups.items():
            mask = data.get((group, "action_mask"), None)
            if mask is not None:
                spaces = self._rows.layout.team[members[0]].spaces
                parts = mask.to(torch.float32).split(list(spaces.choices), dim=-1)
                drawn = [
                    torch.multinomial(part.flatten(0, -2), 1).reshape(part.shape[:-1])
                    for part in parts
                ]
                data.set((group, "action"), drawn[0] if spaces.single else torch.stack(drawn, -1))
        return data

    # ------------------------------------------------------------------ what a step gives
    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.device)

    def _output(self) -> TensorDictBase:
        rows = self._rows
        terminated, truncated = rows.terminated[:, None], rows.truncated[:, None]
        source: dict[str, Any] = {
            "terminated": self._tensor(terminated),
            "truncated": self._tensor(truncated),
            "done": self._tensor(terminated | truncated),
        }
        for group, members in rows.layout.groups.items():
            seen = {"observation": self._tensor(rows.observation[group])}
            if group in rows.mask:
                seen["action_mask"] = self._tensor(rows.mask[group])
            if self._leaving:
                seen["alive"] = self._tensor(rows.alive[:, members, None])
            source[group] = TensorDict(seen, (self.num_envs, len(members)), self.device)
        if rows.layout.state_size is not None:
            source["state"] = self._tensor(rows.state)
        if rows.layout.info:
            columns = zip(rows.layout.info, self._tensor(rows.info).unbind(-1), strict=True)
            told = {name: column.unsqueeze(-1) for name, column in columns}
            source["info"] = TensorDict(told, self.batch_size, self.device)
        return TensorDict(source, self.batch_size, self.device)

    def _reward_of_the_team(self) -> Array:
        """``[N, 1]`` from the agents' rewards ``[N, A]``."""
        reward, acted = self._rows.reward, self._rows.acted
        if self._team_reward == "sum":
            return reward.sum(axis=1, keepdims=True)
        if self._team_reward == "mean":
            return reward.mean(axis=1, keepdims=True)
        highest = reward.max(axis=1, where=acted, initial=-np.inf)
        lowest = reward.min(axis=1, where=acted, initial=np.inf)
        unequal = np.flatnonzero(highest > lowest)
        if unequal.size:
            given = reward[unequal[0]].tolist()
            raise ContractError(
                f"{self._where}: the agents {self.agent_names} have different rewards {given}. "
                "Pass team_reward='sum' or 'mean' to say how they make the team's, or team=[...] "
                "to control some of the agents only."
            )
        return np.where(acted.any(axis=1), highest, 0.0).astype(np.float32)[:, None]

    # ------------------------------------------------------------------ beside TorchRL
    def _runtime_state(self) -> dict[str, Any]:
        """Everything needed to continue bit-exactly, as tensors and plain values."""
        return {"started": self._started, "rows": self._rows.state_dict()}

    def _load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Continues where ``runtime_state`` was taken.

        Raises:
            ConfigError: the state is of another environment, or of another num_envs.
        """
        self._rows.load_state_dict(state["rows"])
        self._started = state["started"]

    def render(self, index: int | Sequence[int] = 0) -> Array:
        """A picture of sub-environment ``index``, uint8 ``[H, W, 3]``.

        Of a list of sub-environments one picture in a grid, see ``rows.picture_of``.

        Raises:
            ConfigError: no such sub-environment, or it gives no picture.
        """
        return picture_of(index, self.num_envs, self._draw, self._where)

    def _draw(self, index: int) -> Array:
        picture = self._rows.render(index)
        if not isinstance(picture, np.ndarray) or picture.ndim != 3:
            raise ConfigError(
                f"{self._where}: render() gave {type(picture).__name__}, expected a picture "
                "[H, W, 3]. Make the environment with render_mode='rgb_array'."
            )
        return np.ascontiguousarray(picture, dtype=np.uint8)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Closes every sub-environment, and ends the workers."""
        self._rows.close()
        super().close(raise_if_closed=raise_if_closed)
