"""HAD3QN: heterogeneous-agent dueling double deep Q-learning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hetmarl.algorithms.off_policy import OffPolicyConfig, OffPolicyModule
from hetmarl.algorithms.schedule import scheduled
from hetmarl.data.replay_data import ReplayBatch
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import GreedyNetworkConfig, JointQ, TeamPolicy
from hetmarl.objectives import HAD3QNLoss
from hetmarl_envs.errors import ConfigError


@dataclass
class HAD3QNConfig(OffPolicyConfig):
    """Hyperparameters of HAD3QN."""

    epsilon: float = 1.0
    """Share of random actions of each agent at the first frame, in [0, 1]; HARL: .05."""
    epsilon_final: float = 0.05
    """Share at the end of the decay and ever after, in [0, 1]; .01 to .1."""
    epsilon_decay_frames: int = 100_000
    """Frames, those of warm-up included, over which the share falls linearly; 0 to 1e6."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epsilon", "epsilon_final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"algo.{name}={getattr(self, name)}: expected 0 to 1.")
        if self.epsilon_decay_frames < 0:
            raise ConfigError(
                f"algo.epsilon_decay_frames={self.epsilon_decay_frames}: expected 0 or more."
            )


class HAD3QN(OffPolicyModule):
    """Value-based cooperative learning of unequal agents with choices, one after another.

    Each gradient step fits a joint Q-function, then goes through the agents in a fresh random
    order; agent iₘ fits its own dueling Q-function to

        Q(s, a^{i₁:ₘ₋₁}, ·, a^{iₘ₊₁:ₙ})

    with its predecessors' actions greedy in their updated Q-functions. Agents act greedily in their
    own Q-function, each with a coin of its own, in each environment, for a random legal choice
    instead. The equations stand in ``hetmarl.objectives.HAD3QNLoss``.
    """

    name = "had3qn"
    config_type = HAD3QNConfig
    network_type = GreedyNetworkConfig
    num_critics = 1
    of_team = ("epsilon",)
    loss: HAD3QNLoss

    def make_loss(self, policy: TeamPolicy, critic: JointQ) -> HAD3QNLoss:
        loss = HAD3QNLoss(policy, critic, gamma=self.config.gamma)
        self._explore(loss, 0)
        return loss

    def learn(self, batch: ReplayBatch, randomness: UpdateRandomness) -> dict[str, Tensor]:
        metrics = super().learn(batch, randomness)
        metrics["epsilon"] = self._explore(self.loss, int(self.frames) + batch.frames)
        return metrics

    def _explore(self, loss: HAD3QNLoss, frames: int) -> Tensor:
        """Sets every actor's ε to that of the next frames; returns it (scalar)."""
        config = self.config
        value = scheduled(config.epsilon, config.epsilon_final, frames, config.epsilon_decay_frames)
        for actor in loss.policy.actors:
            actor.epsilon.fill_(value)  # type: ignore[union-attr,operator]
        return loss.policy.actors[0].epsilon.clone()  # type: ignore[union-attr,operator,return-value]
