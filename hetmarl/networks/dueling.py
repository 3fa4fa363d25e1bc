"""Actors that choose by value: a dueling Q-network of the agent's own observation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hetmarl.networks.actors import Sample
from hetmarl.networks.body import Memory
from hetmarl.networks.config import ACTIVATIONS, NetworkConfig
from hetmarl.networks.distributions import NoiseLike, mask_logits
from hetmarl.networks.mlp import mlp
from hetmarl.networks.off_policy import OffPolicyActor, RecurrentLayers
from hetmarl_envs.contract import AgentSpec
from hetmarl_envs.entities import Entities
from hetmarl_envs.errors import ConfigError

MAX_CHOICES = 1024
"""Combinations of a multi-discrete action's components, each of which is one output."""


class DuelingActor(OffPolicyActor):
    """Qⁱ(oⁱ, a) of every choice a, and the ε-greedy policy that follows from it.

    Q(o, a) = V(o) + A(o, a) − mean over legal a′ of A(o, a′)
    (Wang et al. 2016, arXiv 1511.06581, equation 9; the mean there is over all actions, which are
    all legal). Both streams end in a hidden layer of their own, ``hidden_sizes[-1]``, on a common
    body of the other ones.

    A multi-discrete action's choices are the combinations of its components: one output each, so
    that the greedy one is the best combination and not the best components by themselves.

    Args:
        agent: its spaces.
        config: sizes.

    Raises:
        ConfigError: real-valued actions, too many combinations, or an observation that is no
            vector.
    """

    value: nn.Module
    advantage: nn.Module
    choices: Tensor
    encoded: Tensor
    epsilon: Tensor

    def __init__(self, agent: AgentSpec, config: NetworkConfig) -> None:
        space = agent.action
        if space.kind == "continuous":
            raise ConfigError(
                f"agent '{agent.name}' acts by {space.dim} real numbers; an agent that is greedy "
                "in a Q-function needs choices. Take algo=hatd3 or algo=hasac, or, where the task "
                "offers them, discrete actions (such as task.continuous_actions=false for mpe)."
            )
        count = math.prod(space.choices)
        if count > MAX_CHOICES:
            raise ConfigError(
                f"agent '{agent.name}' has {count} combinations of choices {list(space.choices)}; "
                f"an agent that is greedy in a Q-function has one output for each, {MAX_CHOICES} "
                "at most. Take algo=hasac, whose components are drawn one by one."
            )
        super().__init__(agent, config, count)
        choices = torch.cartesian_prod(*(torch.arange(k) for k in space.choices))
        choices = choices.reshape(count, -1)
        self.register_buffer("choices", choices, persistent=False)
        self.register_buffer("encoded", space.encode(choices).float(), persistent=False)
        self.register_buffer("epsilon", torch.zeros(()))

    @staticmethod
    def networks(
        inputs: int, outputs: int, config: NetworkConfig, blocks: Sequence[Entities] = ()
    ) -> dict[str, nn.Module]:
        *body, last = config.hidden_sizes
        net: nn.Module = nn.Identity()
        width = inputs
        if config.memory != "none":
            net, width = RecurrentLayers(inputs, body, config), config.memory_size
        elif body:
            act = config.activation
            net = nn.Sequential(mlp(inputs, body[-1], body[:-1], act), ACTIVATIONS[act]())
            width = body[-1]
        how: Any = ([last], config.activation, config.actor_last_activation)
        return {"net": net, "value": mlp(width, 1, *how), "advantage": mlp(width, outputs, *how)}

    @property
    def like(self) -> Tensor:
        return self.encoded

    def own(self, output: Tensor) -> Tensor:
        return output  # features: both streams read all of them

    def forward(
        self,
        observation: Tensor,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Values of all choices; those of illegal ones are so low that they are never chosen.

        Args:
            observation: ``[*B, O]``.
            action_mask: legal components ``[*B, ΣK_d]``; None: all.
            memory: where a recurrent actor goes on; None: from zero.

        Returns:
            ``[*B, C]``, in the order of ``choices [C, D]``.
        """
        return self._values(self.output(observation, memory)[0], action_mask)

    def _values(self, features: Tensor, action_mask: Tensor | None) -> Tensor:
        weight, legal = self.encoded, self.legal(action_mask)
        value, advantage = self.value(features), self.advantage(features)[..., : self.outputs]
        value, advantage = value.to(weight), advantage.to(weight)
        if legal is None:
            return value + advantage - advantage.mean(-1, keepdim=True)
        total = (advantage * legal).sum(-1, keepdim=True)
        mean = total / legal.sum(-1, keepdim=True).clamp(min=1)  # the dead may have no choice
        return mask_logits(value + advantage - mean, legal)

    def legal(self, action_mask: Tensor | None) -> Tensor | None:
        """Which choices are legal, ``[*B, C]``: those whose components all are."""
        if action_mask is None:
            return None
        allowed = action_mask.to(self.encoded) @ self.encoded.T
        return allowed == self.choices.shape[1]

    def sample(
        self,
        observation: Tensor,
        noise: NoiseLike | None = None,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Sample:
        """The greedy choice, one-hot ``[*B, ΣK_d]``: no noise, no gradient, no log-probability."""
        return Sample(self.encoded[self(observation, action_mask, memory).argmax(-1)])

    def act(
        self,
        observation: Tensor,
        noise: NoiseLike | None = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Indices ``[*B, D]`` of the greedy choice, or with probability ε of any legal one.

        Every row has a coin of its own. Without noise none is tossed. And the recurrent state
        ``[N, H]``.
        """
        features, hidden = self.output(observation, memory)
        values = self._values(features, action_mask)
        chosen = values.argmax(-1)
        if noise is not None:
            drawn = noise(values.new_empty(*values.shape[:-1], values.shape[-1] + 1))
            explores = torch.special.ndtr(drawn[..., 0]) < self.epsilon
            legal = self.legal(action_mask)
            # the largest of independent numbers: each legal choice is it equally often
            chosen = torch.where(explores, mask_logits(drawn[..., 1:], legal).argmax(-1), chosen)
        return self.choices[chosen], hidden
