"""``hetmarl doctor``: versions, what is installed, which tasks work and how to get the others."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from hetmarl import __version__
from hetmarl.algorithms.registry import list_algorithms
from hetmarl.cli.errors import clear_errors
from hetmarl_envs.errors import ConfigError
from hetmarl_envs.registry import families, get_family, list_tasks, make_env

USAGE = """usage: hetmarl doctor [family]

Versions, what is installed, which tasks work; of one family of tasks: what is missing, with the
steps that bring it."""
PACKAGES = "torch torchrl tensordict lightning hydra-core numpy mujoco gymnasium".split()
PACKAGES += ["gymnasium-robotics", "vmas"]
# Package to what it gives; its name on the index is also that of hetmarl's extra.
OPTIONAL = {
    "ray": "data.mode=ray, actors on other machines",
    "tensorboard": "logger=[tensorboard]",
    "wandb": "logger=[wandb]",
    "mlflow": "logger=[mlflow]",
    "neptune": "logger=[neptune], its offline files: the hosted service ended in March 2026",
}


@dataclass(frozen=True)
class FamilyReport:
    """A family of tasks: how many there are, whether one could be made and stepped.

    ``status``: ``works``, ``FAILS``, ``absent`` (something is not installed), or ``untried`` (it
    lists no task to try). ``detail`` may have several lines.
    """

    name: str
    tasks: int
    status: str
    detail: str


def main(arguments: Sequence[str]) -> None:
    """Prints the report; exits with 1 where an installed family does not work."""
    with clear_errors():
        if "-h" in arguments or "--help" in arguments:
            print(USAGE)
            return
        if len(arguments) > 1:
            given = " ".join(arguments)
            raise ConfigError(f"doctor takes at most one family of tasks, given {given}.\n{USAGE}")
        if arguments:
            one_family(get_family(arguments[0]).name)
            return
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"  {'hetmarl':<20} {__version__}")
    for package in PACKAGES:
        print(f"  {package:<20} {installed(package) or 'not installed'}")
    print(f"Accelerator\n  {accelerator()}")
    print(f"Algorithms\n  {', '.join(list_algorithms())}")
    print("Tasks")
    reports = [check_family(name) for name in families()]
    for report in reports:
        first, *more = report.detail.splitlines()
        rest = f" … (hetmarl doctor {report.name})" if more else ""
        print(f"  {report.name:<12} {report.status:<7} {report.tasks:>3} tasks  {first}{rest}")
    print("Optional")
    for package, use in OPTIONAL.items():
        found = installed(package)
        print(f"  {package:<12} {found or f'pip install {package}':<24} {use}")
    encoder = "installed" if find_spec("imageio_ffmpeg") else "pip install imageio-ffmpeg"
    print(f"  {'mp4':<12} {encoder:<24} hetmarl render out=team.mp4")
    if any(report.status == "FAILS" for report in reports):
        raise SystemExit(1)


def one_family(name: str) -> None:
    """Prints all that is to be said of one family; exits with 1 where it does not work."""
    report = check_family(name)
    print(f"{report.name}: {report.status}, {report.tasks} tasks\n{report.detail}")
    if report.status in ("absent", "FAILS"):
        raise SystemExit(1)


def check_family(name: str) -> FamilyReport:
    """Makes one of a family's tasks, two environments of it, and takes a step."""
    tasks: list[str] = []
    try:
        family = get_family(name)
        tasks = list_tasks(name)
        missing = family.missing()
        if missing:
            return FamilyReport(
                name, len(tasks), "absent", f"needs {', '.join(missing)}: {family.install}"
            )
        problem = family.problem() if family.problem is not None else ""
        if problem:
            return FamilyReport(name, len(tasks), "absent", problem)
        if not tasks:
            return FamilyReport(name, 0, "untried", "takes names that it does not list")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = make_env(tasks[0], num_envs=2, seed=0)
            reward = env.rollout(1)["next", "reward"]
            notes = "".join(f"; {key}: {value}" for key, value in getattr(env, "notes", {}).items())
            env.close()
        if not torch.isfinite(reward).all():
            return FamilyReport(name, len(tasks), "FAILS", f"{tasks[0]} gives reward {reward}")
        return FamilyReport(name, len(tasks), "works", f"tried {tasks[0]}{notes}")
    except Exception as error:  # whatever a broken simulator may raise: this is what is asked for
        return FamilyReport(name, len(tasks), "FAILS", f"{type(error).__name__}: {error}")


def installed(package: str) -> str | None:
    """The version of a package, None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def accelerator() -> str:
    """What torch computes on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"CPU, {cores} cores, {torch.get_num_threads()} torch threads"]
    for index in range(torch.cuda.device_count()):
        parts.append(f"CUDA {torch.version.cuda}: {torch.cuda.get_device_name(index)}")
    if torch.backends.mps.is_available():
        parts.append("Apple MPS")
    return "; ".join(parts)
