"""What the off-policy algorithms share: hyperparameters, critic, engine, iteration."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import Optimizer

from hetmarl.algorithms.sharing import check_sharing
from hetmarl.data.replay_data import ReplayBatch
from hetmarl.engines import GradientStep, OffPolicyEngine, UpdateRandomness
from hetmarl.lightning.module import TeamModule, adam, finite_means
from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.networks.entity_critic import make_joint_q
from hetmarl.networks.policy import unit_parameters
from hetmarl.objectives import JointQLoss
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError


@dataclass
class OffPolicyConfig:
    """Hyperparameters that all off-policy algorithms have."""

    gamma: float = 0.99
    """Discount per step, in (0, 1]; typically .95 to .995."""
    n_step: int = 1
    """Steps of a transition, stopping at episode ends; 1 to 25 (HARL: 5 Ant, 10 HalfCheetah)."""
    batch_size: int = 256
    """Transitions per gradient step and process; 256 to 2200 (HARL: 1000)."""
    updates_per_step: float = 1.0
    """Gradient steps per vector step; below 1 the remainder is carried over. .05 to 4."""
    actor_lr: float = 1e-3
    """Adam's learning rate of each actor; 3e-4 to 1e-3."""
    critic_lr: float = 1e-3
    """Adam's learning rate of the critic; 3e-4 to 1e-3."""
    polyak: float = 0.005
    """Share of the networks that their targets take over per gradient step, in (0, 1]."""
    max_grad_norm: float | None = None
    """Bound on each actor's and the critic's gradient norm; None: no clipping, as HARL."""
    sequence_length: int = 20
    """Steps of each slice that agents with a memory learn from; batch_size/sequence_length slices
    make a batch. 10 to 80."""
    burn_in: int = 10
    """Steps before those that bring memories up to date, without learning; 0 to 40."""
    allow_shared_sequential: bool = False
    """Let a sequential algorithm train agents that share parameters, as one joint agent per set."""

    def __post_init__(self) -> None:
        positive = ("n_step", "batch_size", "updates_per_step", "actor_lr", "critic_lr")
        for name in (*positive, "sequence_length"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"algo.{name}={getattr(self, name)}: expected more than 0.")
        if self.burn_in < 0:
            raise ConfigError(f"algo.burn_in={self.burn_in}: expected 0 or more.")
        for name in ("gamma", "polyak"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"algo.{name}={getattr(self, name)}: expected 0 < {name} <= 1.")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ConfigError(
                f"algo.max_grad_norm={self.max_grad_norm}: expected more than 0, or null for none."
            )


class OffPolicyModule(TeamModule):
    """An off-policy algorithm: a joint critic from replay, actors in order or at once.

    Subclasses say by ``make_loss`` and class attributes what they are. Use with
    ``hetmarl.data.ReplayData``, whose batches are ``ReplayBatch``. Arguments are ``TeamModule``'s.
    """

    config_type = OffPolicyConfig
    loss: JointQLoss
    engine_type: ClassVar[type[OffPolicyEngine]] = OffPolicyEngine
    """How one gradient step of everybody goes."""
    sequential: ClassVar[bool] = True
    """One agent after another, each against its updated predecessors; or all at once."""
    num_critics: ClassVar[int] = 2
    """Values of the joint critic, of which the least counts."""
    quantities: ClassVar[tuple[str, ...]] = ("loss_actor", "grad_norm")
    """Metrics per agent."""
    of_team: ClassVar[tuple[str, ...]] = ()
    """Metrics of the team besides those of the critic."""
    update_debt: Tensor
    """Gradient steps that are due, a fraction of one between iterations."""
    updates: Tensor
    """Gradient steps so far."""

    def __init__(
        self,
        spec: TeamSpec | dict[str, Any],
        config: OffPolicyConfig | dict[str, Any] | None = None,
        network: NetworkConfig | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, config, network, seed)
        check_sharing(self, "masac, matd3 or maddpg")
        self.register_buffer("update_debt", torch.zeros((), dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        per_agent = [f"{q}/{name}" for q in self.quantities for name in self.spec.names]
        self.metric_names = ("loss_qvalue", "q_mean", "grad_norm_qvalue", *per_agent, *self.of_team)

    # ------------------------------------------------------------------ what a member is
    @abstractmethod
    def make_loss(self, policy: TeamPolicy, critic: JointQ) -> JointQLoss:
        """The losses; a variant of the algorithm returns its own."""

    def temperatures(self) -> tuple[list[nn.Parameter], float]:
        """Temperatures to adapt, and their learning rate; none unless a member has them."""
        return [], 0.0

    def moves_actors(self, update: int) -> bool:
        """Whether actors and targets move at gradient step number ``update``, counted from 1."""
        return True

    def begin_update(self, update: int) -> None:
        """Called before gradient step number ``update``, counted from 1."""

    # ------------------------------------------------------------------ the machinery
    def make_critic(self) -> JointQ:
        return make_joint_q(self.spec, self.network, self.num_critics)

    def optimizers_of_team(self) -> list[Optimizer]:
        """The critic's, the units', the temperatures'."""
        config, loss = self.config, self.loss
        loss.reduce = self.reduce

        def step(parameters: list[nn.Parameter], lr: float, norm: float | None) -> GradientStep:
            return GradientStep(parameters, adam(lr)(parameters), self.reduce, norm)

        norm = config.max_grad_norm
        critic = step(list(loss.critic.parameters()), config.critic_lr, norm)
        units = [unit_parameters(loss.policy.actors, unit) for unit in loss.policy.units]
        actors = [step(parameters, config.actor_lr, norm) for parameters in units]
        adapted, lr = self.temperatures()
        temperatures = step(adapted, lr, None) if adapted else None
        self.engine = self.engine_type(
            loss, critic, actors, temperatures, config.polyak, self.sequential
        )
        return [s.optimizer for s in (critic, *actors, temperatures) if s is not None]

    def learn(self, batch: ReplayBatch, randomness: UpdateRandomness) -> dict[str, Tensor]:
        """As many gradient steps as the collected vector steps are worth."""
        config = self.config
        self.update_debt += batch.learning_steps * config.updates_per_step
        due = int(self.update_debt)
        self.update_debt -= due
        done = int(self.updates)
        self.updates += due
        history = []
        for number in range(done + 1, done + due + 1):
            data = self.draw(batch)
            self.begin_update(number)
            moves = self.moves_actors(number)
            history.append(self.engine.update(data, randomness, actors=moves))
            if batch.update_priority is not None:
                batch.update_priority(*self.priority(data))
        return finite_means(history, int(self.frames))

    def draw(self, batch: ReplayBatch) -> TensorDictBase:
        """A gradient step's data ``[B]``, or with memories slices in time ``[B, T]``."""
        config = self.config
        target = {"n_step": config.n_step, "gamma": config.gamma}
        if not self.policy.recurrent:
            return batch.sample(config.batch_size, **target)
        assert batch.sample_sequences is not None
        length, burn_in = config.sequence_length, config.burn_in
        slices = math.ceil(config.batch_size / length)
        return self.loss.burn_in(batch.sample_sequences(slices, length, burn_in, **target), burn_in)

    def priority(self, data: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Indices ``[B, 1]`` and errors ``[B, 1]``; a slice's is .9·max + .1·mean of its steps'.

        (R2D2; Kapturowski et al. 2019, section 2.3.) Nothing is known of a slice that burned in up
        to the newest frame: it keeps its priority.
        """
        index, error = data["index"], data[self.loss.tensor_keys.td_error]
        if data.batch_dims == 1:
            return index, error
        valid = data["valid"]
        error, count = error * valid, valid.sum(1).clamp(min=1)
        known = valid.any(1).squeeze(-1)
        return index[known, 0], (0.9 * error.amax(1) + 0.1 * error.sum(1) / count)[known]
