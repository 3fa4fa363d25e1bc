"""The team's decentralised policy."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, exploration_type

from hetmarl.networks.actors import NoiseLike, SquashedGaussianActor, make_actor
from hetmarl.networks.mlp import NetworkConfig
from hetmarl_envs.contract import TeamSpec


class TeamPolicy(TensorDictModuleBase):
    """Everybody acts on their own observation, each with their own network.

    Reads ``(group, "observation") [*B, n_g, O_g]``, writes ``(group, "action") [*B, n_g, A_g]``.
    Samples under TorchRL's exploration type ``RANDOM`` (the default), takes the mode under any
    deterministic one (``torchrl.envs.set_exploration_type``).

    Args:
        spec: the team.
        config: network sizes; only ``actors`` built from it know it.
        actors: modules to use instead of new ones, in team order.
    """

    def __init__(
        self,
        spec: TeamSpec,
        config: NetworkConfig | None = None,
        actors: Iterable[SquashedGaussianActor] | None = None,
    ) -> None:
        super().__init__()
        # not called spec: TorchRL's collectors would take it for the spec of the policy's output
        self.team = spec
        if actors is None:
            actors = (make_actor(agent, config or NetworkConfig()) for agent in spec.agents)
        self.actors = nn.ModuleList(actors)
        self.in_keys = [(group, "observation") for group in spec.groups]
        self.out_keys = [(group, "action") for group in spec.groups]
        self.noise: NoiseLike = torch.randn_like

    def act(self, agent: int, observation: Tensor) -> Tensor:
        """One agent's action ``[*B, A_i]`` from its observation ``[*B, O_i]``, as on a robot.

        On the observation's device and in its dtype, wherever the actor stands.
        """
        actor = self.actors[agent]
        if exploration_type() in (None, ExplorationType.RANDOM):
            return actor.act(observation, self.noise).to(observation)  # type: ignore[operator]
        return actor.mode(observation).to(observation)  # type: ignore[operator]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        spec = self.team
        actions = [self.act(i, spec.observation(tensordict, i)) for i in range(spec.num_agents)]
        return spec.write_actions(tensordict, actions)
