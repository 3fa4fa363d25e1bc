"""Joint action-values that know who does what to whom, in whatever order all are listed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hetmarl.networks.config import NetworkConfig
from hetmarl.networks.critics import JointQ
from hetmarl.networks.entities import about, one_layer, pooled, unlisted
from hetmarl.networks.mlp import mlp
from hetmarl_envs.contract import TeamSpec


def make_joint_q(spec: TeamSpec, config: NetworkConfig, count: int) -> JointQ:
    """The joint critic that ``config`` asks for; by entities where the state lists the agents."""
    lists_agents = any(block.name in spec.groups for block in spec.state_entities)
    return (EntityJointQ if config.entities and lists_agents else JointQ)(spec, config, count)


class EntityJointQ(JointQ):
    """``JointQ`` of a state that lists agents, and the things that their choices are about.

    An agent's features are of its own numbers, its choices that are about nothing, and the things
    that it chose; a thing's are of its own numbers and of the agents that chose it. Their means
    and maxima over each list, and what of the state is in no list, are read by the hidden layers.
    So the value is the same in whatever order enemies are listed and targets numbered with them.
    """

    def __init__(self, spec: TeamSpec, config: NetworkConfig, count: int = 2) -> None:
        nn.Module.__init__(self)
        self.values = nn.ModuleList(_EntityQ(spec, config) for _ in range(count))

    def forward(
        self, state: Tensor, actions: Sequence[Tensor], first: int | None = None
    ) -> tuple[Tensor, ...]:
        return tuple(value(state, actions) for value in self.values[:first])


class _EntityQ(nn.Module):
    """One of the values; see ``EntityJointQ``."""

    plain: Tensor

    def __init__(self, spec: TeamSpec, config: NetworkConfig) -> None:
        super().__init__()
        size, blocks = config.entity_size, spec.state_entities
        self.blocks = blocks
        self.members = {b.name: spec.groups[b.name] for b in blocks if b.name in spec.groups}
        """Agents' positions in the team, of the blocks that list them."""
        listed = {i for members in self.members.values() for i in members}
        self.others = [i for i in range(spec.num_agents) if i not in listed]
        self.register_buffer("plain", unlisted(spec.state_dim or 0, blocks), persistent=False)
        chosen = about(blocks)
        targets = [block for block in blocks if block.choices]
        self.own: dict[str, list[int]] = {}
        """Of each agents' block the choices that are about nothing."""
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        """Layers of each block: of its numbers, then of them with what is done."""
        for block in blocks:
            self.first.append(one_layer(block.width, size, config))
            width = block.width
            if block.name in self.members:
                action = spec.agents[self.members[block.name][0]].action
                self.own[block.name] = [i for i in range(action.width) if i not in chosen]
                width += len(self.own[block.name]) + size * len(targets)
            if block.choices:
                width += size * len(self.members)
            self.second.append(one_layer(width, size, config))
        inputs = len(self.plain) + 2 * size * len(blocks)
        inputs += sum(spec.agents[i].action.width for i in self.others)
        self.net = mlp(inputs, 1, config.hidden_sizes, config.activation)

    def forward(self, state: Tensor, actions: Sequence[Tensor]) -> Tensor:
        """Values ``[*B, 1]`` of ``state [*B, S]`` and the joint action (each ``[*B, W_i]``)."""
        dtype = next(self.parameters()).dtype
        state = state.to(dtype)
        rows = {block.name: block.rows(state) for block in self.blocks}
        firsts = zip(rows, self.first, strict=True)
        features = {name: layer(rows[name]) for name, layer in firsts}
        taken = {
            name: torch.stack([actions[i].to(dtype) for i in members], dim=-2)
            for name, members in self.members.items()
        }  # [*B, n, W]
        read = {name: [things] for name, things in rows.items()}
        for name, choice in taken.items():
            read[name].append(choice[..., self.own[name]])
        for block in self.blocks:
            if block.choices:
                for name, choice in taken.items():
                    chosen = choice[..., list(block.choices)]  # which agent chose which thing
                    read[name].append(chosen @ features[block.name])
                    read[block.name].append(chosen.mT @ features[name])
        seconds = zip(read.values(), self.second, strict=True)
        parts = [pooled(layer(torch.cat(x, dim=-1))) for x, layer in seconds]
        beside = [actions[i].to(dtype) for i in self.others]
        value: Tensor = self.net(torch.cat([state[..., self.plain], *beside, *parts], dim=-1))
        return value.to(dtype)
