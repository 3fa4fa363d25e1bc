"""Value networks: joint action-values, joint and local state-values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from hetmarl.networks.body import (
    HIDDEN,
    Body,
    make_encoder,
    output_layer,
    read_memory,
    start_memory,
)
from hetmarl.networks.config import NetworkConfig, OnPolicyNetworkConfig
from hetmarl.networks.entities import EntityEncoder
from hetmarl.networks.mlp import MLP, mlp
from hetmarl.networks.network import Network, make_networks
from hetmarl.networks.sharing import sharing_sets
from hetmarl_envs.contract import TeamSpec


class JointQ(nn.Module):
    """Independent joint action-values Q₁, Q₂, … of the state and everybody's action.

    The minimum of two guards against overestimation (Fujimoto et al. 2018, arXiv 1802.09477).

    Args:
        spec: the team.
        config: sizes.
        count: how many values.
    """

    def __init__(self, spec: TeamSpec, config: NetworkConfig, count: int = 2) -> None:
        super().__init__()
        inputs = spec.critic_dim + sum(agent.action.width for agent in spec.agents)
        self.values = nn.ModuleList(
            mlp(inputs, 1, config.hidden_sizes, config.activation) for _ in range(count)
        )

    def forward(
        self, state: Tensor, actions: Sequence[Tensor], first: int | None = None
    ) -> tuple[Tensor, ...]:
        """Values of ``state [*B, S]`` and joint action (team order, each ``[*B, W_i]``).

        Choices are read as one-hot vectors.

        Args:
            first: how many of them, from the first on; None: all.

        Returns:
            Q₁, Q₂, …, each ``[*B, 1]``.
        """
        batch, x = self._input(state, actions)
        return tuple(value(x).to(x.dtype).view(*batch, 1) for value in self.values[:first])

    def candidates(
        self, state: Tensor, actions: Sequence[Tensor], agent: int, choices: Tensor
    ) -> tuple[Tensor, ...]:
        """Values of each of one agent's choices, the other actions as given.

        The first layer, which is linear in the joint action, is evaluated once for all of them.

        Args:
            state: ``[*B, S]``.
            actions: in team order, each ``[*B, W_j]``; the agent's own does not count.
            agent: whose choices.
            choices: one-hot ``[C, W_i]``.

        Returns:
            Q₁, Q₂, …, each ``[*B, C]``.
        """
        beside = [torch.zeros_like(a) if i == agent else a for i, a in enumerate(actions)]
        batch, x = self._input(state, beside)
        start = state.shape[-1] + sum(action.shape[-1] for action in actions[:agent])
        found = []
        for value in self.values:
            layers: Any = list(cast(MLP, value))
            own = choices.to(x) @ layers[0].weight[:, start : start + choices.shape[-1]].T
            hidden = layers[1](layers[0](x).unsqueeze(-2) + own).flatten(0, 1)
            found.append(MLP(*layers[2:])(hidden).to(x.dtype).view(*batch, len(choices)))
        return tuple(found)

    def _input(self, state: Tensor, actions: Sequence[Tensor]) -> tuple[torch.Size, Tensor]:
        """``*B``, and what the networks read as a matrix, which has the faster products."""
        x = torch.cat([state, *actions], dim=-1).to(next(self.parameters()).dtype)
        return x.shape[:-1], x.reshape(-1, x.shape[-1])


class StateValue(nn.Module):
    """V(s): one value of the global state, or of everybody's observations where there is none.

    Reads ``state [*B, S]`` or every ``(group, "observation")``, images through convolutions of
    their group, and with a memory ``("hidden", "critic") [*B, H]`` and ``is_init [*B, 1]``; ``*B``
    is then ``N`` or ``N, T``.
    """

    KEY = "critic"
    observation_key = "observation"
    """Under which observations are read; a loss's ``set_keys`` changes it."""

    def __init__(self, spec: TeamSpec, config: OnPolicyNetworkConfig) -> None:
        super().__init__()
        config = config.for_critic()
        self.spec = spec
        self.num_values = 1
        self.encoders = nn.ModuleList()
        """One per group; none where there is a state."""
        inputs = spec.state_dim or 0
        if spec.state_dim is None:
            for members in spec.groups.values():
                shape = spec.agents[members[0]].observation_shape
                encoder, width = make_encoder(shape, config)
                self.encoders.append(encoder)
                inputs += len(members) * width
        self.entities: EntityEncoder | None = None
        """What reads the state's entities alike."""
        if config.entities and spec.state_entities:
            self.entities = EntityEncoder(inputs, spec.state_entities, config)
            inputs = self.entities.out_features
        self.body = Body((inputs,), config)
        self.head = output_layer(self.body.out_features, 1, config, 1.0)

    @property
    def memories(self) -> list[str]:
        """Names of its recurrent states, beneath ``"hidden"``."""
        return [self.KEY] if self.body.hidden_size > 0 else []

    @property
    def recurrent(self) -> bool:
        """Whether it needs ``remember`` while data is collected."""
        return bool(self.memories)

    def forward(self, data: TensorDictBase) -> Tensor:
        """Values ``[*B, 1]``."""
        return self.head(self._features(data)[0]).to(self.head.weight.dtype)

    def start(self, data: TensorDictBase) -> None:
        """Writes the recurrent state that ``data [N]`` begins with: zero."""
        start_memory(data, self.KEY, self.body.hidden_size, self.head.weight.dtype)

    def remember(self, data: TensorDictBase) -> None:
        """Writes the recurrent state after a step, ``("next", "hidden", "critic")``."""
        hidden = self._features(data)[1]
        data.set(("next", HIDDEN, self.KEY), hidden)

    def _features(self, data: TensorDictBase) -> tuple[Tensor, Tensor | None]:
        memory = read_memory(data, self.KEY) if self.recurrent else None
        return self.body(self._input(data), memory)

    def _input(self, data: TensorDictBase) -> Tensor:
        weight = self.head.weight
        if self.spec.state_dim is not None:
            state = data.get("state").to(weight)
            return state if self.entities is None else self.entities(state)[0]
        seen = (data.get((group, self.observation_key)).to(weight) for group in self.spec.groups)
        pairs = zip(self.encoders, seen, strict=True)
        return torch.cat([encode(x).flatten(data.batch_dims) for encode, x in pairs], dim=-1)


class LocalValues(nn.Module):
    """Vⁱ(oⁱ): every agent's own value of its own observation.

    Each with its own network, or with one per set of ``network.sharing``.

    Reads ``(group, "observation")``, and with memories ``("hidden", "critic_<agent>") [*B, H]``.
    """

    observation_key = "observation"
    """Under which observations are read; a loss's ``set_keys`` changes it."""

    def __init__(self, spec: TeamSpec, config: OnPolicyNetworkConfig) -> None:
        super().__init__()
        config = config.for_critic()
        self.spec = spec
        self.num_values = spec.num_agents
        networks: dict[int, nn.Module] = {}
        for members in sharing_sets(spec, config):
            agents = [spec.agents[i] for i in members]
            made = make_networks(agents, config, [1] * len(agents), gain=1.0)
            networks |= zip(members, made, strict=True)
        self.networks = nn.ModuleList(networks[i] for i in range(spec.num_agents))

    @property
    def memories(self) -> list[str]:
        """Names of its recurrent states, beneath ``"hidden"``."""
        remembers = self._network(0).hidden_size > 0
        return [self._key(i) for i in range(self.num_values)] if remembers else []

    @property
    def recurrent(self) -> bool:
        """Whether it needs ``remember`` while data is collected."""
        return bool(self.memories)

    def forward(self, data: TensorDictBase) -> Tensor:
        """Values ``[*B, n]``, in team order."""
        return torch.cat([self._run(data, i)[0] for i in range(self.num_values)], dim=-1)

    def start(self, data: TensorDictBase) -> None:
        """Writes the recurrent states that ``data [N]`` begins with: zero."""
        for i in range(self.num_values):
            net = self._network(i)
            start_memory(data, self._key(i), net.hidden_size, net.dtype)

    def remember(self, data: TensorDictBase) -> None:
        """Writes the recurrent states after a step, ``("next", "hidden", "critic_<agent>")``."""
        for i in range(self.num_values):
            data.set(("next", HIDDEN, self._key(i)), self._run(data, i)[1])

    def _run(self, data: TensorDictBase, agent: int) -> tuple[Tensor, Tensor | None]:
        memory = read_memory(data, self._key(agent)) if self.recurrent else None
        return self._network(agent)(
            self.spec.observation(data, agent, key=self.observation_key), memory
        )

    def _network(self, agent: int) -> Network:
        return cast(Network, self.networks[agent])

    def _key(self, agent: int) -> str:
        return f"critic_{self.spec.names[agent]}"
