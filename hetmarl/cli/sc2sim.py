"""``hetmarl sc2sim install <dir>``: a simulated StarCraft II for the tasks ``smacv2/...``."""

from __future__ import annotations

from collections.abc import Sequence

from hetmarl.cli.errors import clear_errors
from hetmarl_envs.errors import ConfigError
from hetmarl_envs.sc2sim import SIMULATED
from hetmarl_envs.sc2sim.install import install

USAGE = """usage: hetmarl sc2sim install <dir>

Lays out what SC2PATH must point to. It is no StarCraft II: a small simulator that speaks the game's
protocol, so that the tasks smacv2/... run without the game. Results on it say that they are
simulated, and are not results on StarCraft II."""


def main(arguments: Sequence[str]) -> None:
    """Makes the directory and says what to do with it."""
    with clear_errors():
        if "-h" in arguments or "--help" in arguments:
            print(USAGE)
            return
        if len(arguments) != 2 or arguments[0] != "install":
            raise ConfigError(f"expected 'install' and a directory.\n{USAGE}")
        directory = install(arguments[1])
    print(f"{SIMULATED} is in {directory}. Now:\n  export SC2PATH={directory}")
