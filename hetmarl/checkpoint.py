"""Checkpoint files that are safe to share, and the policy in them. Needs no Lightning."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hetmarl.networks import (
    DeterministicNetworkConfig,
    GreedyNetworkConfig,
    NetworkConfig,
    OnPolicyNetworkConfig,
    TeamPolicy,
)
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import HetmarlError


class CheckpointError(HetmarlError):
    """A checkpoint that cannot be written or read safely."""


def load_policy(
    path: str | os.PathLike[str], network_type: type[NetworkConfig] | None = None
) -> TeamPolicy:
    """The team's decentralised policy in a checkpoint of hetmarl's.

    Needs neither the run's configuration nor its environment nor Lightning.

    Args:
        path: ``last.ckpt``, ``best.ckpt``, or the directory of a run (its best, else its last).
        network_type: the class of the run's network settings, where it is not one of hetmarl's: a
            checkpoint only names it, so that loading one never imports what it asks for.

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
        policy = TeamPolicy(spec, _network(settings, network_type))
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


def _network(settings: dict[str, Any], network_type: type[NetworkConfig] | None) -> NetworkConfig:
    name = settings.get("network_type", NetworkConfig.__name__)
    ours = (
        NetworkConfig,
        DeterministicNetworkConfig,
        GreedyNetworkConfig,
        OnPolicyNetworkConfig,
    )
    known = {cls.__name__: cls for cls in ours}
    if network_type is None and name not in known:
        raise CheckpointError(
            f"the policy's networks are made by '{name}', which is not one of hetmarl's "
            f"({', '.join(known)}). Pass that class: load_policy(path, network_type={name})."
        )
    return (network_type or known[name])(**settings["network"])


def plain_bytes(value: Any, name: str) -> bytes:
    """``value`` as torch writes it, of nothing but what ``weights_only=True`` loads anywhere.

    Raises:
        CheckpointError: something is no tensor and no plain value; names where it stands.
    """
    stranger = _stranger(value, name)
    if stranger is not None:
        where, found = stranger
        raise CheckpointError(
            f"the checkpoint would hold an object of type {found} at {where}. Expected tensors and "
            "plain values only (numbers, strings, lists, dicts), so that it is safe to share: "
            "convert it in the state_dict of the module or callback that puts it there."
        )
    buffer = io.BytesIO()
    torch.save(value, buffer)
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
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # torch does not look at the checksums that it writes
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged}")
        return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
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


# Exact types: a subclass, such as numpy's float64 of float, may be pickled as an object.
_CONTAINERS = (dict, OrderedDict, list, tuple, set)
_PLAIN = (bool, int, float, str, bytes, type(None), torch.Size, torch.device, torch.dtype)


def _stranger(value: Any, where: str) -> tuple[str, str] | None:
    """The place and type of the first entry that is neither a tensor nor a plain value."""
    if type(value) in (Tensor, nn.Parameter) or type(value) in _PLAIN:
        return None
    if type(value) not in _CONTAINERS:
        return where, f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, dict):
        entries = [(where, key) for key in value]
        entries += [(f"{where}[{key!r}]", entry) for key, entry in value.items()]
    else:
        entries = [(f"{where}[{index}]", entry) for index, entry in enumerate(value)]
    return next((found for place, e in entries if (found := _stranger(e, place))), None)
