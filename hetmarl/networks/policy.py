"""The team's decentralised policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.data import Composite, Unbounded
from torchrl.envs import TensorDictPrimer
from torchrl.envs.utils import ExplorationType, exploration_type

from hetmarl.networks.body import HIDDEN, Memory, read_memory, start_memory
from hetmarl.networks.config import NetworkConfig
from hetmarl.networks.distributions import NoiseLike
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError

SAMPLE = "sample"
"""``(group, "sample") [*B, n_g, A_g]``: what was drawn, where the action is that clipped."""


def unit_parameters(actors: nn.ModuleList, unit: Sequence[int]) -> list[nn.Parameter]:
    """Those of a unit's actors, each once.

    Args:
        actors: the team's, in team order.
        unit: positions of those who share parameters, or of one.
    """
    return list(nn.ModuleList(actors[i] for i in unit).parameters())


class TeamPolicy(TensorDictModuleBase):
    """Everybody acts on their own observation, each with their own network.

    Reads ``(group, "observation") [*B, n_g, O_g]``, where there is one ``(group, "action_mask")``,
    and for recurrent actors ``("hidden", <agent>) [*B, H]`` and ``is_init [*B, 1]`` (both may be
    missing at the start); writes ``(group, "action")`` in the environment's layout, for Gaussian
    actors ``(group, "sample")``, what was drawn before clipping, and for recurrent ones
    ``("next", "hidden", <agent>)``, which TorchRL's steps carry on.
    Samples under TorchRL's exploration type ``RANDOM`` (the default), takes the mode under any
    deterministic one (``torchrl.envs.set_exploration_type``).

    Args:
        spec: the team.
        config: the networks' settings; only ``actors`` built from it know it.
        actors: modules to use instead of new ones, in team order.
    """

    def __init__(
        self,
        spec: TeamSpec,
        config: NetworkConfig | None = None,
        actors: Iterable[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        # not called spec: TorchRL's collectors would take it for the spec of the policy's output
        self.team = spec
        if actors is None:
            actors = (config or NetworkConfig()).make_actors(spec)
        self.actors = nn.ModuleList(actors)
        self.in_keys: list[Any] = [(group, "observation") for group in spec.groups]
        self.out_keys: list[Any] = [(group, "action") for group in spec.groups]
        self.clipped = [
            group
            for group, members in spec.groups.items()
            if any(getattr(self.actors[i], "clips", False) for i in members)
        ]
        """Groups whose actions are clipped samples."""
        self.recurrent = [
            i for i, actor in enumerate(self.actors) if getattr(actor, "hidden_size", 0)
        ]
        """Agents with a memory."""
        self.out_keys += [(group, SAMPLE) for group in self.clipped]
        self.out_keys += [("next", HIDDEN, spec.names[i]) for i in self.recurrent]
        self.noise: NoiseLike = torch.randn_like
        self._limits: dict[tuple[str, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def units(self) -> list[list[int]]:
        """Agents' positions, by set of shared parameters, in team order.

        Those who have any parameter in common are of one unit, not only those who have all.
        """
        units: list[tuple[list[int], set[int]]] = []
        for i, actor in enumerate(self.actors):
            own, members = {id(p) for p in actor.parameters()}, [i]
            for unit in [unit for unit in units if unit[1] & own]:
                units.remove(unit)
                members, own = unit[0] + members, unit[1] | own
            units.append((members, own))
        return sorted(sorted(members) for members, _ in units)

    def act(self, agent: int, observation: Tensor, action_mask: Tensor | None = None) -> Tensor:
        """One agent's action ``[*B, D_i]`` from its observation ``[*B, *O_i]``, as on a robot.

        On the observation's device and in its dtype (choices: as indices), wherever the actor
        stands.

        Raises:
            ConfigError: the agent has a memory; ``step`` takes and returns it.
        """
        if agent in self.recurrent:
            raise ConfigError(
                f"agent '{self.team.names[agent]}' has a memory: call policy.step(agent, "
                "observation, action_mask, memory), which returns the action and the new state."
            )
        return self.clip(agent, self.step(agent, observation, action_mask)[0])

    def step(
        self,
        agent: int,
        observation: Tensor,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One agent's action ``[N, D_i]`` before clipping, and its recurrent state ``[N, H]``.

        On the observation's device, wherever the actor stands.
        """
        action, hidden = self.actors[agent].act(  # type: ignore[operator]
            observation, self.explores(), action_mask, memory
        )
        device = observation.device
        dtype = observation.dtype if action.is_floating_point() else action.dtype
        return action.to(device, dtype), None if hidden is None else hidden.to(device)

    def explores(self) -> NoiseLike | None:
        """What actors draw with; None where they are to take the mode."""
        return self.noise if exploration_type() in (None, ExplorationType.RANDOM) else None

    def clip(self, agent: int, action: Tensor) -> Tensor:
        """``action [*B, D_i]`` within the agent's bounds."""
        if not getattr(self.actors[agent], "clips", False):
            return action
        space = self.team.agents[agent].action
        return action.clamp(action.new_tensor(space.low), action.new_tensor(space.high))

    def memory(self, data: TensorDictBase, agent: int) -> Memory | None:
        """Where a recurrent agent goes on, from ``data [N]`` or the first steps of ``[N, T]``."""
        return read_memory(data, self.team.names[agent]) if agent in self.recurrent else None

    def start(self, data: TensorDictBase) -> None:
        """Writes the recurrent states that ``data [N]`` begins with: zero."""
        for name, size, dtype in self._memories():
            start_memory(data, name, size, dtype)

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """For TorchRL's collectors: the transform that adds the recurrent states at every reset.

        They find it by this name and add it, with an ``InitTracker``, where
        ``auto_register_policy_transforms=True``.
        """
        specs = {n: Unbounded((size,), dtype=dtype) for n, size, dtype in self._memories()}
        return TensorDictPrimer(
            Composite({HIDDEN: Composite(specs)} if specs else {}), expand_specs=True
        )

    def _memories(self) -> list[tuple[str, int, torch.dtype]]:
        """Name, size and dtype of every recurrent state."""
        recurrent = [(self.team.names[i], self.actors[i]) for i in self.recurrent]
        return [(n, cast(int, a.hidden_size), next(a.parameters()).dtype) for n, a in recurrent]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        samples = [self.decide(tensordict, i) for i in range(self.team.num_agents)]
        return self.write(tensordict, samples)

    def decide(self, data: TensorDictBase, agent: int) -> Tensor:
        """One agent's action in ``data [*B]`` before clipping, ``[*B, D_i]``.

        Writes its recurrent state.
        """
        observation, mask = self.team.observation(data, agent), self.team.action_mask(data, agent)
        sample, hidden = self.step(agent, observation, mask, self.memory(data, agent))
        if hidden is not None:
            data.set(("next", HIDDEN, self.team.names[agent]), hidden)
        return sample

    def write(self, data: TensorDictBase, samples: Sequence[Tensor]) -> TensorDictBase:
        """Writes everybody's ``decide`` (team order) to ``data [*B]``, clipped and as drawn."""
        for group in self.team.groups:
            action = self.team.group_action(group, samples)
            if group in self.clipped:
                data.set((group, SAMPLE), action)
                action = action.clamp(*self._bounds(group, action))
            data.set((group, "action"), action)
        return data

    def _bounds(self, group: str, like: Tensor) -> tuple[Tensor, Tensor]:
        """Least and largest actions ``[n_g, D]`` of the agents of a group; ±inf: not clipped.

        Of the dtype and device of ``like``, where they stay: every step needs them.
        """
        where = (group, like.dtype, like.device)
        if where not in self._limits:
            members = self.team.groups[group]
            clips = [[getattr(self.actors[i], "clips", False)] for i in members]
            spaces = [self.team.agents[i].action for i in members]
            chosen = torch.tensor(clips, device=like.device)
            low, high = (like.new_tensor([getattr(s, k) for s in spaces]) for k in ("low", "high"))
            inf = float("inf")
            self._limits[where] = low.where(chosen, -inf), high.where(chosen, inf)
        return self._limits[where]
