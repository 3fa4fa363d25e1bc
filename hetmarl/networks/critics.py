"""Joint action-value networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hetmarl.networks.mlp import NetworkConfig, mlp
from hetmarl_envs.contract import TeamSpec


class TwinQ(nn.Module):
    """Two independent joint action-values Q₁, Q₂ of the state and everybody's action.

    The minimum of two guards against overestimation (Fujimoto et al. 2018, arXiv 1802.09477).
    """

    def __init__(self, spec: TeamSpec, config: NetworkConfig) -> None:
        super().__init__()
        inputs = spec.critic_dim + sum(agent.action.dim for agent in spec.agents)
        self.q1 = mlp(inputs, 1, config.hidden_sizes, config.activation)
        self.q2 = mlp(inputs, 1, config.hidden_sizes, config.activation)

    def forward(self, state: Tensor, actions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Values of ``state [*B, S]`` and joint action (team order, each ``[*B, A_i]``).

        Returns:
            Q₁ and Q₂, each ``[*B, 1]``.
        """
        dtype = next(self.q1.parameters()).dtype
        x = torch.cat([state, *actions], dim=-1).to(dtype)
        return self.q1(x).to(dtype), self.q2(x).to(dtype)
