"""The data contract between environments and agents.

One *frame* is one step of one environment, all its agents. Batch axes come first, ``[*B]``; an
environment has ``[num_envs]``, a collected chunk ``[num_envs, T]``:

========================================  ==================  =====================================
key                                       shape               meaning
========================================  ==================  =====================================
``(group, "observation")``                ``[*B, n_g, O_g]``  what each agent of the group sees
``(group, "action")``                     ``[*B, n_g, A_g]``  in the layout below
``(group, "action_mask")``                ``[*B, n_g, K_g]``  optional, True where legal
``(group, "alive")``                      ``[*B, n_g, 1]``    optional, before acting; missing: True
``"state"``                               ``[*B, S]``         optional global state
``("info", name)``                        ``[*B, 1]``         optional, told of the episode so far;
                                                            means over episodes are logged
``("next", "reward")``                    ``[*B, 1]``         the team's reward
``("next", group, "reward")``             ``[*B, n_g, 1]``    optional individual rewards
``("next", "terminated"|"truncated")``    ``[*B, 1]``         a time limit is always truncation
``("next", "done")``                      ``[*B, 1]``         terminated or truncated
========================================  ==================  =====================================

Actions stand in the layout of TorchRL's spec: real numbers ``[*B, n_g, A]`` (``Bounded``), one
choice ``[*B, n_g]`` (``Categorical``) or ``[*B, n_g, K]`` (``OneHot``), several ``[*B, n_g, D]``
(``MultiCategorical``) or ``[*B, n_g, ΣK_d]`` (``MultiOneHot``); one-hot ones are bool. A mask has
one entry per choice, the components of a multi-discrete action side by side. ``TeamSpec`` reads and
writes them all as ``[*B, D]``, real numbers or the choices' indices, so that nothing else knows of
layouts.

Agents with equal spaces share a *group*; agents with unequal ones are in different groups, so that
nothing is ever padded. ``("next", ...)`` holds the true final observation of a finished episode.

An environment whose agents see parts of one whole may say which observed number is which, by an
attribute ``observation_index`` (see ``hetmarl_envs.observation_index``): a replay then stores every
number once. One whose observations list things that are alike may say where, by an attribute
``entities`` (see ``hetmarl_envs.entities``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.nn.functional import one_hot
from torchrl.data import Bounded, Categorical, MultiCategorical, MultiOneHot, OneHot, TensorSpec
from torchrl.envs import EnvBase

from hetmarl_envs.entities import Entities, check_entities
from hetmarl_envs.errors import ContractError

ActionKind = Literal["continuous", "discrete", "multi_discrete"]


@dataclass(frozen=True)
class ActionSpace:
    """One agent's actions: ``kind`` and its bounds (continuous) or numbers of choices.

    ``one_hot``: the environment takes choices as one-hot vectors instead of indices.
    """

    kind: ActionKind
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    choices: tuple[int, ...] = ()
    one_hot: bool = False

    @property
    def dim(self) -> int:
        """Action dimensions: real numbers of a continuous action, components of a discrete one."""
        return len(self.low) if self.kind == "continuous" else len(self.choices)

    @property
    def width(self) -> int:
        """Numbers that describe an action to a network: real ones, or one per choice."""
        return len(self.low) if self.kind == "continuous" else sum(self.choices)

    def encode(self, action: Tensor) -> Tensor:
        """``[*B, D]`` to what a network reads, ``[*B, width]``: choices become one-hot vectors."""
        if self.kind == "continuous":
            return action
        parts = zip(action.unbind(-1), self.choices, strict=True)
        return torch.cat([one_hot(choice, count) for choice, count in parts], dim=-1)

    def read(self, stored: Tensor) -> Tensor:
        """One agent's action in the environment's layout to ``[*B, D]``."""
        if self.one_hot:
            parts = stored.split(list(self.choices), dim=-1)
            return torch.stack([part.to(torch.uint8).argmax(-1) for part in parts], dim=-1)
        return stored.unsqueeze(-1) if self.kind == "discrete" else stored

    def write(self, action: Tensor) -> Tensor:
        """The inverse of ``read``."""
        if self.one_hot:
            return self.encode(action).bool()  # as TorchRL's specs have it
        return action.squeeze(-1) if self.kind == "discrete" else action

    @classmethod
    def from_spec(cls, spec: TensorSpec, where: str) -> ActionSpace:
        """Reads a group's action spec ``[*B, n_g, A_g]`` at its first agent."""
        if isinstance(spec, Bounded) and spec.dtype.is_floating_point:
            low, high = (
                bound.expand(spec.shape).reshape(-1, *spec.shape[-2:]).cpu()
                for bound in (spec.space.low, spec.space.high)
            )
            if not (low == low[:1, :1]).all() or not (high == high[:1, :1]).all():
                raise _unequal(where, "bounds")
            return cls("continuous", tuple(low[0, 0].tolist()), tuple(high[0, 0].tolist()))
        # TorchRL's multi-discrete specs are subclasses of the discrete ones
        if isinstance(spec, MultiCategorical):
            nvec = torch.as_tensor(spec.nvec)
            nvec = nvec.reshape(-1, nvec.shape[-1])
            if not (nvec == nvec[:1]).all():
                raise _unequal(where, "choices")
            return cls("multi_discrete", choices=tuple(nvec[0].tolist()))
        if isinstance(spec, MultiOneHot):
            choices = tuple(int(box.n) for box in spec.space)
            return cls("multi_discrete", choices=choices, one_hot=True)
        if isinstance(spec, (OneHot, Categorical)):
            one_hot = isinstance(spec, OneHot)
            return cls("discrete", choices=(int(spec.space.n),), one_hot=one_hot)
        raise ContractError(
            f"{where}: action spec {type(spec).__name__} with dtype {spec.dtype} is not supported. "
            "Expected a bounded floating-point spec, Categorical, OneHot, MultiCategorical or "
            "MultiOneHot."
        )


def _unequal(where: str, what: str) -> ContractError:
    return ContractError(
        f"{where}: the agents of one group have different action {what}. Put agents with unequal "
        "spaces into different groups (env.group_map)."
    )


@dataclass(frozen=True)
class AgentSpec:
    """One agent: where its data stands, ``td[group, ...][..., index, :]``, and its spaces."""

    name: str
    group: str
    index: int
    observation_shape: tuple[int, ...]
    action: ActionSpace
    entities: tuple[Entities, ...] = ()
    """Blocks of the observation that list things alike."""


@dataclass(frozen=True)
class TeamSpec:
    """What networks, engines and algorithms know of an environment, and nothing else.

    The order of ``agents`` is *the* order of the team: joint observations, actions and
    log-probabilities are sequences in this order.
    """

    agents: tuple[AgentSpec, ...]
    state_dim: int | None = None
    state_entities: tuple[Entities, ...] = ()
    """Blocks of the state that list things alike."""

    # ------------------------------------------------------------------ construction
    @classmethod
    def from_env(cls, env: EnvBase) -> TeamSpec:
        """Reads the spec of an environment that keeps the data contract.

        Args:
            env: batched environment, ``batch_size [num_envs]``, with ``group_map``.

        Raises:
            ContractError: a group, key or space is missing or does not fit, and what to do.
        """
        group_map = getattr(env, "group_map", None)
        if not group_map:
            raise ContractError(
                f"{type(env).__name__} has no group_map. Expected a dict from group name to the "
                "names of its agents, such as {'agents': ['agent_0', 'agent_1']}."
            )
        observation_keys = set(env.observation_spec.keys(True, True))
        action_keys = set(env.full_action_spec_unbatched.keys(True, True))
        by_name: dict[str, AgentSpec] = {}
        listed: Mapping[str, Any] = getattr(env, "entities", None) or {}
        for group, names in group_map.items():
            key, action_key = (group, "observation"), (group, "action")
            if key not in observation_keys or action_key not in action_keys:
                raise ContractError(
                    f"group '{group}' of group_map lacks {key} or {action_key} in the specs; "
                    f"found observations {sorted(map(str, observation_keys))} and actions "
                    f"{sorted(map(str, action_keys))}."
                )
            shape = tuple(env.observation_spec[key].shape[env.batch_dims :])
            if not shape or shape[0] != len(names):
                raise ContractError(
                    f"{key} has shape {shape} after the batch, expected "
                    f"[{len(names)} agents, ...]: group_map['{group}'] = {list(names)}."
                )
            action = ActionSpace.from_spec(env.full_action_spec[action_key], str(action_key))
            blocks = listed.get(group, [()] * len(names))
            if len(blocks) != len(names):
                raise ContractError(
                    f"entities['{group}'] has blocks for {len(blocks)} agents, expected a sequence "
                    f"for each of the {len(names)} of group_map."
                )
            for index, name in enumerate(names):
                if name in by_name:
                    raise ContractError(
                        f"agent '{name}' stands twice in group_map, in '{by_name[name].group}' and "
                        f"'{group}'. Expected names that are unique in the team."
                    )
                size = torch.Size(shape[1:]).numel()
                num_choices = sum(action.choices)
                own = check_entities(tuple(blocks[index]), size, num_choices, f"'{name}'")
                by_name[name] = AgentSpec(name, group, index, shape[1:], action, own)
        order = list(getattr(env, "agent_names", None) or by_name)
        if sorted(order) != sorted(by_name):
            raise ContractError(
                f"agent_names {order} and the agents of group_map {sorted(by_name)} differ."
            )
        state_dim = None
        if "state" in observation_keys:
            state_dim = int(env.observation_spec["state"].shape[-1])
        of_state = tuple(listed.get("state", ()))
        most = max(sum(agent.action.choices) for agent in by_name.values())
        check_entities(of_state, state_dim or 0, most, "the state")
        for block in of_state:
            if block.count != len(group_map.get(block.name, range(block.count))):
                raise ContractError(
                    f"entities of the state: '{block.name}' are {block.count}, expected the "
                    f"{len(group_map[block.name])} agents of that group."
                )
        return cls(tuple(by_name[name] for name in order), state_dim, of_state)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for checkpoints; ``from_dict`` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TeamSpec:
        """The inverse of ``to_dict``."""

        def agent(entry: dict[str, Any]) -> AgentSpec:
            action = entry["action"]
            bounds = {name: tuple(action[name]) for name in ("low", "high", "choices")}
            space = ActionSpace(action["kind"], **bounds, one_hot=action["one_hot"])
            shape = tuple(entry["observation_shape"])
            own = entities(entry.get("entities", ()))
            return AgentSpec(entry["name"], entry["group"], entry["index"], shape, space, own)

        def entities(blocks: Iterable[dict[str, Any]]) -> tuple[Entities, ...]:
            return tuple(Entities(**block | {"choices": (*block["choices"],)}) for block in blocks)

        agents = tuple(agent(entry) for entry in values["agents"])
        return cls(agents, values["state_dim"], entities(values.get("state_entities", ())))

    # ------------------------------------------------------------------ the team
    @property
    def num_agents(self) -> int:
        return len(self.agents)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Agent names in team order."""
        return tuple(agent.name for agent in self.agents)

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Group name to the team positions of its agents, in the order of the group's axis."""
        members: dict[str, dict[int, int]] = {}
        for position, agent in enumerate(self.agents):
            members.setdefault(agent.group, {})[agent.index] = position
        return {group: tuple(m[i] for i in sorted(m)) for group, m in members.items()}

    @property
    def critic_dim(self) -> int:
        """Width of ``critic_input``: the state, or all observations side by side."""
        if self.state_dim is not None:
            return self.state_dim
        return sum(torch.Size(agent.observation_shape).numel() for agent in self.agents)

    # ------------------------------------------------------------------ reading a batch
    def observation(self, data: TensorDictBase, agent: int, key: str = "observation") -> Tensor:
        """Agent's observation ``[*B, O_i]``."""
        spec = self.agents[agent]
        return data.get((spec.group, key)).select(data.batch_dims, spec.index)

    def action(self, data: TensorDictBase, agent: int, key: str = "action") -> Tensor:
        """Agent's action ``[*B, D_i]``, real numbers or the choices' indices."""
        spec = self.agents[agent]
        stored = data.get((spec.group, key)).select(data.batch_dims, spec.index)
        return spec.action.read(stored)

    def action_mask(
        self, data: TensorDictBase, agent: int, key: str = "action_mask"
    ) -> Tensor | None:
        """Agent's legal choices ``[*B, ΣK_d]``, True where legal; None where all are."""
        spec = self.agents[agent]
        mask = data.get((spec.group, key), None)
        return None if mask is None else mask.select(data.batch_dims, spec.index).bool()

    def joint_action(self, data: TensorDictBase, key: str = "action") -> list[Tensor]:
        """All agents' actions in team order, each ``[*B, D_i]``."""
        return [self.action(data, agent, key) for agent in range(self.num_agents)]

    def alive(self, data: TensorDictBase, agent: int, key: str = "alive") -> Tensor | None:
        """Whether the agent lived before acting, ``[*B, 1]``; None where nobody dies."""
        spec = self.agents[agent]
        alive = data.get((spec.group, key), None)
        return None if alive is None else alive.select(data.batch_dims, spec.index)

    def critic_input(
        self, data: TensorDictBase, state: str = "state", observation: str = "observation"
    ) -> Tensor:
        """What a centralised critic sees, ``[*B, critic_dim]``.

        The global state, or where the environment has none every agent's observation.
        """
        if self.state_dim is not None:
            return data.get(state)
        groups = (data.get((group, observation)) for group in self.groups)
        return torch.cat([group.flatten(data.batch_dims) for group in groups], dim=-1)

    # ------------------------------------------------------------------ writing a batch
    def write_actions(
        self, data: TensorDictBase, actions: Sequence[Tensor], key: str = "action"
    ) -> TensorDictBase:
        """Writes ``actions`` (team order, each ``[*B, D_i]``) to ``(group, key)``."""
        for group in self.groups:
            data.set((group, key), self.group_action(group, actions))
        return data

    def group_action(self, group: str, actions: Sequence[Tensor]) -> Tensor:
        """A group's actions in the environment's layout, from the team's, each ``[*B, D_i]``."""
        members = self.groups[group]
        layout = [self.agents[i].action.write(actions[i]) for i in members]
        return torch.stack(layout, dim=actions[members[0]].ndim - 1)


def write_random_actions(
    data: TensorDictBase, spec: TeamSpec, generator: torch.Generator | None = None
) -> TensorDictBase:
    """Uniform actions within every agent's bounds or legal choices, written to ``data [*B]``.

    Where bounds are infinite: within ±1.
    """
    actions = []
    for i, agent in enumerate(spec.agents):
        space, observation = agent.action, spec.observation(data, i)
        if space.kind == "continuous":
            low, high = observation.new_tensor(space.low), observation.new_tensor(space.high)
            finite = (high - low).isfinite()
            begin, end = torch.where(finite, low, -1.0), torch.where(finite, high, 1.0)
            share = observation.new_empty(*data.batch_size, space.dim).uniform_(generator=generator)
            actions.append((begin + (end - begin) * share).clamp(low, high))
        else:
            drawn = observation.new_empty(*data.batch_size, space.width, dtype=torch.float32)
            drawn.uniform_(generator=generator)
            mask = spec.action_mask(data, i)
            if mask is not None:
                drawn = drawn.masked_fill(~mask, -1.0)
            parts = drawn.split(list(space.choices), dim=-1)
            actions.append(torch.stack([part.argmax(-1) for part in parts], dim=-1))
    return spec.write_actions(data, actions)
