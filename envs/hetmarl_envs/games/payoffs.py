"""Payoffs of the matrix games: ``[K_1, ..., K_n]``, an axis per agent in the team's order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hetmarl_envs.errors import ConfigError
from hetmarl_envs.options import check, number, whole

MAX_AGENTS = 16
"""Of the sharing game, whose payoff has 2ⁿ numbers."""


def climbing() -> Tensor:
    """The climbing game of Claus & Boutilier (1998), "The dynamics of reinforcement learning in
    cooperative multiagent systems", AAAI-98: the optimum (0, 0) = 11 lies beside -30.

    Rows are ``agent_0``'s actions (b in the paper's table), columns ``agent_1``'s (a in the paper).
    """
    return torch.tensor([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])


def penalty(where: str, k: float) -> Tensor:
    """The penalty game of Claus & Boutilier (1998): two optima, ``k`` <= 0 for mixing them."""
    k = float(check(where, "k", k, number(high=0.0)))
    return torch.tensor([[10.0, 0.0, k], [0.0, 2.0, 0.0], [k, 0.0, 10.0]])


def xor() -> Tensor:
    """One agent must do 0 and the other 1; which does which is open.

    Fu et al. 2022 (arXiv 2206.07505): no sum of the agents' own values represents it.
    """
    return torch.tensor([[0.0, 1.0], [1.0, 0.0]])


def trap() -> Tensor:
    """The trap of heterogeneity (Zhong et al. 2024, arXiv 2304.09870): 1 is best against 0.

    When both play 0 with probability above .6, each gains by moving to 1 as long as the other does
    not: the simultaneous greedy step ends at -1, the sequential one at 2.
    """
    return torch.tensor([[0.0, 2.0], [2.0, -1.0]])


def sharing(where: str, num_agents: int) -> Tensor:
    """The cost of sharing: 1 iff the first half plays 0 and the second 1, or the reverse.

    One policy for all without agent id earns at most 2 / 2ⁿ (``shared_return``), separate ones 1
    (Kuba et al. 2022, arXiv 2109.11251).
    """
    num_agents = check(where, "num_agents", num_agents, whole(2))
    if num_agents % 2 or num_agents > MAX_AGENTS:
        raise ConfigError(
            f"{where}: num_agents={num_agents}, expected an even number up to {MAX_AGENTS}."
        )
    half = num_agents // 2
    payoff = torch.zeros([2] * num_agents)
    payoff[(0,) * half + (1,) * half] = 1.0
    payoff[(1,) * half + (0,) * half] = 1.0
    return payoff


def matrix(where: str, values: Any) -> Tensor:
    """A user's own payoff: nested lists or a tensor, one axis per agent."""
    if values is None:
        raise ConfigError(
            f"{where} needs its payoff: matrix=[[1, 0], [0, 1]], one axis per agent, or a tensor."
        )
    try:
        payoff = torch.as_tensor(values, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{where}: matrix={values!r} is no table of numbers ({error}). Expected nested lists "
            "of equal lengths, one level per agent, such as [[1, 0], [0, 1]]."
        ) from error
    if payoff.dim() == 0 or payoff.numel() == 0 or not bool(payoff.isfinite().all()):
        raise ConfigError(
            f"{where}: matrix={values!r}, expected finite numbers, one axis per agent and at least "
            "one action on each."
        )
    return payoff


def shared_return(num_agents: int) -> float:
    """The best of one policy without agent id when sharing: max over p of 2 (p(1-p))^(n/2)."""
    return 2.0 / 2**num_agents
