"""Algorithms by name, and hyperparameters out of range."""

from __future__ import annotations

import math
import re

import pytest

from hetmarl.algorithms import (
    HASAC,
    AlgorithmEntry,
    HASACConfig,
    get_algorithm,
    list_algorithms,
    register_algorithm,
    registry,
)
from hetmarl.data import ReplayData, ReplayDataConfig
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.errors import ConfigError, UnknownNameError


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_algorithms", dict(registry._algorithms))


def test_hasac_and_its_parts() -> None:
    entry = get_algorithm("hasac")
    parts = [entry.load(part) for part in ("module", "config", "data", "data_config")]
    assert parts == [HASAC, HASACConfig, ReplayData, ReplayDataConfig]


def test_unknown_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown algorithm 'hasca'. Did you mean 'hasac'"):
        get_algorithm("hasca")


def test_somebody_elses() -> None:
    entry = AlgorithmEntry("mine", "hetmarl.algorithms.hasac:HASAC", f"{__name__}:MyConfig")
    register_algorithm(entry)
    assert "mine" in list_algorithms() and get_algorithm("mine") is entry
    with pytest.raises(ConfigError, match="algorithm 'mine' is registered already; pass replace="):
        register_algorithm(entry)
    register_algorithm(entry, replace=True)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *((name, "fixed_order") for name in ("mappo", "ippo", "maa2c", "ia2c")),
        *((name, "allow_shared_sequential") for name in ("mappo", "ia2c", "masac", "matd3")),
    ],
)
def test_who_moves_at_once_has_no_order(name: str, key: str) -> None:
    """Whether agents share parameters or not."""
    entry, spec = get_algorithm(name), TeamSpec.from_env(make_env("games/climbing"))
    config = entry.load("config")(**{key: True})
    for sharing in ("none", "full"):
        network = entry.load("network")(sharing=sharing)
        with pytest.raises(ConfigError, match=rf"algo\.{key}=true: expected false, as {name} upd"):
            entry.load("module")(spec, config, network)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_step", 0),
        ("batch_size", 0),
        ("updates_per_step", 0.0),
        ("actor_lr", -1e-3),
        ("critic_lr", 0.0),
        ("alpha", 0.0),
        ("alpha_lr", math.nan),
        ("gamma", 0.0),
        ("gamma", 1.01),
        ("polyak", 0.0),
        ("polyak", 1.5),
        ("max_grad_norm", 0.0),
    ],
)
def test_hyperparameters_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"algo.{name}={value}: expected ")):
        HASACConfig(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames_per_batch": 0}, "data.frames_per_batch=0: expected a number of frames of at lea"),
        ({"warmup_frames": -1}, "data.warmup_frames=-1"),
        ({"buffer_size": 0}, "data.buffer_size=0"),
        ({"storage": "cloud"}, "data.storage='cloud': expected 'disk', 'memory' or 'device'"),
    ],
)
def test_data_settings_out_of_range(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReplayDataConfig(**settings)
