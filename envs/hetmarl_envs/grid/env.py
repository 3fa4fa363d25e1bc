"""Foraging and warehouses as batched TorchRL environments (see ``GridEnv``)."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, ClassVar

import torch

from hetmarl_envs.errors import ConfigError, HetmarlError
from hetmarl_envs.grid.together import Together
from hetmarl_envs.options import check, check_names, whole
from hetmarl_envs.pettingzoo.env import PettingZooEnv, TeamReward
from hetmarl_envs.pettingzoo.workers import TIMEOUT, StartMethod


class GridEnv(PettingZooEnv):
    """``num_envs`` grid worlds of ``lbforaging`` or ``rware``, with their own numbers.

    Keys as in ``PettingZooEnv``: all agents in one group, ``agents``; nobody leaves, so there is no
    ``alive``; no ``"state"``: critics read everybody's observations. The time limit truncates,
    though the libraries call it an end.

    A subclass names its ``world``.

    Args:
        task: such as ``"8x8-2p-2f-coop"`` or ``"tiny-2ag"``, see ``tasks``.
        num_envs: sub-environments.
        seed: of all starts.
        device: where the tensors are; the worlds compute on the CPU.
        team_reward: ``"sum"`` of the agents' rewards, as in EPyMARL, or their ``"mean"``.
        num_workers: processes that step them, 0 for none; see ``PettingZooEnv``.
        start_method, timeout: of the workers.
        **options: of the library's environment, in place of what the name says.

    Raises:
        UnknownNameError: the name is none of a task.
        ConfigError: an option is unknown, or has a value that the library does not take.
    """

    world: ClassVar[type[Together]]

    def __init__(
        self,
        task: str,
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        team_reward: TeamReward = "sum",
        num_workers: int = 0,
        start_method: StartMethod = "spawn",
        timeout: float | None = TIMEOUT,
        **options: Any,
    ) -> None:
        world = self.world
        where = f"{world.family}/{task}"
        arguments = {**world.arguments(task), **options}
        parameters = inspect.signature(world.library.__init__).parameters
        known = [key for key in parameters if key not in world.hidden]
        check_names(where, options, known)
        self.max_steps: int = check(where, world.limit, arguments[world.limit], whole(1))
        make = partial(world, arguments)
        try:
            make()
        except HetmarlError:
            raise
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"{where} cannot be made with options {options}: {type(error).__name__}: {error}"
            ) from error
        super().__init__(
            make,
            num_envs=num_envs,
            seed=seed,
            device=device,
            team_reward=team_reward,
            leaving=False,
            num_workers=num_workers,
            start_method=start_method,
            timeout=timeout,
            name=where,
        )
