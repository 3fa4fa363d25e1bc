"""Checkpoints that are safe to share, and what exact resume needs beside them.

``last.ckpt`` and ``best.ckpt`` hold tensors and plain values only. What only a resumed run needs
(environments in mid-episode, random states, the replay's counters) goes into a companion file,
written first; ``last.ckpt`` names it by iteration and hash and replaces its predecessor in one
atomic rename. Killed at any moment, the directory holds one complete generation.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from hetmarl.checkpoint import CheckpointError, load_plain, plain_bytes, write_atomically

RESUME_KEY = "hetmarl_resume"
COMPANION_KEY = "hetmarl_companion"
COMPANIONS = Path("..", "resume")
"""Their directory, from that of the checkpoints."""


class ExactCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint plugin for plain, atomic checkpoints with a companion.

    Args:
        exact: file names that get a companion; the others lose the resume state.
    """

    def __init__(self, exact: tuple[str, ...] = ("last.ckpt",)) -> None:
        super().__init__()
        self.exact = exact

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Writes companion, then checkpoint, each whole or not at all.

        Raises:
            CheckpointError: something is no tensor and no plain value; names where it stands.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        resume = checkpoint.pop(RESUME_KEY, None)
        companion: Path | None = None
        if resume is not None and path.name in self.exact:
            data = plain_bytes(resume, RESUME_KEY)
            digest = hashlib.sha256(data).hexdigest()
            name = f"{path.stem}-{resume['iteration']:09d}-{digest[:16]}.pt"
            companion = path.parent / COMPANIONS / name
            companion.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(companion, data)
            checkpoint[COMPANION_KEY] = {"file": name, "sha256": digest}
        write_atomically(path, plain_bytes(checkpoint, "checkpoint"))
        if companion is not None:
            # older generations, and what a kill in the middle of writing has left
            for stale in companion.parent.glob(f"*{path.stem}-*"):
                if stale != companion:
                    stale.unlink()
            for stale in path.parent.glob(".*.ckpt.tmp"):
                stale.unlink()

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Reads a checkpoint, and its companion where it has one.

        Raises:
            CheckpointError: missing, corrupt, or holds more than tensors and plain values.
        """
        path = Path(path)
        checkpoint = load_plain(path)
        named = checkpoint.get(COMPANION_KEY)
        if named is None:
            return checkpoint
        companion = path.parent / COMPANIONS / named["file"]
        if companion.exists():
            data = companion.read_bytes()
            if hashlib.sha256(data).hexdigest() != named["sha256"]:
                raise CheckpointError(f"{companion} is corrupt: its hash is not the one in {path}.")
            checkpoint[RESUME_KEY] = load_plain(companion)
        return checkpoint


def gather_ranks(mine: Any) -> list[Any]:
    """Every process's object, in order of rank; Lightning saves rank 0's alone."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [mine]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, mine)
    return gathered


def random_state() -> dict[str, Any]:
    """The global random states of torch, numpy and Python, for user code that draws from them."""
    algorithm, keys, *rest = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [algorithm, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "python": list(random.getstate()),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Goes back to the moment of ``random_state``."""
    torch.set_rng_state(state["torch"])
    algorithm, keys, *rest = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
