"""Algorithms by name; their modules are imported when they are used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean

ENTRY_POINT_GROUP = "hetmarl.algorithms"


@dataclass(frozen=True)
class AlgorithmEntry:
    """Where an algorithm's parts stand, each as ``"package.module:Name"``.

    Args:
        name: lower case, what ``algo=`` selects.
        module: the LightningModule, called as ``module(spec, config, network, seed)``.
        config: the dataclass of its hyperparameters, ranges checked in ``__post_init__``.
        data: the LightningDataModule that feeds it, called like ``hetmarl.data.ReplayData``.
        data_config: the dataclass of the DataModule's settings.
        network: the dataclass of the networks' settings.
    """

    name: str
    module: str
    config: str
    data: str = "hetmarl.data.replay_data:ReplayData"
    data_config: str = "hetmarl.data.replay_data:ReplayDataConfig"
    network: str = "hetmarl.networks.config:NetworkConfig"

    def load(self, part: str) -> Any:
        """The class behind the entry's ``part``, such as ``"config"``."""
        module, _, attribute = getattr(self, part).partition(":")
        return getattr(importlib.import_module(module), attribute)


_algorithms: dict[str, AlgorithmEntry] = {}
_entry_points_read = False


def register_algorithm(entry: AlgorithmEntry, *, replace: bool = False) -> None:
    """Makes ``algo=<entry.name>`` known; also done by entry points that name an entry."""
    if entry.name in _algorithms and not replace:
        raise ConfigError(
            f"algorithm '{entry.name}' is registered already; pass replace=True to replace it, or "
            "choose another name."
        )
    _algorithms[entry.name] = entry


def list_algorithms() -> list[str]:
    """Names of all registered algorithms."""
    global _entry_points_read
    if not _entry_points_read:
        for point in entry_points(group=ENTRY_POINT_GROUP):
            if point.name not in _algorithms:
                register_algorithm(point.load())
        _entry_points_read = True
    return sorted(_algorithms)


def get_algorithm(name: str) -> AlgorithmEntry:
    """The entry called ``name``; UnknownNameError names the nearest."""
    known = list_algorithms()
    if name not in known:
        raise UnknownNameError(
            f"unknown algorithm '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}."
        )
    return _algorithms[name]


for _name in ("hasac", "masac"):
    register_algorithm(
        AlgorithmEntry(
            _name,
            f"hetmarl.algorithms.{_name}:{_name.upper()}",
            "hetmarl.algorithms.hasac:HASACConfig",
        )
    )
for _name, _class in {"hasac_kl": "HASACKL", "hasac_ball": "HASACBall"}.items():
    _module = f"hetmarl.algorithms.{_name}"
    register_algorithm(AlgorithmEntry(_name, f"{_module}:{_class}", f"{_module}:{_class}Config"))
register_algorithm(
    AlgorithmEntry(
        "had3qn",
        "hetmarl.algorithms.had3qn:HAD3QN",
        "hetmarl.algorithms.had3qn:HAD3QNConfig",
        network="hetmarl.networks.config:GreedyNetworkConfig",
    )
)
for _name, _config in {
    "haddpg": "haddpg:HADDPGConfig",
    "hatd3": "hatd3:HATD3Config",
    "maddpg": "haddpg:HADDPGConfig",
    "matd3": "hatd3:HATD3Config",
}.items():
    register_algorithm(
        AlgorithmEntry(
            _name,
            f"hetmarl.algorithms.{_name}:{_name.upper()}",
            f"hetmarl.algorithms.{_config}",
            network="hetmarl.networks.config:DeterministicNetworkConfig",
        )
    )
for _name, _config in {
    "happo": "happo:HAPPOConfig",
    "hatrpo": "hatrpo:HATRPOConfig",
    "haa2c": "on_policy:GradientConfig",
    "hamdpo": "hamdpo:HAMDPOConfig",
    "mappo": "happo:HAPPOConfig",
    "ippo": "happo:HAPPOConfig",
    "maa2c": "maa2c:MAA2CConfig",
    "ia2c": "maa2c:MAA2CConfig",
}.items():
    register_algorithm(
        AlgorithmEntry(
            _name,
            f"hetmarl.algorithms.{_name}:{_name.upper()}",
            f"hetmarl.algorithms.{_config}",
            data="hetmarl.data.rollout_data:RolloutData",
            data_config="hetmarl.data.rollout_data:RolloutDataConfig",
            network="hetmarl.networks.config:OnPolicyNetworkConfig",
        )
    )
