"""Value networks: joint action-values, joint and local state-values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from hetmarl.networks.body import HIDDEN, Body, convolutions, output_layer, read_memory
from hetmarl.networks.config import NetworkConfig, OnPolicyNetworkConfig
from hetmarl.networks.mlp import mlp
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


class StateValue(nn.Module):
    """V(s): one value of the global state, or of everybody's observations where there is none.

    Reads ``state [*B, S]`` or every ``(group, "observation")``, and with a memory
    ``("hidden", "critic") [*B, H]`` and ``is_init [*B, 1]``; ``*B`` is then ``N`` or ``N, T``.
    """

    KEY = "critic"

    def __init__(self, spec: TeamSpec, config: OnPolicyNetworkConfig) -> None:
        super().__init__()
        config = config.for_critic()
        self.spec = spec
        self.num_values = 1
        self.images = nn.ModuleDict()
        inputs = spec.critic_dim
        if spec.state_dim is None:
            for group, members in spec.groups.items():
                shape = spec.agents[members[0]].observation_shape
                if len(shape) == 3:
                    self.images[group] = convolutions(shape, config)
                    features = self.images[group](torch.zeros(1, *shape)).numel()
                    inputs += len(members) * (features - torch.Size(shape).numel())
        self.body = Body((inputs,), config)
        self.head = output_layer(self.body.out_features, 1, config, 1.0)

    @property
    def recurrent(self) -> bool:
        """Whether it needs ``remember`` while data is collected."""
        return self.body.memory is not None

    def forward(self, data: TensorDictBase) -> Tensor:
        """Values ``[*B, 1]``."""
        return self.head(self._features(data)[0]).to(self.head.weight.dtype)

    def start(self, data: TensorDictBase) -> None:
        """Writes the recurrent state that ``data [N]`` begins with: zero."""
        size, dtype = self.body.hidden_size, self.head.weight.dtype
        zero = torch.zeros(*data.batch_size, size, dtype=dtype, device=data.device)
        data.set((HIDDEN, self.KEY), zero)

    def remember(self, data: TensorDictBase) -> None:
        """Writes the recurrent state after a step, ``("next", "hidden", "critic")``."""
        hidden = self._features(data)[1]
        data.set(("next", HIDDEN, self.KEY), hidden)

    def _features(self, data: TensorDictBase) -> tuple[Tensor, Tensor | None]:
        memory = read_memory(data, self.KEY) if self.recurrent else None
        return self.body(self._input(data).to(self.head.weight), memory)

    def _input(self, data: TensorDictBase) -> Tensor:
        if not self.images:
            return self.spec.critic_input(data)
        parts, batch = [], data.batch_dims
        for group in self.spec.groups:
            seen = data.get((group, "observation")).to(self.head.weight)
            if group in self.images:
                flat = self.images[group](seen.flatten(0, batch))
                seen = flat.reshape(*seen.shape[: batch + 1], -1)
            parts.append(seen.flatten(batch))
        return torch.cat(parts, dim=-1)


class LocalValues(nn.Module):
    """Vⁱ(oⁱ): every agent's own value of its own observation, each with its own network.

    Reads ``(group, "observation")``, and with memories ``("hidden", "critic_<agent>") [*B, H]``.
    """

    def __init__(self, spec: TeamSpec, config: OnPolicyNetworkConfig) -> None:
        super().__init__()
        config = config.for_critic()
        self.spec = spec
        self.num_values = spec.num_agents
        self.bodies = nn.ModuleList(Body(a.observation_shape, config) for a in spec.agents)
        self.heads = nn.ModuleList(
            output_layer(body.out_features, 1, config, 1.0)  # type: ignore[arg-type]
            for body in self.bodies
        )

    @property
    def recurrent(self) -> bool:
        """Whether it needs ``remember`` while data is collected."""
        return self.bodies[0].memory is not None

    def forward(self, data: TensorDictBase) -> Tensor:
        """Values ``[*B, n]``, in team order."""
        values = [self.heads[i](self._features(data, i)[0]) for i in range(self.num_values)]
        return torch.cat(values, dim=-1).to(self._weight.dtype)

    def start(self, data: TensorDictBase) -> None:
        """Writes the recurrent states that ``data [N]`` begins with: zero."""
        for i, body in enumerate(self.bodies):
            size: int = body.hidden_size  # type: ignore[assignment]
            dtype = self._weight.dtype
            zero = torch.zeros(*data.batch_size, size, dtype=dtype, device=data.device)
            data.set((HIDDEN, self._key(i)), zero)

    def remember(self, data: TensorDictBase) -> None:
        """Writes the recurrent states after a step, ``("next", "hidden", "critic_<agent>")``."""
        for i in range(self.num_values):
            data.set(("next", HIDDEN, self._key(i)), self._features(data, i)[1])

    def _features(self, data: TensorDictBase, agent: int) -> tuple[Tensor, Tensor | None]:
        memory = read_memory(data, self._key(agent)) if self.recurrent else None
        observation = self.spec.observation(data, agent).to(self._weight)
        return self.bodies[agent](observation, memory)

    def _key(self, agent: int) -> str:
        return f"critic_{self.spec.names[agent]}"

    @property
    def _weight(self) -> Any:
        return self.heads[0].weight
