"""Checkpoint files that are safe to share, and the policy in them. Needs no Lightning."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hetmarl.networks import NetworkConfig, TeamPolicy
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import HetmarlError


class CheckpointError(HetmarlError):
    """A checkpoint that cannot be written or read safely."""


def load_policy(path: str | os.PathLike[str]) -> TeamPolicy:
    """The team's decentralised policy in a checkpoint of hetmarl's.

    Needs neither the run's configuration nor its environment nor Lightning.

    Args:
        path: ``last.ckpt``, ``best.ckpt``, or the directory of a run (its best, else its last).

    Returns:
        The policy in evaluation mode: ``policy(td)`` acts for everybody, ``policy.act(agent,
        observation)`` for one agent from its own observation ``[*B, O_i]``.

    Raises:
        CheckpointError: missing, corrupt, unsafe, or no checkpoint of hetmarl's.
    """
    path = Path(path)
    if path.is_dir():
        candidates = [path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
        path = next((p for p in candidates if p.exists()), candidates[0])
    checkpoint = load_plain(path)
    try:
        settings, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
        spec = TeamSpec.from_dict(settings["spec"])
        policy = TeamPolicy(spec, NetworkConfig(**settings["network"]))
        prefix = next(name for name in weights if "policy.actors." in name)
    except (KeyError, TypeError, StopIteration) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of hetmarl's: it lacks the team's spec, its network settings "
            "or its actors' weights."
        ) from error
    prefix = prefix[: prefix.index("actors.")]
    policy.load_state_dict(
        {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    )
    return policy.eval()


def plain_bytes(value: Any, name: str) -> bytes:
    """``value`` as torch writes it, proven to load with ``weights_only=True``."""
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True, map_location="cpu")
    except Exception as error:
        where, found = _first_object(value, name)
        raise CheckpointError(
            f"the checkpoint would hold an object of type {found} at {where}. Expected tensors and "
            "plain values only (numbers, strings, lists, dicts), so that it is safe to share: "
            "convert it in the state_dict of the module or callback that puts it there."
        ) from error
    return buffer.getvalue()


def load_plain(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, by ``torch.load(weights_only=True)`` on the CPU.

    Raises:
        CheckpointError: missing, corrupt, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}.")
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        if "Weights only" not in str(error):
            raise CheckpointError(f"{path} is corrupt or no checkpoint: {error}") from error
        raise CheckpointError(
            f"{path} holds more than tensors and plain values; loading it could run code of its "
            "author's, so it is refused. hetmarl's own checkpoints never do."
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} is corrupt or no checkpoint ({type(error).__name__}: {error})."
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces ``path`` by ``data``, on disk before the name changes."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":  # the rename itself
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _first_object(value: Any, where: str) -> tuple[str, str]:
    """The path and type of the first entry that is neither a tensor nor a plain value."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            found = _first_object(entry, f"{where}[{key!r}]")
            if found[1]:
                return found
    elif isinstance(value, (list, tuple, set)):
        for index, entry in enumerate(value):
            found = _first_object(entry, f"{where}[{index}]")
            if found[1]:
                return found
    elif not isinstance(value, (torch.Tensor, int, float, str, bytes, type(None), torch.dtype)):
        return where, f"{type(value).__module__}.{type(value).__qualname__}"
    return where, ""
