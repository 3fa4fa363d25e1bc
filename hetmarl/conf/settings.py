"""From a composed configuration to checked settings, and back to plain values."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hetmarl.algorithms.registry import AlgorithmEntry, get_algorithm
from hetmarl.conf.schema import CheckpointConfig, EvalConfig, TaskConfig, TrainConfig, TrainerConfig
from hetmarl.typed import build, field_names, keys, unknown_key
from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean

TARGET = "_target_"


@dataclass(frozen=True)
class Settings:
    """A run's settings, every value checked.

    Args:
        train: the keys; ``algo``, ``network`` and ``data`` are dataclasses of the algorithm's.
        algorithm: what is to be trained.
        targets: import paths of a user's own parts, by section.
    """

    train: TrainConfig
    algorithm: AlgorithmEntry
    targets: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that ``resolve`` turns into these settings again."""
        from hetmarl.conf.store import plain

        values = plain(self.train)
        values["algo"] = {"name": self.algorithm.name} | values["algo"]
        task = self.train.task
        values["task"] = {"name": task.name} | plain(task.options)
        for section, target in self.targets.items():
            values[section] = {TARGET: target} | values[section]
        return values


def resolve(config: DictConfig | Mapping[str, Any], choices: Mapping[str, Any] = {}) -> Settings:
    """Checks a composed configuration, fills in defaults, and builds the dataclasses.

    Args:
        config: as Hydra composes it, or as a run's ``config.yaml`` holds it.
        choices: option chosen in each Hydra group; names a user's own ``algo`` or ``task``.

    Raises:
        UnknownNameError: no such key, algorithm or import path; names the nearest.
        ConfigError: a value of the wrong type or out of range.
    """
    values = to_plain(config)
    algo, task, network, data = (
        _section(values, name) for name in ("algo", "task", "network", "data")
    )
    targets = {
        name: section.pop(TARGET)
        for name, section in (("algo", algo), ("task", task), ("network", network))
        if section.get(TARGET)
    }
    algorithm = _algorithm(algo, targets.get("algo"))
    network_type = algorithm.load("network")
    if "network" in targets:
        network_type = import_path(targets["network"], "network")

    sections: dict[str, tuple[Mapping[str, Any], type]] = {
        "algo": (algo, algorithm.load("config")),
        "network": (network, network_type),
        "data": (data, algorithm.load("data_config")),
        "eval": (_section(values, "eval"), EvalConfig),
        "checkpoint": (_section(values, "checkpoint"), CheckpointConfig),
        "trainer": (_section(values, "trainer"), TrainerConfig),
    }
    known = [*field_names(TrainConfig)]
    known += [key for name, (_, cls) in sections.items() for key in keys(cls, name)]
    _check_keys(values, sections, known)

    for name, (section, cls) in sections.items():
        values[name] = build(cls, section, name)
    task_name = task.pop("name", None) or choices.get("task")
    if not isinstance(task_name, str):
        raise ConfigError("no task is set: task=<family>/<name>, see `hetmarl list tasks`.")
    values["task"] = TaskConfig(task_name, targets.get("task"), task)
    if isinstance(values.get("logger"), str):
        values["logger"] = [values["logger"]]
    return Settings(build(TrainConfig, values), algorithm, targets)


def known_keys(algorithm: str | None) -> list[str]:
    """All keys of the command line, those of an algorithm among them."""
    sections: dict[str, type] = {
        "eval": EvalConfig,
        "checkpoint": CheckpointConfig,
        "trainer": TrainerConfig,
    }
    try:
        entry = get_algorithm(algorithm or "hasac")
        parts = {"algo": "config", "data": "data_config", "network": "network"}
        sections |= {section: entry.load(part) for section, part in parts.items()}
    except UnknownNameError:
        pass
    return [
        *field_names(TrainConfig),
        *(key for name, cls in sections.items() for key in keys(cls, name)),
    ]


def import_path(path: str, where: str) -> Any:
    """The object at ``"package.module.name"`` or ``"package.module:name"``.

    Raises:
        ConfigError: there is none; says what is in the module.
    """
    module_name, colon, attribute = path.partition(":")
    if not colon:
        module_name, _, attribute = path.rpartition(".")
    message = f"{where}.{TARGET}='{path}'"
    if not module_name or not attribute:
        raise ConfigError(f"{message}: expected 'package.module.name'.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{message}: {error}. It is looked for in the current directory and in what is "
            "installed."
        ) from error
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(
            f"{message}: module '{module_name}' has no '{attribute}'."
            f"{did_you_mean(attribute, names)}"
        )
    return getattr(module, attribute)


def _algorithm(algo: dict[str, Any], target: str | None) -> AlgorithmEntry:
    name = algo.pop("name", None)
    if target is not None:
        entry = import_path(target, "algo")
        if not isinstance(entry, AlgorithmEntry):
            raise ConfigError(
                f"algo.{TARGET}='{target}' is a {type(entry).__name__}; expected a "
                "hetmarl.algorithms.registry.AlgorithmEntry."
            )
        return entry
    if not isinstance(name, str):
        raise ConfigError("no algorithm is set: algo=<name>, see `hetmarl list algos`.")
    return get_algorithm(name)


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name}={section!r}: expected keys of its own, such as {name}.<key>=…")
    return dict(section)


def _check_keys(
    values: Mapping[str, Any],
    sections: Mapping[str, tuple[Mapping[str, Any], type]],
    known: Iterable[str],
) -> None:
    for key in values:
        if key not in field_names(TrainConfig):
            raise unknown_key(str(key), known)
    for name, (section, cls) in sections.items():
        for key in section:
            if key in field_names(cls):
                continue
            if name == "trainer" and key in _trainer_arguments():
                raise ConfigError(f"trainer.{key} goes under extra: trainer.extra.{key}=…")
            raise unknown_key(f"{name}.{key}", known)


def _trainer_arguments() -> list[str]:
    from lightning.pytorch import Trainer

    return list(inspect.signature(Trainer.__init__).parameters)[1:]


def to_plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as dicts, lists and scalars, its interpolations resolved.

    Raises:
        ConfigError: a key without a default is not set.
    """
    if not isinstance(config, DictConfig):
        config = OmegaConf.create(dict(config))
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"{missing[0]} has no default: set {missing[0]}=… on the command line.")
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
