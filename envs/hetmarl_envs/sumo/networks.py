"""The networks by name, and what can be set of a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean
from hetmarl_envs.options import FLAG, Kind, check, whole

CUSTOM = "custom"
"""The task whose network the user names: ``net_file`` and ``route_file``."""

REWARDS = ("queue", "diff-waiting-time", "average-speed", "pressure")


@dataclass(frozen=True)
class Network:
    """A network of RESCO, with RESCO's times in seconds.

    ``begin_time``: of the day, when the episode starts. ``delta_time``: between two decisions of a
    junction. ``yellow_time``: of which yellow, where the lights change.
    """

    begin_time: int
    delta_time: int = 10
    yellow_time: int = 3
    routes: str = "{name}.rou.xml"


NETWORKS = {
    "arterial4x4": Network(0, delta_time=5, yellow_time=2, routes="{name}_1.rou.xml"),
    "cologne1": Network(25200),
    "cologne3": Network(25200),
    "cologne8": Network(25200),
    "grid4x4": Network(0, routes="{name}_1.rou.xml"),
    "ingolstadt1": Network(57600),
    "ingolstadt21": Network(57600),
    "ingolstadt7": Network(57600),
}


def simulation_arguments(
    task: str,
    *,
    num_seconds: int = 3600,
    begin_time: int | None = None,
    delta_time: int | None = None,
    yellow_time: int | None = None,
    min_green: int = 5,
    reward_fn: str = "queue",
    fixed_ts: bool = False,
    time_to_teleport: int = -1,
    max_depart_delay: int = -1,
    waiting_time_memory: int = 1000,
    net_file: str | None = None,
    route_file: str | None = None,
) -> dict[str, Any]:
    """Checked keyword arguments of ``sumo_rl.SumoEnvironment``; all times in seconds.

    Args:
        task: a name of ``NETWORKS``, or ``"custom"``.
        num_seconds: length of an episode, a multiple of ``delta_time``.
        begin_time, delta_time, yellow_time: None: the network's, see ``Network``.
        min_green: a light that changes earlier stays as it is.
        reward_fn: each junction's own reward, of ``REWARDS``.
        fixed_ts: the network's own programs switch the lights; actions are ignored.
        time_to_teleport: a vehicle that is stuck for so long is moved on; -1: never.
        max_depart_delay: one that could not enter for so long is given up; -1: never.
        waiting_time_memory: over which ``diff-waiting-time`` adds up a vehicle's waiting.
        net_file, route_file: of ``custom``, and of no other task.

    Raises:
        UnknownNameError: no such network.
        ConfigError: a value is wrong.
    """
    where = f"sumo/{task}"
    if task not in (*NETWORKS, CUSTOM):
        names = [*NETWORKS, CUSTOM]
        raise UnknownNameError(
            f"no network '{task}'.{did_you_mean(task, names)} Networks: {', '.join(names)}."
        )
    network = NETWORKS.get(task, Network(0))
    times = {
        "num_seconds": (num_seconds, 1),
        "begin_time": (network.begin_time if begin_time is None else begin_time, 0),
        "delta_time": (network.delta_time if delta_time is None else delta_time, 1),
        "yellow_time": (network.yellow_time if yellow_time is None else yellow_time, 0),
        "min_green": (min_green, 0),
        "time_to_teleport": (time_to_teleport, -1),
        "max_depart_delay": (max_depart_delay, -1),
        "waiting_time_memory": (waiting_time_memory, 1),
    }
    for name, (value, least) in times.items():
        check(where, name, value, Kind(f"whole seconds >= {least}", whole(least).fits))
    found = {name: value for name, (value, _) in times.items()}
    if found["delta_time"] <= found["yellow_time"]:
        raise ConfigError(
            f"{where}: delta_time={found['delta_time']} must be longer than the yellow_time="
            f"{found['yellow_time']} that it contains."
        )
    if num_seconds % found["delta_time"]:
        raise ConfigError(
            f"{where}: num_seconds={num_seconds} is no multiple of delta_time="
            f"{found['delta_time']}."
        )
    if reward_fn not in REWARDS:
        raise ConfigError(
            f"{where}: reward_fn={reward_fn!r}.{did_you_mean(str(reward_fn), REWARDS)} Expected "
            f"one of {', '.join(REWARDS)}."
        )
    check(where, "fixed_ts", fixed_ts, FLAG)
    return {
        **found,
        **_files(task, network, net_file, route_file),
        "reward_fn": reward_fn,
        "fixed_ts": fixed_ts,
    }


def _files(
    task: str, network: Network, net_file: str | None, route_file: str | None
) -> dict[str, str]:
    given = {"net_file": net_file, "route_file": route_file}
    if task != CUSTOM:
        if net_file is not None or route_file is not None:
            raise ConfigError(
                f"sumo/{task} has its own net_file and route_file; for yours take sumo/{CUSTOM}."
            )
        from importlib.util import find_spec

        package = find_spec("sumo_rl")
        assert package is not None and package.origin is not None  # the family requires it
        folder = Path(package.origin).parent / "nets" / "RESCO" / task
        given = {
            "net_file": str(folder / f"{task}.net.xml"),
            "route_file": str(folder / network.routes.format(name=task)),
        }
    files = {}
    for name, file in given.items():
        if file is None or not Path(file).is_file():
            raise ConfigError(f"sumo/{task}: {name}={file!r}, expected a file of SUMO's.")
        files[name] = str(Path(file).resolve())
    return files
