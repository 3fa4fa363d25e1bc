"""Composes configurations in this process."""

from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from hetmarl.conf import Settings, register, resolve


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
