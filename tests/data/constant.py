"""A policy whose actions tell its weights; a module of its own, for actors to import."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hetmarl.networks import TeamPolicy
from hetmarl_envs.contract import TeamSpec
from tests.teams import CountingEnv


class Constant(nn.Module):
    """Acts by its one weight, whatever it observes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.value = nn.Parameter(torch.zeros(()))

    def act(self, observation: Tensor, *_: Any) -> tuple[Tensor, None]:
        return self.value.expand(*observation.shape[:-1], self.dim).clone(), None


def constant_policy() -> TeamPolicy:
    """For ``CountingEnv``."""
    spec = TeamSpec.from_env(CountingEnv())
    return TeamPolicy(spec, actors=[Constant(agent.action.dim) for agent in spec.agents])


def set_version(policy: TeamPolicy, version: int) -> None:
    """Writes the version into the weights; the actions −1 … 1 of up to 100 versions."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(version / 100)


class FailingEnv(CountingEnv):
    """Raises after some steps."""

    def _step(self, tensordict: Any) -> Any:
        if self.total >= 8 * self.batch_size[0]:
            raise ValueError("the simulator exploded")
        return super()._step(tensordict)
