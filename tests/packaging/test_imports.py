"""Every module imports, alone, with the core dependencies only; ``import hetmarl`` is light."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.packaging.source_tree import modules

# Imports each module in a fork of one process that has the heavy third parties loaded, so that
# every module comes first once: an import that works only after another one is found.
IMPORT_EACH_ALONE = """
import os, sys, traceback
import torch, torchrl.envs, torchrl.objectives, lightning.pytorch, hydra
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            __import__(name)
        except BaseException:
            print(f"--- import {name}", file=sys.stderr)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(f"failed: {failed}" if failed else 0)
"""

# What is imported when an environment is made, or by the processes of games, and the package that
# it is made for.
OF_EXTRAS = {
    "hetmarl_envs.grid.foraging": "lbforaging",
    "hetmarl_envs.grid.warehouse": "rware",
    "hetmarl_envs.sc2sim.game": "s2clientprotocol",
    "hetmarl_envs.sc2sim.server": "s2clientprotocol",
    "hetmarl_envs.smacv2.game": "smacv2",
    "hetmarl_envs.smax.battles": "jax",
    "hetmarl_envs.smax.env": "jax",
}

NOT_AT_IMPORT = (
    # training and configuration
    "lightning",
    "pytorch_lightning",
    "hydra",
    "omegaconf",
    # simulators
    "jax",
    "jaxmarl",
    "lbforaging",
    "mujoco",
    "gymnasium_robotics",
    "libsumo",
    "mpe2",
    "pettingzoo",
    "pygame",
    "pysc2",
    "rware",
    "smacv2",
    "sumo_rl",
    "vmas",
    # actors on other machines
    "ray",
    # loggers and pictures
    "imageio_ffmpeg",
    "matplotlib",
    "mlflow",
    "neptune",
    "tensorboard",
    "wandb",
)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::DeprecationWarning:hetmarl", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(sys, "setdlopenflags"), reason="forks: POSIX only")
def test_every_module_imports_first() -> None:
    names = [m for m in modules() if m not in OF_EXTRAS or find_spec(OF_EXTRAS[m]) is not None]
    result = run(IMPORT_EACH_ALONE, *names)
    assert result.returncode == 0, result.stderr


def brought_by(code: str, given: str = "") -> list[str]:
    """Packages of NOT_AT_IMPORT that ``code`` loads, beyond those that ``given`` loads."""
    probe = (
        f"import sys; {given or 'pass'}; before = set(sys.modules); {code}; "
        f"print(*[n for n in {NOT_AT_IMPORT!r} if n in set(sys.modules) - before])"
    )
    result = run(probe)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


# TorchRL itself imports MuJoCo where it is installed: only what comes on top is ours.
def test_import_hetmarl_is_light() -> None:
    assert brought_by("import hetmarl", "import torchrl.envs") == []


@pytest.mark.slow
@pytest.mark.parametrize("room", ["hetmarl.networks", "hetmarl.objectives", "hetmarl.engines"])
def test_parts_for_other_projects_bring_neither_lightning_nor_hydra(room: str) -> None:
    assert brought_by(f"import {room}", "import torchrl.envs, torchrl.objectives") == []


def test_listing_tasks_imports_no_simulator() -> None:
    code = "import hetmarl_envs; assert len(hetmarl_envs.list_tasks()) > 50"
    assert brought_by(code, "import torchrl.envs") == []
