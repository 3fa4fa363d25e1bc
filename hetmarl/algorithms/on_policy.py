"""What the on-policy algorithms share: hyperparameters, networks, engine, iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from hetmarl.algorithms.sharing import check_sharing
from hetmarl.data.rollout_data import RolloutBatch, RolloutData
from hetmarl.engines import (
    GradientEpochs,
    GradientStep,
    OnPolicyEngine,
    UnitUpdate,
    UpdateRandomness,
)
from hetmarl.lightning.module import TeamModule, adam
from hetmarl.networks import LocalValues, OnPolicyNetworkConfig, StateValue, TeamPolicy
from hetmarl.networks.policy import unit_parameters
from hetmarl.objectives import Drift, MirrorLoss, NoDrift
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError


@dataclass
class OnPolicyConfig:
    """Hyperparameters that all on-policy algorithms have; defaults are HARL's."""

    gamma: float = 0.99
    """Discount per step, in (0, 1]; typically .95 to .995."""
    gae_lambda: float = 0.95
    """Decay of the advantage estimator's trace per step, in [0, 1]; typically .9 to .98."""
    critic_lr: float = 5e-4
    """Adam's learning rate of the critic; 1e-4 to 1e-3."""
    critic_epochs: int = 5
    """Passes of the critic over each rollout; 1 to 15."""
    critic_minibatches: int = 1
    """Parts of each of its passes; 1 to 40."""
    lr_decay: bool = False
    """Learning rates fall linearly to 0 over the run."""
    max_grad_norm: float | None = 10.0
    """Bound on each actor's and the critic's gradient norm; null: no clipping."""
    value_clip: float | None = 0.2
    """Bound on a value's change per rollout, in the critic's own units; null: none."""
    huber_delta: float | None = 10.0
    """Where the value loss turns from square to linear; null: nowhere."""
    value_norm: bool = True
    """The critic learns values normalised by running statistics."""
    chunk_length: int = 10
    """Steps through which recurrent networks are differentiated; must divide rollout_steps."""
    fixed_order: bool = False
    """Agents in team order instead of a random one; an ablation. Sequential algorithms only."""
    allow_shared_sequential: bool = False
    """Let a sequential algorithm train agents that share parameters, as one joint agent per set."""

    def __post_init__(self) -> None:
        for name in ("critic_lr", "critic_epochs", "critic_minibatches", "chunk_length"):
            positive(self, name)
        for name in ("max_grad_norm", "value_clip", "huber_delta"):
            positive(self, name, optional=True)
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"algo.gamma={self.gamma}: expected 0 < gamma <= 1.")
        if not 0 <= self.gae_lambda <= 1:
            raise ConfigError(f"algo.gae_lambda={self.gae_lambda}: expected 0 to 1.")


@dataclass
class GradientConfig(OnPolicyConfig):
    """Those of the algorithms whose actors take plain gradient steps."""

    actor_lr: float = 5e-4
    """Adam's learning rate of each actor; 5e-5 to 1e-3."""
    epochs: int = 5
    """Passes of each actor over each rollout; 1 to 15."""
    minibatches: int = 1
    """Parts of each of its passes; 1 to 40."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus; 0 to .05."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("actor_lr", "epochs", "minibatches"):
            positive(self, name)
        if self.entropy_coef < 0:
            raise ConfigError(f"algo.entropy_coef={self.entropy_coef}: expected 0 or more.")


def positive(config: Any, name: str, optional: bool = False) -> None:
    """Refuses a value that is not more than 0."""
    value = getattr(config, name)
    if value is None and optional:
        return
    if not value > 0:
        tail = ", or null for none" if optional else ""
        raise ConfigError(f"algo.{name}={value}: expected more than 0{tail}.")


class OnPolicyModule(TeamModule):
    """An on-policy algorithm: fresh rollout, actors in order (or at once), critic last.

    Subclasses say by class attributes and two methods what they are: whether they update
    sequentially, whose values they learn, their ``drift``, and, if it is not plain gradient steps,
    how a unit is updated. Use with ``hetmarl.data.RolloutData``.

    Arguments are ``TeamModule``'s.

    Raises:
        ConfigError: the network settings do not fit the team, or a sequential algorithm is to share
            parameters.
    """

    config_type = OnPolicyConfig
    network_type = OnPolicyNetworkConfig
    loss: MirrorLoss
    sequential: ClassVar[bool] = True
    """One agent after another, each against its updated predecessors; or all at once."""
    critic_type: ClassVar[type[StateValue | LocalValues]] = StateValue
    """``StateValue`` sees everything, ``LocalValues`` each agent's own observation."""
    second_derivatives: ClassVar[bool] = False
    """Updates differentiate the policy twice."""
    quantities: ClassVar[tuple[str, ...]] = (
        *("loss_actor", "grad_norm", "entropy", "kl", "ratio_deviation", "drift"),
    )
    """Metrics per agent."""

    def __init__(
        self,
        spec: TeamSpec | dict[str, Any],
        config: OnPolicyConfig | dict[str, Any] | None = None,
        network: OnPolicyNetworkConfig | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, config, network, seed)
        check_sharing(self, "mappo")
        if self.network.compile and self.second_derivatives:
            raise ConfigError(
                f"network.compile=true: {self.name} needs second derivatives, which compiled "
                "networks have not. Set network.compile=false, or take algo=happo."
            )
        per_agent = [f"{q}/{name}" for q in self.quantities for name in self.spec.names]
        self.metric_names = ("loss_critic", "grad_norm_critic", "value_mean", *per_agent)

    # ------------------------------------------------------------------ what a member is
    def drift(self) -> Drift:
        """The member's drift D; none unless it says otherwise."""
        return NoDrift()

    def unit_update(self, parameters: list[nn.Parameter]) -> tuple[UnitUpdate, list[Optimizer]]:
        """How one unit's parameters are optimised, and the optimisers that this makes."""
        config = self.config
        step = self.gradient_step(parameters, config.actor_lr)
        return GradientEpochs(step, config.epochs, config.minibatches), [step.optimizer]

    # ------------------------------------------------------------------ the machinery
    def make_critic(self) -> StateValue | LocalValues:
        return self.critic_type(self.spec, self.network)

    def make_loss(self, policy: TeamPolicy, critic: Any) -> MirrorLoss:
        """The losses; a variant of the algorithm may return its own."""
        config = self.config
        return MirrorLoss(
            policy,
            critic,
            self.drift(),
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            entropy_coef=getattr(config, "entropy_coef", 0.0),
            value_clip=config.value_clip,
            huber_delta=config.huber_delta,
            value_norm=config.value_norm,
        )

    def optimizers_of_team(self) -> list[Optimizer]:
        """The critic's, then the units'."""
        config, loss = self.config, self.loss
        loss.reduce = self.reduce
        if self.network.compile:
            for network in (*loss.policy.actors, loss.critic):
                # one graph for networks of equal sizes, and one for each shape of a batch
                network.compile(dynamic=False, recompile_limit=64)
        critic = self.gradient_step(list(loss.critic.parameters()), config.critic_lr)
        updates: list[UnitUpdate] = []
        optimizers = [critic.optimizer]
        for members in loss.policy.units:
            update, made = self.unit_update(unit_parameters(loss.policy.actors, members))
            updates.append(update)
            optimizers += made
        self.engine = OnPolicyEngine(
            loss,
            updates,
            critic,
            critic_epochs=config.critic_epochs,
            critic_minibatches=config.critic_minibatches,
            sequential=self.sequential,
            chunk_length=config.chunk_length,
            fixed_order=config.fixed_order,
        )
        self._rated = [(o, [group["lr"] for group in o.param_groups]) for o in optimizers]
        return optimizers

    def on_train_start(self) -> None:
        """Refuses rollouts that do not split into chunks or minibatches before any is collected."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, RolloutData):
            self.engine.check_rollout(data.num_envs, data.steps_per_batch)

    def learn(self, batch: RolloutBatch, randomness: UpdateRandomness) -> dict[str, Tensor]:
        """One iteration of the engine on the rollout."""
        self.anneal(int(self.iteration), batch.num_iterations)
        return self.engine.update(batch.data, randomness)

    def anneal(self, iteration: int, num_iterations: int) -> None:
        """Sets what changes over the run; a function of the iteration, so nothing to resume."""
        if not self.config.lr_decay:
            return
        for optimizer, rates in self._rated:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * max(0.0, 1 - iteration / num_iterations)

    def gradient_step(self, parameters: list[nn.Parameter], lr: float) -> GradientStep:
        """Adam on these parameters, with gradients averaged over processes and clipped."""
        optimizer = adam(lr, epsilon=1e-5)(parameters)
        return GradientStep(parameters, optimizer, self.reduce, self.config.max_grad_norm)
