"""The state of a gymnasium environment as plain values and tensors.

Gymnasium has no way to save an environment. Copying or pickling one would take along its spaces,
windows and classes, and could not be read safely from a checkpoint. So the attributes of the
environment and of each of its wrappers are saved one by one: numbers, texts, arrays, lists, tuples
and dicts of these, the random stream, and MuJoCo's data. What never changes (spaces, models,
functions) and what only pictures need is left as it is in the environment that is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium
import numpy as np
import torch

from hetmarl_envs.errors import ContractError

_FIXED = (
    gymnasium.Space,
    gymnasium.envs.registration.EnvSpec,
    FunctionType,
    MethodType,
    BuiltinFunctionType,
    ModuleType,
    type,
)
_PLAIN = (bool, int, float, str, bytes, type(None))
_PICTURES = ("pygame", "gymnasium.envs.mujoco.mujoco_rendering")


def save(env: gymnasium.Env[Any, Any]) -> list[dict[str, Any]]:
    """Everything that the next steps depend on, layer by layer, wrappers first.

    An environment or wrapper with a ``runtime_state()`` of its own is saved by it.

    Raises:
        ContractError: it holds something of which nobody knows how to save it.
    """
    return [_save_layer(layer) for layer in _layers(env)]


def load(env: gymnasium.Env[Any, Any], state: list[dict[str, Any]]) -> None:
    """The inverse of ``save``, for an environment that was made alike."""
    for layer, saved in zip(_layers(env), state, strict=True):
        if "own" in saved:
            layer.load_runtime_state(saved["own"])
            continue
        attributes = vars(layer)
        for name, packed in saved.items():
            if "mujoco" in packed:
                _load_mujoco(attributes[name], packed["mujoco"])
            else:
                attributes[name] = _unpack(packed, attributes.get(name))
        for name in [name for name in attributes if name not in saved and name != "env"]:
            if _pack(attributes[name], name) is not None:  # created since
                del attributes[name]


def _layers(env: Any) -> Iterator[Any]:
    while True:
        yield env
        if not isinstance(env, gymnasium.Wrapper):
            return
        env = env.env


def _save_layer(layer: Any) -> dict[str, Any]:
    if "runtime_state" in dir(type(layer)):
        return {"own": layer.runtime_state()}
    saved = {}
    for name, value in vars(layer).items():
        if name == "env" and isinstance(layer, gymnasium.Wrapper):
            continue
        packed = _pack(value, f"{type(layer).__name__}.{name}")
        if packed is not None:
            saved[name] = packed
    return saved


def _pack(value: Any, where: str) -> dict[str, Any] | None:
    """``{kind: plain value}``; None for what never changes or is only for pictures.

    Of the types themselves: a named tuple, an enum or a ``defaultdict`` would come back as less.
    """
    if isinstance(value, np.generic):
        return {"scalar": [value.dtype.str, value.item()]}
    if type(value) in _PLAIN:
        return {"plain": value}
    if type(value) is np.ndarray:
        if value.dtype.kind in "SU":
            return {"texts": [value.dtype.str, value.tolist()]}
        if value.dtype.kind in "biuf":
            return {"array": torch.from_numpy(value.copy())}
    if isinstance(value, np.random.Generator):
        return {"generator": value.bit_generator.state}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_pack(v, f"{where}[{i}]") for i, v in enumerate(value)]}
    if type(value) is dict:
        pairs = [[key, _pack(v, f"{where}[{key!r}]")] for key, v in value.items()]
        return {"dict": pairs}
    module = type(value).__module__
    if isinstance(value, _FIXED) or module.startswith(_PICTURES):
        return None
    if module.startswith("mujoco"):
        return {"mujoco": _save_mujoco(value)} if type(value).__name__ == "MjData" else None
    raise ContractError(
        f"{where} is a {module}.{type(value).__qualname__}, which cannot be saved as plain values. "
        "Give the environment runtime_state() and load_runtime_state(state)."
    )


def _unpack(packed: dict[str, Any] | None, now: Any) -> Any:
    """The inverse of ``_pack``; ``now`` is what stands there, for what was not packed."""
    if packed is None:
        return now
    ((kind, value),) = packed.items()
    if kind == "plain":
        return value
    if kind == "scalar":
        return np.dtype(value[0]).type(value[1])
    if kind == "texts":
        return np.array(value[1], dtype=value[0])
    if kind == "array":
        return value.cpu().numpy().copy()
    if kind == "generator":
        generator = np.random.Generator(getattr(np.random, value["bit_generator"])())
        generator.bit_generator.state = dict(value)
        return generator
    if kind == "dict":
        now = now if isinstance(now, dict) else {}
        return {key: _unpack(item, now.get(key)) for key, item in value}
    before = (
        now if isinstance(now, (list, tuple)) and len(now) == len(value) else [None] * len(value)
    )
    items = [_unpack(item, old) for item, old in zip(value, before, strict=True)]
    return tuple(items) if kind == "tuple" else items


# ---------------------------------------------------------------------- MuJoCo
def _save_mujoco(data: Any) -> dict[str, Any]:
    """Every array of ``MjData``: also what is derived, as observations read the last step's."""
    arrays = {
        name: torch.from_numpy(value.copy())
        for name in dir(data)
        if isinstance(value := getattr(data, name), np.ndarray) and value.dtype.kind in "biuf"
    }
    return {"time": data.time, "arrays": arrays}


def _load_mujoco(data: Any, saved: dict[str, Any]) -> None:
    data.time = saved["time"]
    for name, value in saved["arrays"].items():
        array = getattr(data, name)
        # those of contacts have other lengths; every step computes them anew
        if array.shape == tuple(value.shape) and array.flags.writeable:
            array[...] = value.cpu().numpy()
