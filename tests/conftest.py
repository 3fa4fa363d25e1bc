"""What all tests share: the checkout on every path, one thread, a fresh random state, no litter."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from hetmarl.conf import Settings, register, resolve

ROOT = Path(__file__).resolve().parents[1]

# What a run, a simulator or a logger drops where it is started when nobody tells it otherwise.
LITTER = ("MUJOCO_LOG.TXT", "lightning_logs", "mlruns", "mlflow.db", "multirun", "outputs", "wandb")


def pytest_configure() -> None:
    """Child processes of tests find the packages of this checkout, installed or not."""
    paths = [str(ROOT), str(ROOT / "envs"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session", autouse=True)
def _no_litter() -> Iterator[None]:
    """Fails if tests leave files in the working directory."""
    start = Path.cwd()
    before = {name for name in LITTER if (start / name).exists()}
    yield
    left = sorted({name for name in LITTER if (start / name).exists()} - before)
    assert not left, f"tests wrote {left} into {start}"


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Every test starts with the same random state and leaves PyTorch's settings as they were."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.fixture
def settings() -> Callable[..., Settings]:
    """``settings("algo.gamma=0.9", ...)`` as the command line would give them."""

    def build(*overrides: str) -> Settings:
        register(overrides)
        GlobalHydra.instance().clear()
        with initialize_config_module("hetmarl.conf", version_base="1.3"):
            config = compose("train", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        choices = HydraConfig.get().runtime.choices
        HydraConfig.instance().cfg = None
        with open_dict(config):
            del config["hydra"]
        return resolve(config, choices)

    return build
