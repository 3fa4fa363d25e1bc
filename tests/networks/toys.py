"""Toy environments of this room's tests: images, and agents of two kinds."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec

Layout = dict[str, tuple[list[str], tuple[int, ...], TensorSpec]]
"""Group to the names of its agents, and one agent's observation shape and action spec."""


# Every kind of action, observations of every length.
MIXED = TeamSpec(
    (
        AgentSpec("arm", "arm", 0, (3,), ActionSpace("continuous", (-1.0, 0.0), (1.0, 5.0))),
        AgentSpec("switch", "switch", 0, (5,), ActionSpace("discrete", choices=(4,))),
        AgentSpec("panel", "panel", 0, (2,), ActionSpace("multi_discrete", choices=(3, 2))),
        AgentSpec("leg", "leg", 0, (1,), ActionSpace("continuous", (-2.0,), (2.0,))),
    ),
    None,
)


class ToyEnv(EnvBase):
    """What toys have in common; episodes are cut off after ``max_steps`` steps.

    Subclasses have ``LAYOUT``, ``observe`` and ``move``; everything that moves is in
    ``place [N, n]``, one number per agent in the order of the groups.
    """

    LAYOUT: ClassVar[Layout]

    def __init__(
        self, *, num_envs: int = 3, seed: int = 0, device: Any = "cpu", max_steps: int = 6
    ) -> None:
        super().__init__(device=device, batch_size=[num_envs])
        self.group_map = {group: names for group, (names, _, _) in self.LAYOUT.items()}
        self.max_steps, size = max_steps, torch.Size([num_envs])
        observed, actions = {}, {}
        for group, (names, shape, action) in self.LAYOUT.items():
            outer = (*size, len(names))
            observed[group] = Composite(observation=Unbounded((*outer, *shape)), shape=outer)
            actions[group] = Composite(action=action.expand(*outer, *action.shape), shape=outer)
        self.observation_spec = Composite(observed, shape=size)
        self.action_spec = Composite(actions, shape=size)
        self.reward_spec = Unbounded((*size, 1))
        flags = ("done", "terminated", "truncated")
        self.done_spec = Composite(
            {name: Categorical(2, shape=(*size, 1), dtype=torch.bool) for name in flags},
            shape=size,
        )
        self.place = torch.zeros(num_envs, sum(len(names) for names in self.group_map.values()))
        self._steps = torch.zeros(num_envs, 1)
        self.set_seed(seed)

    def _set_seed(self, seed: int | None) -> None:
        self._random = torch.Generator().manual_seed(seed or 0)

    def observe(self) -> dict[str, Tensor]:
        """Every group's observations ``[N, n_g, *O]``."""
        raise AssertionError

    def move(self, actions: dict[str, Tensor]) -> Tensor:
        """Moves by every group's actions; returns every agent's reward ``[N, n]``."""
        raise AssertionError

    def _seen(self) -> TensorDict:
        values = {
            group: TensorDict({"observation": x}, batch_size=x.shape[:2])
            for group, x in self.observe().items()
        }
        return TensorDict(values, self.batch_size)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        rows = torch.ones_like(self._steps, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict.keys():
            rows = tensordict["_reset"].reshape(rows.shape)
        fresh = 2 * torch.rand(self.place.shape, generator=self._random) - 1
        self.place = torch.where(rows, fresh, self.place)
        self._steps = torch.where(rows, 0.0, self._steps)
        never = torch.zeros_like(rows)
        flags = {"done": never, "terminated": never.clone(), "truncated": never.clone()}
        return self._seen().update(flags)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self._steps = self._steps + 1
        rewards = self.move({group: tensordict[group, "action"] for group in self.LAYOUT})
        ended = self._steps >= self.max_steps
        data = self._seen()
        parts = rewards.split([len(names) for names in self.group_map.values()], dim=-1)
        for group, part in zip(self.group_map, parts, strict=True):
            data[group, "reward"] = part.unsqueeze(-1)
        flags = {"done": ended, "terminated": torch.zeros_like(ended), "truncated": ended.clone()}
        return data.update({"reward": rewards.sum(-1, keepdim=True)} | flags)

    def runtime_state(self) -> dict[str, Any]:
        own = {"place": self.place.clone(), "steps": self._steps.clone()}
        return own | {"random": self._random.get_state()}

    def load_runtime_state(self, state: dict[str, Any]) -> None:
        self.place, self._steps = state["place"].clone(), state["steps"].clone()
        self._random.set_state(state["random"])


class ImageEnv(ToyEnv):
    """Two eyes see a bright column ``[1, 8, 8]`` and point at it; a knob reads three numbers."""

    LAYOUT: ClassVar[Layout] = {
        "eye": (["eye_0", "eye_1"], (1, 8, 8), Bounded(-1.0, 1.0, (1,))),
        "knob": (["knob"], (3,), Categorical(3)),
    }

    def observe(self) -> dict[str, Tensor]:
        columns = torch.linspace(-1, 1, 8)
        bright = (-8 * (self.place[:, :2, None] - columns).square()).exp()
        images = bright[:, :, None, None, :].expand(-1, -1, 1, 8, -1)
        knob = torch.stack([self.place[:, 2] + shift for shift in (-1.0, 0.0, 1.0)], -1)
        return {"eye": images.contiguous(), "knob": knob[:, None]}

    def move(self, actions: dict[str, Tensor]) -> Tensor:
        aim = -(actions["eye"][..., 0] - self.place[:, :2]).square()
        wanted = ((self.place[:, 2:] + 1) * 1.5).floor().clamp(0, 2)
        return torch.cat([aim, (actions["knob"] == wanted).float()], dim=-1)


class KindsEnv(ToyEnv):
    """Four agents that look alike; two go where they want to, two the opposite way.

    ``a`` and ``c`` move by +action/2, ``b`` and ``d`` by −action/2 and read one number more. What
    they get is nearness to zero.
    """

    LAYOUT: ClassVar[Layout] = {
        "plain": (["a", "c"], (2,), Bounded(-1.0, 1.0, (1,))),
        "mirrored": (["b", "d"], (3,), Bounded(-1.0, 1.0, (1,))),
    }

    def observe(self) -> dict[str, Tensor]:
        seen = torch.stack([self.place, self.place.square()], -1)
        padded = torch.nn.functional.pad(seen[:, 2:], (0, 1), value=1.0)
        return {"plain": seen[:, :2].clone(), "mirrored": padded}

    def move(self, actions: dict[str, Tensor]) -> Tensor:
        wanted = torch.cat([actions["plain"], -actions["mirrored"]], 1)[..., 0]
        self.place = self.place + wanted / 2
        return -self.place.abs()


class AlikeEnv(KindsEnv):
    """All four go where they want to, in unbounded units."""

    LAYOUT: ClassVar[Layout] = {
        group: (names, shape, Bounded(-float("inf"), float("inf"), (1,)))
        for group, (names, shape, _) in KindsEnv.LAYOUT.items()
    }

    def move(self, actions: dict[str, Tensor]) -> Tensor:
        return super().move(actions | {"mirrored": -actions["mirrored"]})
