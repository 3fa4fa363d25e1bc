"""Hydra's groups that need no file: every registered algorithm and task, from its dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from hetmarl.algorithms.registry import get_algorithm, list_algorithms
from hetmarl.conf.schema import TrainConfig
from hetmarl_envs.registry import is_family, list_tasks

FILES = Path(str(resources.files("hetmarl.conf")))
"""The YAML files of this package."""
SECTIONS = ("algo", "task", "network", "data", "eval", "checkpoint", "trainer", "logger_options")


def register(overrides: Iterable[str] = ()) -> None:
    """Puts the groups into Hydra's store; call it before Hydra composes. Repeating it is harmless.

    ``schema/*`` hold the dataclasses' defaults for the YAML files to start from. ``algo/<name>``
    and ``task/<family>/<name>`` exist for all that is registered, here or by anybody else.

    Args:
        overrides: the command line. A task in it that its family does not list but may well know
            (``mamujoco/manysegmentant_3x2``) gets its entry too.
    """
    store = ConfigStore.instance()
    store.store(group="schema", name="train", node=_root())
    for memory in ("gru", "lstm"):
        store.store(group="network", name=memory, node={"memory": memory})
    store.store(group="network", name="mlp", node={})
    for name in list_algorithms():
        entry = get_algorithm(name)
        algo = {"name": name} | defaults(entry.load("config"))
        data = defaults(entry.load("data_config"))
        store.store(group="schema/algo", name=name, node=algo)
        store.store(group="schema/data", name=name, node=data)
        network = defaults(entry.load("network"))
        store.store(group="schema/network", name=name, node=network)
        if not (FILES / "algo" / f"{name}.yaml").is_file():
            every = {"algo": algo, "data": data, "network": network}
            store.store(group="algo", name=name, node=every, package="_global_")
    for name in dict.fromkeys([*list_tasks(), *tasks_in(overrides)]):
        group, _, leaf = f"task/{name}".rpartition("/")
        store.store(group=group, name=leaf, node={"name": name})


def tasks_in(overrides: Iterable[str]) -> list[str]:
    """Tasks that overrides such as ``task=a/b`` or, for a sweep, ``task=a/b,a/c`` ask for."""
    values = [text.partition("=")[2] for text in overrides if text.startswith("task=")]
    names = [name.strip(" '\"") for value in values for name in value.split(",")]
    return [name for name in names if name.partition("/")[2] and is_family(name.partition("/")[0])]


def defaults(cls: type) -> dict[str, Any]:
    """A dataclass's fields with their defaults as plain values; ``???`` where there is none."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            values[field.name] = plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = plain(field.default_factory())
        elif field.init:
            values[field.name] = MISSING
    return values


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as what YAML can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _root() -> DictConfig:
    """The top-level keys. Sections take any key, and ``resolve`` refuses the wrong ones: it knows
    the fields of every algorithm and family, and which of them was probably meant."""
    values = defaults(TrainConfig) | {
        section: {} for section in ("algo", "task", "network", "data")
    }
    node = OmegaConf.create(values)
    for section in SECTIONS:
        OmegaConf.set_struct(node[section], False)
    return node
