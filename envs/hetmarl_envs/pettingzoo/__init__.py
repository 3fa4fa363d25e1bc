"""PettingZoo's parallel environments, anybody's, as batched TorchRL environments.

Importing this package imports neither PettingZoo nor gymnasium; making an environment does.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hetmarl_envs.errors import UnknownNameError, did_you_mean
from hetmarl_envs.lazy import exporting
from hetmarl_envs.registry import Family

if TYPE_CHECKING:
    import torch

    from hetmarl_envs.pettingzoo.env import PettingZooEnv

__all__ = ["FAMILY", "PettingZooEnv", "load_maker"]

DEFAULT_MAKER = "parallel_env"


def load_maker(task: str) -> Callable[..., Any]:
    """The function that makes the environment called ``task``.

    Args:
        task: a name in PettingZoo's registry of parallel environments
            (``"butterfly/pistonball-v6"``), a module with ``parallel_env``, or
            ``"module:function"``.

    Raises:
        UnknownNameError: there is no such name, module or function.
    """
    # PettingZoo before 1.27 has no registry
    registry = getattr(importlib.import_module("pettingzoo"), "parallel_registry", {})
    if task in registry:
        return partial(importlib.import_module("pettingzoo").make, "parallel", task)
    module, _, name = task.partition(":")
    try:
        return getattr(importlib.import_module(module), name or DEFAULT_MAKER)
    except (ImportError, AttributeError) as error:
        raise UnknownNameError(
            f"'pettingzoo/{task}': {error}.{did_you_mean(task, registry)} Expected "
            f"'pettingzoo/<module>', for the module's {DEFAULT_MAKER}, 'pettingzoo/<module>:"
            "<function>', or a name of PettingZoo's registry; a module must be installed or in the "
            "current directory."
        ) from error


def _make(
    task: str, *, num_envs: int, seed: int, device: torch.device | str | None, **options: Any
) -> PettingZooEnv:
    """``PettingZooEnv``'s own options go there, all others to the function that is named."""
    from hetmarl_envs.pettingzoo.env import PettingZooEnv

    names = inspect.signature(PettingZooEnv.__init__).parameters
    own = {key: options.pop(key) for key in list(options) if key in names}
    make = partial(load_maker(task), **options)
    name = f"pettingzoo/{task}"
    return PettingZooEnv(make, num_envs=num_envs, seed=seed, device=device, name=name, **own)


__getattr__ = exporting(__name__, "hetmarl_envs.pettingzoo.env:PettingZooEnv")


# Lists no task: every importable module of the right kind is one.
FAMILY = Family(name="pettingzoo", make=_make, tasks=list)
