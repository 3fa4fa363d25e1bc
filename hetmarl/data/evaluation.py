"""Evaluation by a fixed number of episodes per environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase, ExplorationType, set_exploration_type

from hetmarl.data.collector import advance, episode_info
from hetmarl.networks.packed import for_acting
from hetmarl.networks.policy import TeamPolicy
from hetmarl_envs.errors import HetmarlError


@torch.no_grad()
def evaluate(
    policy: Callable[[TensorDictBase], TensorDictBase],
    env: EnvBase,
    *,
    deterministic: bool = True,
    max_steps: int = 100_000,
) -> dict[str, Any]:
    """One episode from every sub-environment.

    Counting the first N episodes to finish would favour short ones; one from each environment
    does not. For N episodes make N sub-environments.

    Args:
        policy: writes every ``(group, "action")``, such as ``TeamPolicy``.
        env: batched, ``batch_size [N]``; it is reset first.
        deterministic: take the policy's mode.
        max_steps: bound on the steps of an episode, against an environment that never ends.

    Returns:
        ``return_mean``, ``return_std`` (over episodes, of the undiscounted team return),
        ``length_mean`` (steps), the mean of each ``("info", name)`` at the episodes' ends as
        ``name_mean``, and the lists ``returns`` and ``lengths``, N each.
    """
    act = for_acting(policy, env.batch_size.numel()) if isinstance(policy, TeamPolicy) else policy
    kind = ExplorationType.DETERMINISTIC if deterministic else ExplorationType.RANDOM
    with set_exploration_type(kind):
        data = env.reset()
        returns = torch.zeros(env.batch_size, dtype=torch.float64)
        lengths = torch.zeros(env.batch_size, dtype=torch.long)
        running = torch.ones(env.batch_size, dtype=torch.bool)
        info: dict[str, torch.Tensor] = {}
        for _ in range(max_steps):
            stepped, data = advance(env, act(data))
            after = stepped.get("next")
            returns += torch.where(running, after.get("reward").squeeze(-1).cpu().double(), 0.0)
            lengths += running
            for name, value in episode_info(after).items():
                told = info.setdefault(name, torch.zeros(env.batch_size, dtype=torch.float64))
                info[name] = torch.where(running, value.cpu().double(), told)
            running &= ~after.get("done").squeeze(-1).cpu()
            if not running.any():
                break
        else:
            raise HetmarlError(
                f"{int(running.sum())} of {len(running)} episodes did not end within {max_steps} "
                "steps; give the environment a time limit."
            )
    return {
        "return_mean": returns.mean().item(),
        "return_std": returns.std(correction=0).item(),
        "length_mean": lengths.double().mean().item(),
        **{f"{name}_mean": value.mean().item() for name, value in info.items()},
        "returns": returns.tolist(),
        "lengths": lengths.tolist(),
    }
