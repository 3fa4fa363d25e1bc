"""A scenario's whole state, found by walking the objects that it holds.

VMAS keeps its state as attributes spread over scenario, world, agents, landmarks, sensors, joints
and controllers. ``walk`` visits them once each and gives every value a path by which the same
value is found in another instance of the scenario. Two things are built on it: saving and loading
a simulator as tensors and plain values, and copying single sub-environments between simulators.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, MutableMapping, MutableSequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hetmarl_envs.errors import ContractError

_Container = MutableMapping[Any, Any] | MutableSequence[Any]
_PLAIN = (int, float, bool, str, type(None), np.generic)
# Attributes that cache what is computed anew in every step (football's distances between players).
_RECOMPUTED = frozenset({"team_disps"})
_OPAQUE = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    torch.device,
    torch.dtype,
    torch.Size,
    set,
    frozenset,
)


@dataclass
class Slot:
    """One value of the graph: ``container[key]``."""

    container: _Container
    key: Any
    value: Any


@dataclass
class Graph:
    """What ``walk`` found.

    Attributes:
        tensors: path to slot of every tensor.
        plain: path to slot of every number, string, None, or tuple of these.
        references: path to slot of every object, list or dict.
        containers: path to what holds the slots below it (an object's ``__dict__``, a list, a
            dict), each under the path where it was met first.
        owners: path to the object, list or dict itself.
        arrays: paths of numpy arrays, which no scenario of VMAS holds.
    """

    tensors: dict[str, Slot] = field(default_factory=dict)
    plain: dict[str, Slot] = field(default_factory=dict)
    references: dict[str, Slot] = field(default_factory=dict)
    containers: dict[str, _Container] = field(default_factory=dict)
    owners: dict[str, Any] = field(default_factory=dict)
    paths: dict[int, str] = field(default_factory=dict)
    arrays: list[str] = field(default_factory=list)

    def reference(self, path: str) -> str:
        """Path under which the object at ``path`` was met first."""
        return self.paths[id(self.references[path].value)]


def walk(scenario: Any) -> Graph:
    """Visits everything that ``scenario`` holds.

    Landmarks and agents come first, so that their paths do not depend on who happens to point at
    them (which goal an agent has changes at a reset). Functions, classes, sets and enumeration
    members other than of plain value are left out: they hold no state.
    """
    graph = Graph()
    world = scenario.world
    for name, entities in (("landmarks", world.landmarks), ("agents", world.agents)):
        for i, entity in enumerate(entities):
            path = f"{name}/{i}"
            graph.paths[id(entity)] = path
            graph.owners[path] = entity
            graph.containers[path] = vars(entity)
    for path, container in list(graph.containers.items()):
        _visit(graph, path, container)
    graph.owners["scenario"] = scenario
    graph.paths[id(scenario)] = "scenario"
    graph.containers["scenario"] = vars(scenario)
    _visit(graph, "scenario", vars(scenario))
    return graph


def _items(container: Any) -> Iterator[tuple[str, Any, Any]]:
    """(path component, key, value) of a container; odd dict keys are named by their position."""
    if isinstance(container, MutableMapping):
        for i, (key, value) in enumerate(container.items()):
            yield (key if isinstance(key, str) else f"#{i}"), key, value
    else:
        for i, value in enumerate(container):
            yield str(i), i, value


def is_plain(value: Any) -> bool:
    """Whether ``value`` is a number, a string, None, or a tuple of these."""
    if isinstance(value, tuple):
        return all(is_plain(item) for item in value)
    return isinstance(value, _PLAIN) and not isinstance(value, Enum)


def _visit(graph: Graph, path: str, container: Any) -> None:
    for name, key, value in _items(container):
        if name in _RECOMPUTED:
            continue
        if isinstance(value, Enum):  # a colour: VMAS reads its value
            value = value.value
        here = f"{path}/{name}"
        if isinstance(value, Tensor):
            graph.tensors[here] = Slot(container, key, value)
        elif isinstance(value, np.ndarray):
            graph.arrays.append(here)
        elif is_plain(value):
            graph.plain[here] = Slot(container, key, value)
        elif not isinstance(value, _OPAQUE):
            below = _container_of(value)
            if below is None:
                continue
            graph.references[here] = Slot(container, key, value)
            if id(value) not in graph.paths:
                graph.paths[id(value)] = here
                graph.owners[here] = value
                graph.containers[here] = below
                _visit(graph, here, below)


def _container_of(value: Any) -> Any:
    if isinstance(value, (MutableMapping, MutableSequence, tuple)):
        return value
    return getattr(value, "__dict__", None)


# ---------------------------------------------------------------------- saving and loading
def save(scenario: Any) -> dict[str, Any]:
    """The scenario's state as tensors and plain values.

    Returns:
        ``tensors`` (path to tensor), ``aliases`` (path to the path of the very same tensor),
        ``plain`` (path to value) and ``references`` (path to the path of the object it names).

    Raises:
        ContractError: the scenario holds numpy arrays.
    """
    graph = walk(scenario)
    if graph.arrays:
        raise ContractError(
            f"{type(scenario).__name__} holds numpy arrays ({', '.join(graph.arrays)}), which are "
            "not saved. Hold its state in torch tensors."
        )
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for path, slot in graph.tensors.items():
        if id(slot.value) in first:
            aliases[path] = first[id(slot.value)]
        else:
            first[id(slot.value)] = path
            tensors[path] = slot.value.detach().clone()
    return {
        "tensors": tensors,
        "aliases": aliases,
        "plain": {path: _builtin(slot.value) for path, slot in graph.plain.items()},
        "references": {path: graph.reference(path) for path in graph.references},
    }


def _builtin(value: Any) -> Any:
    """``value`` without numpy's, torch's and others' subclasses of the builtin types."""
    if isinstance(value, tuple):
        return tuple(_builtin(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def missing(scenario: Any, state: dict[str, Any]) -> str | None:
    """A path of a saved state for which the scenario has no place, or None.

    A scenario that has not been stepped yet may lack what the first step creates.
    """
    graph = walk(scenario)
    wanted = set(state["references"].values())
    parents = (path.rpartition("/")[0] for name in _KINDS for path in state[name])
    return next((path for path in (*wanted, *parents) if path not in graph.containers), None)


def load(scenario: Any, state: dict[str, Any]) -> None:
    """Puts a state of ``save`` into a scenario that was built alike.

    Raises:
        ContractError: the scenario has no place for a saved value.
    """
    path = missing(scenario, state)
    if path is not None:
        raise _mismatch(path)
    graph = walk(scenario)
    device = scenario.world.device
    for path, target in state["references"].items():
        if path not in graph.references or graph.reference(path) != target:
            _assign(graph, path, graph.owners[target])
    tensors: dict[str, Tensor] = {}
    for path, value in state["tensors"].items():
        tensors[path] = value.to(device, copy=True)
        _assign(graph, path, tensors[path])
    for path, source in state["aliases"].items():
        _assign(graph, path, tensors[source])
    for path, value in state["plain"].items():
        if path not in graph.plain or graph.plain[path].value != value:
            _assign(graph, path, value)
    for slots in (graph.tensors, graph.plain, graph.references):
        for path, slot in slots.items():  # created since the state was saved
            known = any(path in state[name] for name in _KINDS)
            if not known and isinstance(slot.container, dict):
                del slot.container[slot.key]


_KINDS = ("tensors", "aliases", "plain", "references")


def _assign(graph: Graph, path: str, value: Any) -> None:
    parent, _, name = path.rpartition("/")
    if parent not in graph.containers:
        raise _mismatch(path)
    container = graph.containers[parent]
    key: Any = name
    if isinstance(container, MutableSequence):
        key = int(name)
        if key >= len(container):
            raise _mismatch(path)
    elif name.startswith("#"):
        key = list(container)[int(name[1:])]
    if isinstance(container, tuple):
        if isinstance(value, Tensor):
            container[int(name)].copy_(value)
        elif container[int(name)] is not value and container[int(name)] != value:
            raise _mismatch(path)
        return
    container[key] = value


def _mismatch(path: str) -> ContractError:
    return ContractError(
        f"the saved VMAS state has a value at '{path}' for which this environment has no place. "
        "Load it into an environment of the same scenario, options and num_envs."
    )


# ---------------------------------------------------------------------- copying rows
class RowCopier:
    """Copies sub-environments from one simulator to another of the same scenario.

    The two must differ in their number of sub-environments, N and M: a tensor holds one row per
    sub-environment exactly if it has N leading rows in the one and M in the other, and equal
    further axes. A tensor that fits neither this nor equal shapes, or that only the target has,
    proves nothing, and ``provable`` is False: then rows must not be copied.

    Args:
        target: scenario with N sub-environments.
        source: scenario with M sub-environments.
    """

    def __init__(self, target: Any, source: Any) -> None:
        self._target, self._source = target, source
        self._plan()

    def provable(self) -> bool:
        """Whether every tensor of the target is known to hold rows, or to hold none."""
        if self._changed():
            self._plan()
        return not self.unproven

    def _plan(self) -> None:
        target, source = walk(self._target), walk(self._source)
        sizes = (self._target.world.batch_dim,), (self._source.world.batch_dim,)
        self.unproven = list(target.arrays)
        self._pairs: list[tuple[_Container, Any, _Container, Any]] = []
        for path, slot in target.tensors.items():
            twin = source.tensors.get(path)
            if twin is None:
                self.unproven.append(path)
                continue
            shape, twin_shape = slot.value.shape, twin.value.shape
            if (shape[:1], twin_shape[:1]) == sizes and shape[1:] == twin_shape[1:]:
                if isinstance(slot.container, tuple):
                    self.unproven.append(path)
                self._pairs.append((slot.container, slot.key, twin.container, twin.key))
            elif shape != twin_shape:
                self.unproven.append(path)
        graphs = (target, source)
        self._lengths = [(c, len(c)) for g in graphs for c in g.containers.values()]
        self._objects = [s for g in graphs for s in g.references.values()]
        self._unset = [s for g in graphs for s in g.plain.values() if s.value is None]

    def _changed(self) -> bool:
        """Whether either simulator holds other objects or slots than at the last ``_plan``."""
        return (
            any(len(container) != length for container, length in self._lengths)
            or any(slot.container[slot.key] is not slot.value for slot in self._objects)
            or any(slot.container[slot.key] is not None for slot in self._unset)
        )

    def copy(self, to: Tensor, rows: Tensor) -> bool:
        """Copies ``rows`` of the source onto the rows ``to`` of the target.

        Every tensor is replaced, never written into: it may be a view that another shares.

        Args:
            to: rows of the target ``[k]``.
            rows: rows of the source ``[k]``.

        Returns:
            Whether it was done; False, and nothing is touched, where it cannot be proven right.
        """
        if not self.provable():
            return False
        done: dict[tuple[int, int], Tensor] = {}
        values = []
        for target, key, source, twin_key in self._pairs:
            old, new = target[key], source[twin_key]
            pair = (id(old), id(new))
            if pair not in done:
                done[pair] = old.index_copy(0, to, new.index_select(0, rows).to(old.dtype))
            values.append(done[pair])
        for (target, key, _, _), value in zip(self._pairs, values, strict=True):
            target[key] = value
        return True

    def shared_state_differs(self) -> bool:
        """Whether the two differ in what their sub-environments have in common.

        Such as a goal that is drawn once for the whole batch. Then the target's observation of a
        copied row is not the source's.
        """
        target, source = walk(self._target), walk(self._source)
        sizes = self._target.world.batch_dim, self._source.world.batch_dim
        alike = {sizes, ((sizes[0],), (sizes[1],))}  # the latter are torch's batch shapes
        for path in target.references:
            if path not in source.references or target.reference(path) != source.reference(path):
                return True
        for path, slot in target.plain.items():
            twin = source.plain.get(path)
            if twin is None or slot.value == twin.value:
                continue
            if (_builtin(slot.value), _builtin(twin.value)) not in alike:
                return True
        return any(
            slot.value.shape == source.tensors[path].value.shape
            and not torch.equal(slot.value, source.tensors[path].value)
            for path, slot in target.tensors.items()
            if path in source.tensors
        )
