"""The family ``smacv2/...`` and what must be there for it."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from hetmarl_envs.registry import Family, lazily
from hetmarl_envs.smacv2.tasks import task_names

INSTALL = """pip install "hetmarl[smacv2]"
  pip install --no-deps pysc2
  pip install --no-deps git+https://github.com/oxwhirl/smacv2
(smacv2 is on no package index; --no-deps: both ask for a protobuf that loggers cannot use)"""

_GAME = """unpack StarCraft II 4.10 for Linux, https://github.com/Blizzard/s2client-proto#downloads
  export SC2PATH=<its directory>   (default: ~/StarCraftII)
or, to try things out without the game, install the simulator:
  hetmarl sc2sim install ~/sc2sim && export SC2PATH=~/sc2sim"""
_MAPS = """the maps of https://github.com/oxwhirl/smacv2, folder
  smacv2/env/starcraft2/maps/SMAC_Maps, copied to {maps}; the tasks of SMACv2 need 32x32_flat.SC2Map
  only"""


def problem() -> str:
    """What is missing besides packages, with the steps; empty where nothing is."""
    try:
        import_module("s2clientprotocol.sc2api_pb2")
    except Exception as error:  # the old package with a new protobuf: TypeError
        return (
            f"s2clientprotocol does not work here ({type(error).__name__}: {error}):\n"
            "  pip uninstall s2clientprotocol\n"
            '  pip install --force-reinstall pys2clientprotocol "protobuf>=6,<8"'
        )
    root = Path(os.environ.get("SC2PATH", "~/StarCraftII")).expanduser()
    binaries = list(root.glob("Versions/Base*/SC2_x64"))
    if not binaries:
        return f"no StarCraft II in {root}:\n  {_GAME}"
    if not os.access(binaries[0], os.X_OK):
        return f"{binaries[0]} cannot be executed:\n  chmod +x {binaries[0]}"
    maps = root / "Maps" / "SMAC_Maps"
    if not (maps / "32x32_flat.SC2Map").is_file():
        return f"no map 32x32_flat.SC2Map in {maps}:\n  {_MAPS.format(maps=maps)}"
    return ""


FAMILY = Family(
    name="smacv2",
    make=lazily("hetmarl_envs.smacv2.env:SMACv2Env"),
    tasks=task_names,
    # the last three are of pysc2, which is installed without what it depends on
    requires=("s2clientprotocol", "pysc2", "smacv2", "absl", "websocket", "portpicker"),
    install=INSTALL,
    problem=problem,
)
