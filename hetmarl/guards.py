"""Stops a run at the first NaN or infinity, and says whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor

from hetmarl.networks.body import HIDDEN
from hetmarl.networks.policy import SAMPLE
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import HetmarlError


class NonFiniteError(HetmarlError):
    """NaN or infinity in a loss, a gradient, an observation, an action, the state or the reward."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every entry is finite; one reduction per tensor and one synchronisation in all.

    Only sums are looked at: a sum is finite if all its terms are, unless they overflow together,
    which the caller's exact search then sorts out.
    """
    sums = [t.sum(dtype=torch.float32) for t in tensors if t.is_floating_point() and t.numel()]
    if not sums:
        return True
    device = sums[0].device
    return bool(torch.stack([total.to(device) for total in sums]).isfinite().all())


def check_finite(quantities: Mapping[str, Tensor], frames: int) -> None:
    """Refuses NaN and infinity among named values, such as an iteration's losses.

    Args:
        quantities: name to tensor of any shape; the name says the agent: ``loss_actor/leg_0``.
        frames: frames trained so far.

    Raises:
        NonFiniteError: names the quantity and the frame.
    """
    if all_finite(quantities.values()):
        return
    for name, value in quantities.items():
        bad = ~value.isfinite()
        if bad.any():
            quantity, _, agent = name.partition("/")
            whose = f"{quantity} of {_agent(agent)}" if agent else quantity
            raise NonFiniteError(
                f"{_kind(value[bad])} in {whose} at frame {frames:,}. {_ADVICE} Lower the learning "
                "rate, or clip gradients (algo.max_grad_norm)."
            )


def check_finite_data(data: TensorDictBase, spec: TeamSpec, frames: int) -> None:
    """Refuses NaN and infinity in collected data.

    Looks at every agent's observation, action and what it drew before clipping, at recurrent
    states, the state and the rewards, before and after each step.

    Args:
        data: a collected chunk, batch ``[num_envs, T]``.
        spec: the team; names the agents.
        frames: frames collected before this chunk.

    Raises:
        NonFiniteError: names agent, quantity, frame, and the environment and step it is at.
    """
    keys = _keys(spec, data)
    found = {key: value for key in keys if (value := data.get(key, None)) is not None}
    if all_finite(found.values()):
        return
    first: tuple[int, str] | None = None
    for key, value in found.items():
        bad = ~value.isfinite()
        if not bad.any():
            continue
        # Of several, the first in time; at one time the order of _keys: causes before effects.
        places = bad.nonzero()
        steps = places[:, 1] + (key[0] == "next")
        place = places[int(steps.argmin())].tolist()
        if first is None or int(steps.min()) < first[0]:
            text = _describe(key, place, _kind(value[tuple(place)]), spec, data, frames)
            first = (int(steps.min()), text)
    if first is not None:
        raise NonFiniteError(first[1])


_ADVICE = "The run stops here; the last checkpoint was written before and is good."


def _keys(spec: TeamSpec, data: TensorDictBase) -> list[tuple[str, ...]]:
    keys: list[tuple[str, ...]] = [(HIDDEN, name) for name in data.get(HIDDEN, {}).keys()]
    for group in spec.groups:
        keys += [(group, "observation"), (group, "action"), (group, SAMPLE)]
    keys += [("state",), ("next", "reward"), ("next", "state")]
    for group in spec.groups:
        keys += [("next", group, "observation"), ("next", group, "reward")]
    return keys


def _describe(
    key: tuple[str, ...],
    place: list[int],
    kind: str,
    spec: TeamSpec,
    data: TensorDictBase,
    frames: int,
) -> str:
    env, step = place[:2]
    num_envs = data.batch_size[0]
    groups = spec.groups
    owner = next((part for part in key if part in groups), None)
    whose, entry = key[-1], place[2:]
    if key[0] == HIDDEN:
        network = _agent(key[1]) if key[1] in spec.names else f"the network '{key[1]}'"
        whose = f"recurrent state of {network}"
    elif owner is not None:
        whose = f"{key[-1]} of {_agent(spec.agents[groups[owner][place[2]]].name)}"
        entry = place[3:]
    after = " after the step" if key[0] == "next" and key[-1] != "reward" else ""
    frame = frames + (step + 1) * num_envs
    cause = (
        "The policy put it out: lower the learning rate, or clip gradients (algo.max_grad_norm)."
        if key[-1] in ("action", SAMPLE) or key[0] == HIDDEN
        else "The environment put it out: check its physics and its reward at this point."
    )
    return (
        f"{kind} in the {whose}{after} at frame {frame:,} (environment {env}, step {step} of the "
        f"chunk, entry {entry[0] if len(entry) == 1 else entry}). {_ADVICE} {cause}"
    )


def _agent(name: str) -> str:
    return "the joint policy" if name == "joint" else f"agent '{name}'"


def _kind(values: Tensor) -> str:
    return "NaN" if bool(values.isnan().any()) else "Infinity"
