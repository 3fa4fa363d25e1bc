"""What only playing on shows of an environment: seeds, unequal starts, ends, exact resume."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from hetmarl_envs.contract import TeamSpec, write_random_actions
from hetmarl_envs.errors import ContractError

SEEDS = (11, 12)


def difference(first: TensorDictBase, second: TensorDictBase) -> str | None:
    """The first key of ``first`` whose values differ in ``second``, as text; None where none."""
    for key in sorted(first.keys(True, True), key=str):
        mine, theirs = first.get(key), second.get(key, None)
        same = theirs is not None and mine.shape == theirs.shape and mine.dtype == theirs.dtype
        # the action of one that is gone may be NaN
        if not same or not torch.equal(mine.nan_to_num(), theirs.nan_to_num()):
            return repr(key)
    return None


def play_on(env: EnvBase, spec: TeamSpec, data: TensorDictBase, steps: int) -> list[TensorDictBase]:
    """``steps`` steps from ``data`` with resets of finished rows; the same actions at every call.

    Returns:
        Copies: where it began, then for each step what it gave and where the next one begins.
    """
    generator = torch.Generator(data.device or "cpu").manual_seed(0)
    data = data.clone()
    found = [data.clone()]
    for _ in range(steps):
        stepped, data = env.step_and_maybe_reset(write_random_actions(data, spec, generator))
        found += [stepped["next"].clone(), data.clone()]
    return found


def _first_difference(first: list[TensorDictBase], second: list[TensorDictBase]) -> str | None:
    for place, (one, other) in enumerate(zip(first, second, strict=True)):
        key = difference(one, other)
        if key is not None:
            return f"{key} after {(place + 1) // 2} steps"
    return None


# ---------------------------------------------------------------------- seeds
def check_seeds(env: EnvBase, spec: TeamSpec, steps: int) -> None:
    """Equal seeds play alike, other seeds and sub-environments do not, nobody else is disturbed.

    Raises:
        ContractError: one of these does not hold.
    """
    before = _global_randomness()
    played = _seeded(env, spec, steps, SEEDS[0])
    again = _first_difference(played, _seeded(env, spec, steps, SEEDS[0]))
    drawn = [name for name, state in _global_randomness().items() if state != before[name]]
    if drawn:
        raise ContractError(
            f"reset or step draws from the process's global random state ({', '.join(drawn)}), "
            "which everything else in the process shares. Draw from a generator of the "
            "environment's own (torch.Generator, numpy.random.default_rng) that _set_seed seeds."
        )
    if again:
        raise ContractError(
            f"set_seed({SEEDS[0]}) twice, with the same actions, gave different runs: {again}. "
            "_set_seed must begin every random stream of the environment anew, and reset must set "
            "back whatever the last episode left behind."
        )
    other = _seeded(env, spec, 0, SEEDS[1])[0]
    _check_starts(env, played[0], other)


def _check_starts(env: EnvBase, first: TensorDictBase, other: TensorDictBase) -> None:
    """``first`` and ``other`` are starts under different seeds."""
    keys = list(env.observation_spec.keys(True, True))
    first, other = first.select(*keys, strict=False), other.select(*keys, strict=False)
    alike = difference(first, other) is None
    if alike:
        env.set_seed(SEEDS[0])
        env.reset()
        if difference(first, env.reset().select(*keys, strict=False)):
            raise ContractError(
                f"set_seed({SEEDS[0]}) and set_seed({SEEDS[1]}) start alike although two resets do "
                "not: the seed is ignored. Seed the environment's random stream in _set_seed."
            )
    elif env.batch_size[0] > 1 and _rows_alike(first) and _rows_alike(other):
        raise ContractError(
            f"all {env.batch_size[0]} sub-environments start alike, though another seed starts "
            "elsewhere: they would all live the same episode. Draw each row's start by itself, or "
            "give each a seed of its own."
        )


def _rows_alike(data: TensorDictBase) -> bool:
    return difference(data, data[:1].expand(data.batch_size)) is None


def _seeded(env: EnvBase, spec: TeamSpec, steps: int, seed: int) -> list[TensorDictBase]:
    try:
        env.set_seed(seed)
    except NotImplementedError as error:
        raise ContractError(
            f"{type(env).__name__} cannot be seeded: {error}. Implement _set_seed(seed)."
        ) from error
    return play_on(env, spec, env.reset(), steps)


def _global_randomness() -> dict[str, Any]:
    numpy_state: Any = np.random.get_state(legacy=False)
    state = numpy_state["state"]
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy.random": [state["key"].tolist(), state["pos"]],
        "random": random.getstate(),
    }


# ---------------------------------------------------------------------- ends
def check_resets(env: EnvBase, spec: TeamSpec, steps: int) -> None:
    """Last observations are kept, time limits truncate, rows are reset one by one.

    Raises:
        ContractError: one of these does not hold.
    """
    keys = list(env.observation_spec.keys(True, True))
    played = play_on(env, spec, env.reset(), steps)
    roots, nexts = played[::2], played[1::2]
    lengths = torch.zeros(env.batch_size[0], dtype=torch.long)
    lost, at_limit = [], []
    limit = getattr(env, "max_steps", None)
    for before, end, after in zip(roots[:-1], nexts, roots[1:], strict=True):
        lengths += 1
        for row in end["done"].flatten().nonzero().flatten().tolist():
            start, last = after[row].select(*keys), end[row].select(*keys, strict=False)
            if difference(start, before[row].select(*keys)):  # else nothing ever moves
                lost.append(difference(start, last) is None)
            if isinstance(limit, int) and limit > 1 and int(lengths[row]) == limit:
                at_limit.append(bool(end[row]["terminated"]))
            lengths[row] = 0
    if len(lost) > 2 and all(lost):
        raise ContractError(
            "step: at the end of an episode ('next', ...) holds the next episode's start, in "
            f"{len(lost)} of {len(lost)} episodes: the true last observation is lost. Do not reset "
            "inside _step (switch the simulator's auto-reset off); TorchRL calls _reset for the "
            "finished rows."
        )
    if len(at_limit) > 2 and all(at_limit):
        raise ContractError(
            f"step: all {len(at_limit)} episodes that lasted max_steps = {limit} steps ended "
            "'terminated'. A time limit is 'truncated': write terminated only where the task "
            "itself has ended."
        )
    if env.batch_size[0] > 1:
        _check_partial_reset(env, roots[-1], keys)


def _check_partial_reset(env: EnvBase, data: TensorDictBase, keys: list[Any]) -> None:
    only_first = torch.zeros(*env.batch_size, 1, dtype=torch.bool, device=data.device)
    only_first[0] = True
    # not env.reset: TorchRL hides there what became of the other rows
    found = env._reset(data.clone().set("_reset", only_first))
    changed = difference(data.select(*keys, strict=False)[1:], found[1:])
    if changed:
        raise ContractError(
            f"reset: with '_reset' True for sub-environment 0 only, {changed} of the others "
            "changed too. Begin anew in the rows that '_reset' marks, and return the others' "
            "present observations."
        )
    env.reset()


# ---------------------------------------------------------------------- exact resume
def check_runtime_state(env: EnvBase, spec: TeamSpec, steps: int) -> None:
    """An environment that has ``runtime_state`` continues from it exactly, with plain values.

    Raises:
        ContractError: it does not.
    """
    save: Callable[[], Any] | None = getattr(env, "runtime_state", None)
    load: Callable[[Any], None] | None = getattr(env, "load_runtime_state", None)
    if save is None or load is None:
        return
    data = play_on(env, spec, env.reset(), min(steps, 3))[-1]
    state = save()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except Exception as error:
        raise ContractError(
            "runtime_state() holds more than tensors and plain values (numbers, texts, lists, "
            f"dicts), so that a checkpoint of it cannot be read safely: {error}"
        ) from error
    going_on = play_on(env, spec, data, steps)
    load(state)
    changed = _first_difference(going_on, play_on(env, spec, data, steps))
    if changed:
        raise ContractError(
            "after load_runtime_state(runtime_state()) the same actions gave another run: "
            f"{changed}. The state must hold copies of everything that the next steps depend on: "
            "random streams, step counters, what the simulator keeps of its last step; clone the "
            "tensors."
        )
