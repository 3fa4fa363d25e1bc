"""The simulated game, laid out and started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hetmarl_envs.sc2sim.install import install

from .sc2_client import Client, Server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("sc2") / "game")


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    with Server(root) as server, server.connect() as connection:
        yield Client(connection)
