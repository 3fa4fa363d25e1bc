"""Where a replay's arrays lie, and whether they fit there."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hetmarl_envs.errors import ConfigError, HetmarlError


class Storage:
    """Arrays in the memory of a device, or memory-mapped in a directory.

    Args:
        device: of arrays in memory.
        directory: of memory-mapped ones; None: in memory.
        keep: take the directory's files as they are, to go on from a checkpoint.
    """

    def __init__(
        self, device: torch.device, directory: Path | None = None, keep: bool = False
    ) -> None:
        self.device = device if directory is None else torch.device("cpu")
        self.directory = directory
        self._keep = keep
        self._files: list[np.memmap] = []

    def array(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An array of zeros, or what is left of it.

        In files, and in the memory of a CPU, what is never written takes no room.

        Raises:
            HetmarlError: its file is to be kept and is not there.
        """
        if self.directory is None:
            return torch.zeros(shape, dtype=dtype, device=self.device)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{name}.bin"
        if self._keep and not path.exists():
            raise HetmarlError(
                f"the replay's array {path.name} is missing from {self.directory}; without it the "
                "run cannot be resumed exactly. Start a new run."
            )
        plain = torch.empty(0, dtype=dtype).numpy().dtype
        file = np.memmap(path, dtype=plain, mode="r+" if self._keep else "w+", shape=shape)
        self._files.append(file)
        return torch.from_numpy(file)

    def flush(self) -> None:
        """Writes to disk what is not there yet."""
        for file in self._files:
            file.flush()


@dataclass
class Need:
    """What a replay takes.

    Args:
        frames: that it will hold.
        frame_bytes: of each.
        final_bytes: of each episode that ended, besides.
        processes: how many have one like it on the same disk.
        local_processes: how many have one like it in the same memory.
    """

    frames: int
    frame_bytes: int
    final_bytes: int
    processes: int = 1
    local_processes: int = 1

    def describe(self, storage: Storage) -> str:
        """One line for a person."""
        where = f"in the memory of {storage.device}"
        if storage.directory is not None:
            where = f"on disk, in {storage.directory}"
        several = f" in each of {self.processes} processes" if self.processes > 1 else ""
        return (
            f"Replay: {_size(self.frames * self.frame_bytes)} {where}{several} "
            f"({self.frames:,} frames of {self.frame_bytes:,} bytes, and {self.final_bytes:,} "
            "bytes for each end of an episode in it)."
        )

    def check(self, storage: Storage) -> None:
        """Refuses what does not fit: the operating system would kill the process, later.

        Raises:
            ConfigError: with the numbers, and what to set.
        """
        size = self.frames * self.frame_bytes
        directory, device = storage.directory, storage.device
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            there = 512 * sum(getattr(f.stat(), "st_blocks", 0) for f in directory.glob("*.bin"))
            several = self.processes
            needed, free = several * max(0, size - there), shutil.disk_usage(directory).free
            what = f"the replay in {directory} will take {_size(needed)} more"
            whose, otherwise = "its disk", "data.storage=memory, or a run_dir on another disk"
        else:
            several = 1 if device.type == "cuda" else self.local_processes
            needed = several * size
            found = free_memory(device)
            if found is None:
                return
            free, what = found, f"the replay will take {_size(needed)} of memory"
            whose = str(device)
            otherwise = "data.storage=disk" + ("" if device.type == "cpu" else " or memory")
        if needed > free:
            each = f" in each of {several} processes" if several > 1 else ""
            raise ConfigError(
                f"{what} ({self.frames:,} frames of {self.frame_bytes:,} bytes{each}), and "
                f"{whose} has {_size(free)} free. Set a smaller data.buffer_size, {otherwise}."
            )


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can still have of a device's memory; None where nobody says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + kept
    if device.type != "cpu":
        return None
    found = [left() for left in (_available, _control_group)]
    return min((value for value in found if value is not None), default=None)


def _available() -> int | None:
    """What Linux says is available, its caches included; else all there is."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _control_group(
    root: Path = Path("/sys/fs/cgroup"), me: Path = Path("/proc/self/cgroup")
) -> int | None:
    """What a container or a cluster's job may still have (control groups, version 2)."""
    try:
        lines = me.read_text().splitlines()
    except OSError:
        return None
    left: int | None = None
    for line in lines:
        if not line.startswith("0::"):
            continue
        mine = root / line[3:].strip("/")
        for group in (mine, *(p for p in mine.parents if p.is_relative_to(root))):
            try:
                limit = int((group / "memory.max").read_text())  # "max": no limit
                used = int((group / "memory.current").read_text())
                pairs = (row.split() for row in (group / "memory.stat").read_text().splitlines())
                kinds = {name: int(value) for name, value in pairs}
            except (OSError, ValueError):
                continue
            # files' pages are given back when memory is short
            here = max(0, limit - used + kinds.get("file", 0) - kinds.get("shmem", 0))
            left = here if left is None else min(left, here)
    return left


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
