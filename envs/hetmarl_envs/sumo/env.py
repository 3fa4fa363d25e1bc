"""A road network's junctions as one batched TorchRL environment."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from hetmarl_envs.pettingzoo.env import PettingZooEnv, TeamReward
from hetmarl_envs.pettingzoo.workers import TIMEOUT
from hetmarl_envs.registry import check_options
from hetmarl_envs.sumo.networks import simulation_arguments
from hetmarl_envs.sumo.simulator import INFO, SumoSimulator


class SumoEnv(PettingZooEnv):
    """``num_envs`` simulations of a network, each in a process of its own.

    ==============================  ============  =================================================
    key                             shape         meaning
    ==============================  ============  =================================================
    ``(group, "observation")``      ``[N, n, O]`` which lights are green, one-hot; whether they may
                                                  change; per incoming lane how full it is, and how
                                                  full of standing vehicles, in [0, 1]
    ``(group, "action")``           ``[N, n]``    which lights are green next
    ``"state"``                     ``[N, S]``    all observations side by side
    ``("info", name)``              ``[N, 1]``    ``mean_waiting_time``, ``mean_delay``: seconds per
                                                  vehicle, of the episode so far
    ``("next", group, "reward")``   ``[N, n, 1]`` the junctions' own
    ``("next", "reward")``          ``[N, 1]``    their mean
    ==============================  ============  =================================================

    Junctions with equal spaces share a group. The episode is *truncated* after ``num_seconds``,
    never terminated.

    Args:
        task: such as ``"cologne8"``, see ``networks.NETWORKS``; or ``"custom"``.
        num_envs: simulations, N.
        seed: drivers are imperfect by chance, which follows from it; vehicles' starts and ways are
            the network's.
        device: where the tensors are; simulations compute on the CPU.
        team_reward: ``"mean"`` or ``"sum"`` of the junctions' rewards.
        timeout: seconds after which a simulation counts as hung that has not answered, see
            ``PettingZooEnv``.
        **options: ``networks.simulation_arguments``.

    Raises:
        UnknownNameError: no such network.
        ConfigError: an option is wrong.
    """

    def __init__(
        self,
        task: str,
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        team_reward: TeamReward = "mean",
        timeout: float | None = TIMEOUT,
        **options: Any,
    ) -> None:
        check_options(simulation_arguments, options, f"sumo/{task}")
        arguments = simulation_arguments(task, **options)
        super().__init__(
            partial(SumoSimulator, arguments),
            num_envs=num_envs,
            seed=seed,
            device=device,
            team_reward=team_reward,
            leaving=False,
            info=INFO,
            num_workers=num_envs,  # SUMO's library has one simulation per process
            start_method="forkserver",
            timeout=timeout,
            name=f"sumo/{task}",
        )
        self.max_steps: int = arguments["num_seconds"] // arguments["delta_time"]
