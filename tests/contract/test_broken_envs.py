"""Environments that break the data contract one way each, and what ``check_team_env`` says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from hetmarl_envs import check_team_env
from hetmarl_envs.errors import ContractError


class Meadow(EnvBase):
    """A good one: two walkers on a line, one of whom dies at step 2, and a caller of three words.

    Walkers have rewards of their own, and the steps so far are told; the wind is nobody's business.
    Only the words up to the step's number modulo 3 are legal. Time limit of 4 steps; terminates
    where a walker goes beyond 3.
    """

    max_steps = 4

    def __init__(self, num_envs: int = 3) -> None:
        super().__init__(batch_size=[num_envs])
        self.group_map = {"walker": ["walker_0", "walker_1"], "caller": ["caller"]}
        self.agent_names = ["walker_0", "caller", "walker_1"]
        self.make_specs()
        self.set_seed(0)

    def make_specs(self) -> None:
        batch = self.batch_size
        two, one = (*batch, 2), (*batch, 1)

        def flag(shape: Any) -> Categorical:
            return Categorical(2, shape=shape, dtype=torch.bool)

        walker = {"observation": Unbounded((*two, 1)), "alive": flag((*two, 1))}
        caller = {"observation": Unbounded((*one, 2)), "action_mask": flag((*one, 3))}
        self.observation_spec = Composite(
            walker=Composite(walker, shape=two),
            caller=Composite(caller, shape=one),
            state=Unbounded((*batch, 3)),
            info=Composite(steps=Unbounded((*batch, 1)), shape=batch),
            wind=Unbounded((*batch, 2)),
            shape=batch,
        )
        self.action_spec = Composite(
            walker=Composite(action=Bounded(-1.0, 1.0, (*two, 1)), shape=two),
            caller=Composite(action=Categorical(3, one), shape=one),
            shape=batch,
        )
        self.reward_spec = Composite(
            reward=Unbounded((*batch, 1)),
            walker=Composite(reward=Unbounded((*two, 1)), shape=two),
            shape=batch,
        )
        flags = ("done", "terminated", "truncated")
        self.done_spec = Composite({name: flag((*batch, 1)) for name in flags}, shape=batch)

    def _set_seed(self, seed: int | None) -> None:
        self.random = torch.Generator().manual_seed(seed or 0)
        self.places = torch.zeros(*self.batch_size, 2)
        self.steps = torch.zeros(*self.batch_size, 1, dtype=torch.int64)

    def start(self) -> torch.Tensor:
        return torch.rand(*self.batch_size, 2, generator=self.random)

    def rows(self, tensordict: TensorDictBase | None) -> torch.Tensor:
        if tensordict is None or "_reset" not in tensordict.keys():
            return torch.ones_like(self.steps, dtype=torch.bool)
        return tensordict["_reset"].reshape(self.steps.shape)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        rows = self.rows(tensordict)
        self.places = torch.where(rows, self.start(), self.places)
        self.steps = torch.where(rows, 0, self.steps)
        never = torch.zeros_like(rows)
        ends = {"done": never, "terminated": never.clone(), "truncated": never.clone()}
        return self.returned(TensorDict(self.seen() | ends, self.batch_size), True)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.places = self.places + tensordict["walker", "action"].squeeze(-1)
        self.steps = self.steps + 1
        terminated = (self.places > 3).any(-1, keepdim=True)
        truncated = (self.steps >= self.max_steps) & ~terminated
        values = {
            "reward": self.places.sum(-1, keepdim=True),
            "done": terminated | truncated,
            "terminated": terminated,
            "truncated": truncated,
        }
        data = TensorDict(self.seen() | values, self.batch_size)
        data["walker", "reward"] = self.places.unsqueeze(-1).clone()
        return self.returned(data, False)

    def seen(self) -> dict[str, Any]:
        alive = torch.stack([torch.ones_like(self.steps), self.steps < 2], dim=1).bool()
        heard = torch.cat([self.places.mean(-1, keepdim=True), self.steps / 10], dim=-1)
        walker = {"observation": self.places.unsqueeze(-1).clone(), "alive": alive}
        mask = torch.arange(3) <= self.steps % 3
        caller = {"observation": heard.unsqueeze(1), "action_mask": mask.unsqueeze(1)}
        return {
            "walker": TensorDict(walker, (*self.batch_size, 2)),
            "caller": TensorDict(caller, (*self.batch_size, 1)),
            "state": torch.cat([self.places, self.steps], dim=-1),
            "info": TensorDict({"steps": self.steps.float()}, self.batch_size),
            "wind": torch.zeros(*self.batch_size, 2),
        }

    def returned(self, data: TensorDict, resetting: bool) -> TensorDict:
        return data

    def _step_proc_data(self, next_tensordict_out: Any) -> Any:
        return next_tensordict_out  # TorchRL's own checks, which this test is not about

    def runtime_state(self) -> dict[str, Any]:
        state = {"places": self.places, "steps": self.steps, "random": self.random.get_state()}
        return {key: value.clone() for key, value in state.items()}

    def load_runtime_state(self, state: dict[str, Any]) -> None:
        self.places, self.steps = state["places"].clone(), state["steps"].clone()
        self.random.set_state(state["random"])


def test_the_good_one_passes() -> None:
    assert check_team_env(Meadow(), steps=9).names == ("walker_0", "caller", "walker_1")
    assert check_team_env(Meadow(1), steps=9).state_dim == 3


# ---------------------------------------------------------------------- the breaks
def gives(change: Callable[[TensorDict, bool], None]) -> type[Meadow]:
    """Changes what ``_reset`` and ``_step`` return."""

    class Changed(Meadow):
        def returned(self, data: TensorDict, resetting: bool) -> TensorDict:
            change(data, resetting)
            return data

    return Changed


def at_step(key: Any, value: Callable[[Any], Any] | None) -> type[Meadow]:
    """One key of a step is changed, or missing."""

    def change(data: TensorDict, resetting: bool) -> None:
        if not resetting:
            if value is None:
                del data[key]
            else:
                data.set(key, value(data[key]))

    return gives(change)


def at_reset(key: Any, value: Callable[[Any], Any]) -> type[Meadow]:
    def change(data: TensorDict, resetting: bool) -> None:
        if resetting:
            data.set(key, value(data[key]))

    return gives(change)


def with_spec(change: Callable[[Meadow], None]) -> type[Meadow]:
    """Other specs or names."""

    class Changed(Meadow):
        def make_specs(self) -> None:
            super().make_specs()
            change(self)

    return Changed


def declared(spec: str, key: Any, value: Any) -> type[Meadow]:
    def change(env: Meadow) -> None:
        found = getattr(env, spec).clone()
        if value is None:
            del found[key]
        else:
            found[key] = value
        setattr(env, spec, found)

    return with_spec(change)


def named(**attributes: Any) -> type[Meadow]:
    class Changed(Meadow):
        def make_specs(self) -> None:
            super().make_specs()
            for name, value in attributes.items():
                setattr(self, name, value)

    return Changed


def unequal_bounds(env: Meadow) -> None:
    high = torch.ones(3, 2, 1)
    high[:, 1] = 2
    env.action_spec = env.action_spec.clone()
    env.action_spec["walker", "action"] = Bounded(-high, high)


def extra_group(env: Meadow) -> None:
    spec = env.action_spec.clone()
    spec["ghost"] = Composite(action=Categorical(2, (3, 1)), shape=(3, 1))
    env.action_spec = spec


def nan(value: torch.Tensor) -> torch.Tensor:
    return value.index_fill(0, torch.tensor([1]), float("nan"))


class Single(Meadow):
    def _set_seed(self, seed: int | None) -> None:
        super()._set_seed(seed)
        self._batch_size = torch.Size([])


class StateGrows(Meadow):
    def returned(self, data: TensorDict, resetting: bool) -> TensorDict:
        if int(self.steps.max()) == 2:
            data["state"] = torch.cat([data["state"], data["state"]], -1)
        return data


class LimitIsDeath(Meadow):
    def returned(self, data: TensorDict, resetting: bool) -> TensorDict:
        if not resetting:
            data["terminated"] = data["done"].clone()
            data["truncated"] = torch.zeros_like(data["done"])
        return data


class InfoDouble(Meadow):
    """As its specs have it."""

    def make_specs(self) -> None:
        super().make_specs()
        spec = self.observation_spec.clone()
        spec["info", "steps"] = Unbounded((*self.batch_size, 1), dtype=torch.float64)
        self.observation_spec = spec

    def returned(self, data: TensorDict, resetting: bool) -> TensorDict:
        data["info", "steps"] = data["info", "steps"].double()
        return data


class ComesBack(Meadow):
    """A walker who is dead for one step only."""

    def returned(self, data: TensorDict, resetting: bool) -> TensorDict:
        data["walker", "alive"][:, 1] = self.steps != 2
        return data


class ResetsItself(Meadow):
    def returned(self, data: TensorDict, resetting: bool) -> TensorDict:
        data["walker", "alive"] = torch.ones_like(data["walker", "alive"])  # they would be revived
        return data

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        data = super()._step(tensordict)
        done = data["done"]
        if done.any():
            fresh = Meadow._reset(self, TensorDict({"_reset": done}, self.batch_size))
            data.update(fresh.exclude("done", "terminated", "truncated"))
        return data

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        rows = self.rows(tensordict) & (self.steps > 0)
        if tensordict is None or "_reset" not in tensordict.keys():
            rows = torch.ones_like(rows)
        return super()._reset(TensorDict({"_reset": rows}, self.batch_size))


class ResetsAll(Meadow):
    def rows(self, tensordict: TensorDictBase | None) -> torch.Tensor:
        return torch.ones_like(self.steps, dtype=torch.bool)


class StartsAlike(Meadow):
    def start(self) -> torch.Tensor:
        return torch.rand(1, 2, generator=self.random).expand(*self.batch_size, 2)


class SeedOnce(Meadow):
    """Seeds nothing after the first time."""

    def _set_seed(self, seed: int | None) -> None:
        if not hasattr(self, "random"):
            super()._set_seed(seed)


class SeedConstant(Meadow):
    def _set_seed(self, seed: int | None) -> None:
        super()._set_seed(0)


class NoSeed(Meadow):
    def _set_seed(self, seed: int | None) -> None:
        if hasattr(self, "random"):
            raise NotImplementedError("no seeds here")
        super()._set_seed(seed)


class GlobalTorch(Meadow):
    def start(self) -> torch.Tensor:
        return torch.rand(*self.batch_size, 2)


class GlobalNumpy(Meadow):
    def start(self) -> torch.Tensor:
        return torch.from_numpy(np.random.rand(*self.batch_size, 2)).float()


class GlobalPython(Meadow):
    def start(self) -> torch.Tensor:
        return super().start() + random.random()


class WritesActions(Meadow):
    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict["walker", "action"].mul_(0.5)
        return super()._step(tensordict)


class LiveBuffer(Meadow):
    """Returns the tensor in which it computes."""

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        places = self.places
        data = super()._step(tensordict)
        self.places = places.copy_(self.places)
        data["walker", "observation"] = self.places.unsqueeze(-1)
        return data


class ForgetsRandomness(Meadow):
    def load_runtime_state(self, state: dict[str, Any]) -> None:
        random_before = self.random.get_state()
        super().load_runtime_state(state)
        self.random.set_state(random_before)


class LiveState(Meadow):
    def runtime_state(self) -> dict[str, Any]:
        self.steps = self.steps.clone()
        return {"places": self.places, "steps": self.steps, "random": self.random.get_state()}

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        steps = self.steps
        data = super()._step(tensordict)
        self.steps = steps.copy_(self.steps)
        return data


class SavesAnObject(Meadow):
    def runtime_state(self) -> dict[str, Any]:
        return super().runtime_state() | {"rng": random.Random(0)}


FLAG = Categorical(2, shape=(3, 2), dtype=torch.bool)
BROKEN = {
    # names and specs
    "not batched": (Single, r"batch_size is \[\], expected \[num_envs\].*Wrap a .*SerialEnv"),
    "no groups": (named(group_map=None), "has no group_map. Expected a dict from group name"),
    "a group that is not there": (
        named(group_map={"walker": ["a", "b"], "flyer": ["c"]}),
        r"group 'flyer' of group_map lacks \('flyer', 'observation'\)",
    ),
    "too many names": (
        named(group_map={"walker": ["a", "b", "d"], "caller": ["c"]}),
        r"\('walker', 'observation'\) has shape \(2, 1\) after the batch, expected \[3 agents",
    ),
    "a name twice": (
        named(group_map={"walker": ["a", "b"], "caller": ["a"]}),
        "agent 'a' stands twice in group_map.*Expected names that are unique",
    ),
    "order of others": (named(agent_names=["caller", "x", "y"]), "agent_names .* differ"),
    "agents nobody named": (
        with_spec(extra_group),
        r"the action spec has \('ghost', 'action'\).*name every group in group_map",
    ),
    "unequal agents in a group": (with_spec(unequal_bounds), "different action bounds. Put agents"),
    "no bounds": (
        declared("action_spec", ("walker", "action"), Unbounded((3, 2, 1))),
        "UnboundedContinuous .* is not supported. Expected a bounded",
    ),
    "rewards per agent only": (
        named(reward_spec=Unbounded((3, 2))),
        r"'reward'\) is torch.float32 \[3, 2\], expected torch.float32 \[3, 1\]: one number per",
    ),
    "no truncation": (
        declared("done_spec", "truncated", None),
        r"'truncated'\) is missing.*report the time limit as truncated, never as terminated",
    ),
    "flat flags": (
        named(
            done_spec=Composite(
                dict.fromkeys(("done", "terminated", "truncated"), FLAG), shape=(3,)
            )
        ),
        r"'done'\) is torch.bool \[3, 2\], expected torch.bool \[3, 1\]",
    ),
    # tensors
    "observation missing": (
        at_step(("walker", "observation"), None),
        r"step: \('walker', 'observation'\) is missing; write it in _step",
    ),
    "observation flat": (
        at_step(("caller", "observation"), lambda x: x[..., :1]),
        r"'observation'\) is torch.float32 \[3, 1, 1\], expected torch.float32 \[3, 1, 2\]",
    ),
    "observation double": (
        at_reset(("walker", "observation"), lambda x: x.double()),
        r"reset: \('walker', 'observation'\) is torch.float64 .* expected torch.float32",
    ),
    "observation NaN": (
        at_step(("walker", "observation"), nan),
        r"step: \('walker', 'observation'\) holds NaN or infinity. Look for a division",
    ),
    "state changes shape": (StateGrows, r"'state' is torch.float32 \[3, 6\], expected .* \[3, 3\]"),
    "state missing": (
        at_step("state", None),
        "step: 'state' is missing; write it in _step",
    ),
    "state NaN": (at_step("state", nan), "step: 'state' holds NaN"),
    "alive as numbers": (
        at_reset(("walker", "alive"), lambda x: x.float()),
        r"'alive'\) is torch.float32 \[3, 2, 1\], expected torch.bool",
    ),
    "alive missing": (
        at_step(("walker", "alive"), None),
        r"step: \('walker', 'alive'\) is missing",
    ),
    "alive not declared": (
        declared("observation_spec", ("walker", "alive"), None),
        r"\('walker', 'alive'\) is there but not in observation_spec. Add it",
    ),
    "mask of another size": (
        at_reset(("caller", "action_mask"), lambda x: x[..., :2]),
        r"'action_mask'\) is torch.bool \[3, 1, 2\], expected torch.bool \[3, 1, 3\]",
    ),
    "mask without a choice": (
        at_step(("caller", "action_mask"), torch.zeros_like),
        "leaves agent 0 of sub-environment 0 nothing to choose while it lives. Mark at least one",
    ),
    "reward missing": (
        at_step("reward", None),
        r"'reward'\) is missing: sum or average the agents",
    ),
    "reward flat": (
        at_step("reward", lambda x: x.expand(3, 2)),
        r"'reward'\) is torch.float32 \[3, 2\], expected torch.float32 \[3, 1\]",
    ),
    "own reward missing": (
        at_step(("walker", "reward"), None),
        r"step: \('walker', 'reward'\) is missing; write it in _step",
    ),
    "own reward flat": (
        at_step(("walker", "reward"), lambda x: x.expand(3, 2, 2)),
        r"\('walker', 'reward'\) is torch.float32 \[3, 2, 2\], expected .* \[3, 2, 1\]",
    ),
    "own reward double": (
        at_step(("walker", "reward"), lambda x: x.double()),
        r"\('walker', 'reward'\) is torch.float64 .*, expected torch.float32",
    ),
    "own reward NaN": (at_step(("walker", "reward"), nan), r"'reward'\) holds NaN"),
    "own reward not declared": (
        declared("reward_spec", ("walker", "reward"), None),
        r"\('walker', 'reward'\) is there but not in reward_spec. Add it",
    ),
    "info missing": (at_step(("info", "steps"), None), r"step: \('info', 'steps'\) is missing; w"),
    "all infos missing": (at_step("info", None), r"step: \('info', 'steps'\) is missing; write"),
    "info double": (
        at_step(("info", "steps"), lambda x: x.double()),
        r"\('info', 'steps'\) is torch.float64 \[3, 1\], expected torch.float32 \[3, 1\]",
    ),
    "info declared double": (InfoDouble, r"'steps'\) is torch.float64 .* expected torch.float32"),
    "info NaN": (at_step(("info", "steps"), nan), r"\('info', 'steps'\) holds NaN"),
    "info not declared": (
        declared("observation_spec", "info", None),
        r"\('info', 'steps'\) is there but not in observation_spec",
    ),
    "another leaf NaN": (at_step("wind", nan), "step: 'wind' holds NaN"),
    "another leaf of another shape": (
        at_reset("wind", lambda x: x[:, :1]),
        r"reset: 'wind' is torch.float32 \[3, 1\], expected torch.float32 \[3, 2\]",
    ),
    "another leaf missing": (at_step("wind", None), "step: 'wind' is missing; write it"),
    "who died comes back": (
        ComesBack,
        r"\('walker', 'alive'\) of agent 1 of sub-environment 0 is True again after it was False",
    ),
    "reward infinite": (at_step("reward", lambda x: x / 0), r"'reward'\) holds NaN or infinity"),
    "done is no union": (
        at_step("done", torch.ones_like),
        r"'done'\) differs from terminated \| truncated; make done their union",
    ),
    # starts and ends
    "over at the start": (
        at_reset("terminated", torch.ones_like),
        r"a new episode is over right after its reset \(.*'terminated'.*Write False into done",
    ),
    "limit is termination": (LimitIsDeath, "lasted max_steps = 4 steps ended 'terminated'. A time"),
    "last observation lost": (ResetsItself, "the true last observation is lost. Do not reset insi"),
    "resets everybody": (ResetsAll, "'_reset' True for sub-environment 0 only, .* changed too"),
    # seeds and random streams
    "sub-environments alike": (StartsAlike, "all 3 sub-environments start alike, though another"),
    "equal seeds differ": (SeedOnce, r"set_seed\(11\) twice, with the same actions, gave diff"),
    "seed ignored": (SeedConstant, "start alike although two resets do not: the seed is ignored"),
    "no seed": (NoSeed, "NoSeed cannot be seeded: no seeds here. Implement _set_seed"),
    "global torch": (GlobalTorch, r"global random state \(torch\).*Draw from a generator of the"),
    "global numpy": (GlobalNumpy, r"global random state \(numpy.random\)"),
    "global python": (GlobalPython, r"global random state \(random\)"),
    # tensors that are written to
    "writes into actions": (WritesActions, r"\('walker', 'action'\) of the step before changed"),
    "live buffer": (
        LiveBuffer,
        r"\('walker', 'observation'\) of the step before changed .* clones",
    ),
    # exact resume
    "forgets its randomness": (ForgetsRandomness, r"after load_runtime_state.* gave another run"),
    "state goes on": (LiveState, r"after load_runtime_state.* clone the tensors"),
    "state is an object": (SavesAnObject, r"runtime_state\(\) holds more than tensors and plain"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_said(name: str) -> None:
    make, message = BROKEN[name]
    with pytest.raises(ContractError, match=message):
        check_team_env(make(), steps=9)


def test_nobody_alive_at_reset() -> None:
    class Ghosts(Meadow):
        """Walkers only, dead from the start."""

        def make_specs(self) -> None:
            super().make_specs()
            self.group_map, self.agent_names = {"walker": ["a", "b"]}, ["a", "b"]
            spec = self.action_spec.clone()
            del spec["caller"]
            self.action_spec = spec

        def returned(self, data: TensorDict, resetting: bool) -> TensorDict:
            data["walker", "alive"] = torch.zeros_like(data["walker", "alive"])
            return data

    with pytest.raises(ContractError, match="nobody is alive in sub-environment 0 right after its"):
        check_team_env(Ghosts())


def test_a_quick_look_leaves_the_seed_alone() -> None:
    """As a run's start does it."""
    env, other = Meadow(), Meadow()
    check_team_env(env, steps=2, thorough=False)
    data = other.reset()
    for _ in range(2):
        data = other.step_mdp(other.step(other.rand_action(data)))
    assert torch.equal(env.random.get_state(), other.random.get_state())
