"""``check_team_env``: does an environment keep the data contract? Every violation is explained.

First its specs are read, then it is stepped with random legal actions and every tensor looked at.
``thorough`` then asks what a single tensor does not show, by playing on: ``hetmarl_envs.replay``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Composite
from torchrl.envs import EnvBase

from hetmarl_envs.contract import TeamSpec, write_random_actions
from hetmarl_envs.errors import ContractError
from hetmarl_envs.observation_index import ObservationIndex
from hetmarl_envs.replay import check_resets, check_runtime_state, check_seeds, difference

Leaves = dict[Any, tuple[tuple[int, ...], torch.dtype]]
"""Key to shape and dtype."""
FLAGS = ("done", "terminated", "truncated")
HINTS = {
    "reward": "sum or average the agents' rewards into one team reward under ('next', 'reward')",
    "truncated": "report the time limit as truncated, never as terminated "
    "(torchrl.envs.StepCounter adds it)",
}


def check_team_env(env: EnvBase, steps: int = 3, *, thorough: bool = True) -> TeamSpec:
    """Verifies that ``env`` keeps the data contract, by its specs and by stepping it.

    Args:
        env: the environment; it is reset and stepped with random actions, and with ``thorough``
            given other seeds: make a new one to train on.
        steps: vector steps taken. As many as an episode or two has, so that ends are seen too.
        thorough: also seeds, unequal starts of sub-environments, the process's global random
            state, ends, partial resets, and ``runtime_state`` where there is one; takes about six
            times as many steps.

    Returns:
        The environment's TeamSpec.

    Raises:
        ContractError: says which key, what it holds, what was expected, and what to do.
    """
    if len(env.batch_size) != 1 or env.batch_size[0] < 1:
        raise ContractError(
            f"batch_size is {list(env.batch_size)}, expected [num_envs] with num_envs >= 1. "
            "Wrap a single environment in torchrl.envs.SerialEnv or ParallelEnv."
        )
    spec = TeamSpec.from_env(env)
    with torch.no_grad():
        if thorough:
            _check_specs(env, spec)
        _play(env, spec, steps)
        if thorough:
            check_seeds(env, spec, steps)
            check_resets(env, spec, steps)
            check_runtime_state(env, spec, steps)
    return spec


# ---------------------------------------------------------------------- specs
def _check_specs(env: EnvBase, spec: TeamSpec) -> None:
    """What is wrong before anything moves: groups without agents, missing or unequal leaves."""
    for key in env.full_action_spec.keys(True, True):
        if not isinstance(key, tuple) or key[0] not in spec.groups:
            raise ContractError(
                f"the action spec has {key!r}, which no agent of group_map acts in; groups: "
                f"{list(spec.groups)}. Write actions as (group, 'action') and name every group in "
                "group_map."
            )
    _check_leaf(env.full_reward_spec, "reward", env.batch_size, torch.float32)
    for flag in FLAGS:
        _check_leaf(env.full_done_spec, flag, env.batch_size, torch.bool)


def _check_leaf(specs: Composite, key: str, batch: Iterable[int], dtype: torch.dtype) -> None:
    expected = [*batch, 1]
    if key not in specs.keys():
        hint = HINTS.get(key, f"add {key!r} to the environment's done_spec")
        raise ContractError(
            f"specs: ('next', {key!r}) is missing, found {sorted(map(str, specs.keys(True)))}: "
            f"{hint}."
        )
    found = specs[key]
    if list(found.shape) != expected or found.dtype != dtype:
        raise ContractError(
            f"specs: ('next', {key!r}) is {found.dtype} {list(found.shape)}, expected {dtype} "
            f"{expected}: one number per sub-environment, for the whole team."
        )


# ---------------------------------------------------------------------- stepping
def _play(env: EnvBase, spec: TeamSpec, steps: int) -> None:
    places = getattr(env, "observation_index", None)
    index = None if places is None else ObservationIndex(places, spec)
    data = _reset(env, None, spec)
    alive = {group: data.get((group, "alive"), None) for group in spec.groups}
    left = {group: torch.zeros_like(a) for group, a in alive.items() if a is not None}
    for _ in range(steps):
        write_random_actions(data, spec)
        before = data.clone()
        data = env.step(data)
        changed = difference(before, data)
        if changed:
            raise ContractError(
                f"step: {changed} of the step before changed while the environment moved on. It "
                "writes into the actions it is given, or into a tensor that it returned earlier: "
                "return clones of its buffers."
            )
        _check_observations(data["next"], spec, env, "step")
        _check_step(data["next"], spec, env)
        _check_nobody_returns(data, data["next"], left)
        if index is not None:
            index.compress(data["next"])
        data = env.step_mdp(data)
        done = data["done"] if "done" in data.keys() else None
        if done is not None and bool(done.any()):
            data.set("_reset", done)
            data = _reset(env, data, spec)
            left = {group: gone & ~done.unsqueeze(-1) for group, gone in left.items()}


def _check_tensor(found: Tensor, name: str, shape: Iterable[int], dtype: torch.dtype) -> None:
    if tuple(found.shape) != tuple(shape) or found.dtype != dtype:
        raise ContractError(
            f"{name} is {found.dtype} {list(found.shape)}, expected {dtype} {list(shape)}."
        )
    if dtype.is_floating_point and not torch.isfinite(found).all():
        raise ContractError(
            f"{name} holds NaN or infinity. Look for a division by zero or a simulation that "
            "blew up, and end the episode before it does."
        )


def _check_leaves(
    data: TensorDictBase, specs: Composite, contract: Leaves, when: str, room: str
) -> None:
    """All that is declared is there, as the contract says, or where it does not, the spec.

    Args:
        data: of a reset, or what stands under "next".
        specs: of observations or rewards.
        contract: shape and dtype of what the contract names.
        when: ``"reset"`` or ``"step"``.
        room: where ``specs`` are, for messages.
    """
    declared, there = (set(keyed.keys(True, True)) for keyed in (specs, data))
    told: Leaves = {
        key: ((*data.batch_size, 1), torch.float32)
        for key in declared | there
        if room == "observation_spec" and isinstance(key, tuple) and key[0] == "info"
    }
    contract = contract | told
    for key in sorted(declared | (there & contract.keys()), key=str):
        if key not in there:
            raise ContractError(f"{when}: {key!r} is missing; write it in _{when}.")
        if key not in declared:
            raise ContractError(
                f"{when}: {key!r} is there but not in {room}. Add it, so that it is carried from "
                "step to step."
            )
        value = data.get(key)
        if isinstance(value, Tensor):
            own = specs[key]
            shape, dtype = contract.get(key, (own.shape, own.dtype))
            _check_tensor(value, f"{when}: {key!r}", shape, dtype)


def _check_observations(data: TensorDictBase, spec: TeamSpec, env: EnvBase, when: str) -> None:
    contract: Leaves = {}
    if spec.state_dim is not None:
        contract["state"] = (*data.batch_size, spec.state_dim), torch.float32
    for group, members in spec.groups.items():
        batch, agent = (*data.batch_size, len(members)), spec.agents[members[0]]
        contract[group, "observation"] = (*batch, *agent.observation_shape), torch.float32
        contract[group, "alive"] = (*batch, 1), torch.bool
        contract[group, "action_mask"] = (*batch, agent.action.width), torch.bool
    _check_leaves(data, env.observation_spec, contract, when, "observation_spec")
    for group, members in spec.groups.items():
        _check_mask(data, group, spec.agents[members[0]].action.choices, when)


def _check_mask(data: TensorDictBase, group: str, choices: Iterable[int], when: str) -> None:
    mask = data.get((group, "action_mask"), None)
    if mask is None:
        return
    stuck = torch.zeros(mask.shape[:-1], dtype=torch.bool, device=mask.device)
    for part in mask.split(list(choices), dim=-1):
        stuck |= ~part.any(-1)
    alive = data.get((group, "alive"), None)
    if alive is not None:
        stuck &= alive.squeeze(-1)
    if "done" in data.keys():
        stuck &= ~data["done"]  # nobody acts after the end
    if stuck.any():
        row, agent = stuck.nonzero()[0].tolist()
        raise ContractError(
            f"{when}: {(group, 'action_mask')} leaves agent {agent} of sub-environment {row} "
            "nothing to choose while it lives. Mark at least one choice as legal (a no-op), or the "
            "agent as dead in 'alive'."
        )


def _reset(env: EnvBase, data: TensorDictBase | None, spec: TeamSpec) -> TensorDictBase:
    try:
        data = env.reset(data)
    except RuntimeError as error:
        if "after a call to reset" not in str(error):
            raise
        raise ContractError(
            f"reset: a new episode is over right after its reset ({error}) Write False into "
            f"{', '.join(FLAGS)} of the rows that are reset."
        ) from error
    _check_observations(data, spec, env, "reset")
    _check_start(data, spec)
    return data


def _check_start(data: TensorDictBase, spec: TeamSpec) -> None:
    living = [data.get((group, "alive"), None) for group in spec.groups]
    if all(alive is not None for alive in living):
        lived = torch.stack([alive.flatten(1).any(-1) for alive in living]).any(0)
        if not lived.all():
            raise ContractError(
                f"reset: nobody is alive in sub-environment {int((~lived).nonzero()[0])} right "
                "after its reset. (group, 'alive') is True for whoever acts next: set it at reset."
            )


def _check_step(data: TensorDictBase, spec: TeamSpec, env: EnvBase) -> None:
    expected: Any = (*data.batch_size, 1)
    for key in ("reward", *FLAGS):
        value = data.get(key, None)
        if value is None:
            hint = HINTS.get(key, "add it to the env's done spec")
            raise ContractError(f"step: ('next', {key!r}) is missing: {hint}.")
        dtype = torch.float32 if key == "reward" else torch.bool
        _check_tensor(value, f"step: ('next', {key!r})", expected, dtype)
    if not torch.equal(data["done"], data["terminated"] | data["truncated"]):
        raise ContractError(
            "step: ('next', 'done') differs from terminated | truncated; make done their union."
        )
    own: Leaves = {
        (group, "reward"): ((*data.batch_size, len(members), 1), torch.float32)
        for group, members in spec.groups.items()
    }
    _check_leaves(data, env.full_reward_spec, own, "step", "reward_spec")


def _check_nobody_returns(
    before: TensorDictBase, after: TensorDictBase, left: dict[str, Tensor]
) -> None:
    """Who has left stays gone; adds to ``left``, ``[N, n, 1]`` of each group, who left now."""
    for group in left:
        was, now = before.get((group, "alive")), after.get((group, "alive"))
        left[group] = left[group] | (was & ~now)
        back = (left[group] & now).squeeze(-1)
        if back.any():
            row, agent = back.nonzero()[0].tolist()
            raise ContractError(
                f"step: {(group, 'alive')} of agent {agent} of sub-environment {row} is True again "
                "after it was False. Who died or left is gone until the reset (one that was not "
                "there yet may join): keep it False, or keep it True for one that only waits. An "
                "environment must not reset itself inside a step either."
            )
