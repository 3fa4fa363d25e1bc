"""Lays out a directory that the game's clients take for an installed StarCraft II."""

from __future__ import annotations

import shlex
import stat
import sys
from pathlib import Path

from hetmarl_envs.errors import ConfigError
from hetmarl_envs.sc2sim import SIMULATED
from hetmarl_envs.sc2sim.scenarios import SCENARIOS

BUILD = "Base75689"
"""The build of game 4.10, which SMACv2's results are of: clients look for this folder."""
MARKER = "SIMULATED.txt"
_NOTE = f"""{SIMULATED}

This directory was made by `hetmarl sc2sim install`. There is no StarCraft II in it: SC2_x64 starts
a small simulator that speaks the game's protocol, and the maps are names only. Results measured
with it are not results on StarCraft II.
"""


def install(directory: str | Path) -> Path:
    """Makes what ``SC2PATH`` must point to; a second time it is renewed.

    Args:
        directory: new, empty, or made by this function.

    Returns:
        The directory, absolute.

    Raises:
        ConfigError: something else is in it, such as a real game.
    """
    root = Path(directory).expanduser().resolve()
    if root.is_file():
        raise ConfigError(f"{root} is a file, expected a directory.")
    if root.is_dir() and any(root.iterdir()) and not (root / MARKER).is_file():
        raise ConfigError(
            f"{root} is not empty and was not made by 'hetmarl sc2sim install'. Choose a new "
            "directory: nothing of a real game must be overwritten."
        )
    versions, maps = root / "Versions" / BUILD, root / "Maps" / "SMAC_Maps"
    for folder in (versions, maps, root / "Replays"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text(_NOTE, encoding="utf-8")
    binary = versions / "SC2_x64"
    binary.write_text(_launcher(), encoding="utf-8")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    for name in SCENARIOS:
        (maps / f"{name}.SC2Map").write_text(f"{SIMULATED}: {name}\n", encoding="utf-8")
    return root


def _launcher() -> str:
    """A script that runs the server of this installation of hetmarl with this Python."""
    envs = Path(__file__).resolve().parents[2]
    return "\n".join(
        [
            "#!/bin/sh",
            f"# {SIMULATED}",
            f"PYTHONPATH={shlex.quote(str(envs))}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export PYTHONPATH",
            f'exec {shlex.quote(sys.executable)} -m hetmarl_envs.sc2sim "$@"',
            "",
        ]
    )
