"""HASAC: heterogeneous-agent soft actor-critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hetmarl.data.replay_data import ReplayBatch
from hetmarl.engines import GradientStep, OffPolicyEngine, UpdateRandomness
from hetmarl.lightning.module import TeamModule, adam, finite_means
from hetmarl.networks import NetworkConfig, TeamPolicy, TwinQ
from hetmarl.objectives import HASACLoss
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError


@dataclass
class HASACConfig:
    """Hyperparameters of HASAC; the published ones are overlays, ``+experiment=``."""

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
    """Share of the critic that its target takes over per gradient step, in (0, 1]."""
    auto_alpha: bool = True
    """Adapt each agent's and the joint temperature to its target entropy."""
    alpha: float = 0.2
    """Temperature; the initial one if it is adapted. HARL: 1 adapted, .2 or .001 fixed."""
    alpha_lr: float = 1e-3
    """Adam's learning rate of the temperatures; 3e-4 (HARL) to 1e-3."""
    target_entropy_scale: float = 1.0
    """Target entropy −scale·(action dimensions), in nats."""
    max_grad_norm: float | None = None
    """Bound on each actor's and the critic's gradient norm; None: no clipping, as HARL."""

    def __post_init__(self) -> None:
        positive = ("n_step", "batch_size", "updates_per_step", "actor_lr", "critic_lr", "alpha")
        for name in (*positive, "alpha_lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"algo.{name}={getattr(self, name)}: expected more than 0.")
        for name in ("gamma", "polyak"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"algo.{name}={getattr(self, name)}: expected 0 < {name} <= 1.")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ConfigError(
                f"algo.max_grad_norm={self.max_grad_norm}: expected more than 0, or null for none."
            )


class HASAC(TeamModule):
    """Maximum-entropy cooperative learning of unequal agents, off policy and one after another.

    Each gradient step fits a joint soft Q-function, then goes through the agents in a fresh random
    order; agent iₘ ascends

        E[min Q(s, a^{i₁:ₘ₋₁}, aⁱᵐ, a^{iₘ₊₁:ₙ}) − αⁱᵐ·log πⁱᵐ(aⁱᵐ|oⁱᵐ)],  aⁱᵐ ~ πⁱᵐ

    with its predecessors' actions re-sampled from their updated policies (Liu et al. 2024,
    arXiv 2306.10715, algorithm 1). The equations stand in ``hetmarl.objectives.HASACLoss``, the
    order of updates in ``hetmarl.engines.OffPolicyEngine``.

    Use with ``hetmarl.data.ReplayData``, whose batches are ``ReplayBatch``. Arguments are
    ``TeamModule``'s.

    Raises:
        ConfigError: an agent's action space is not continuous.
    """

    name = "hasac"
    config_type = HASACConfig
    sequential: ClassVar[bool] = True
    """One agent after another, each against its updated predecessors; or all at once."""
    loss: HASACLoss
    update_debt: Tensor

    def __init__(
        self,
        spec: TeamSpec | dict[str, Any],
        config: HASACConfig | dict[str, Any] | None = None,
        network: NetworkConfig | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, config, network, seed)
        self.register_buffer("update_debt", torch.zeros((), dtype=torch.float64))

        quantities = ("loss_actor", "grad_norm", "entropy", "alpha")
        per_agent = [f"{q}/{name}" for q in quantities for name in self.spec.names]
        of_critic = ("loss_qvalue", "q_mean", "grad_norm_qvalue")
        self.metric_names = (*of_critic, *per_agent, "alpha/joint")

    def make_critic(self) -> TwinQ:
        return TwinQ(self.spec, self.network)

    def make_loss(self, policy: TeamPolicy, critic: TwinQ) -> HASACLoss:
        """The losses; a variant of the algorithm returns its own."""
        return HASACLoss(
            policy,
            critic,
            gamma=self.config.gamma,
            alpha=self.config.alpha,
            auto_alpha=self.config.auto_alpha,
            target_entropy_scale=self.config.target_entropy_scale,
        )

    def optimizers_of_team(self) -> list[Optimizer]:
        """The critic's, the actors' in team order, the temperatures'."""
        config, loss = self.config, self.loss
        loss.reduce = self.reduce

        def step(parameters: list[nn.Parameter], lr: float, norm: float | None) -> GradientStep:
            return GradientStep(parameters, adam(lr)(parameters), self.reduce, norm)

        norm = config.max_grad_norm
        critic = step(list(loss.critic.parameters()), config.critic_lr, norm)
        actors = [step(list(a.parameters()), config.actor_lr, norm) for a in loss.policy.actors]
        temperatures = None
        if config.auto_alpha:
            logs = [*loss.log_alpha, loss.log_alpha_joint]
            temperatures = step(logs, config.alpha_lr, None)
        self.engine = OffPolicyEngine(
            loss, critic, actors, temperatures, config.polyak, self.sequential
        )
        steps = [critic, *actors, *([temperatures] if temperatures else [])]
        return [s.optimizer for s in steps]

    def learn(self, batch: ReplayBatch, randomness: UpdateRandomness) -> dict[str, Tensor]:
        """As many gradient steps as the collected vector steps are worth."""
        config = self.config
        self.update_debt += batch.learning_steps * config.updates_per_step
        updates = int(self.update_debt)
        self.update_debt -= updates
        history = []
        for _ in range(updates):
            data = batch.sample(config.batch_size, n_step=config.n_step, gamma=config.gamma)
            history.append(self.engine.update(data, randomness))
        metrics = finite_means(history, int(self.frames))
        for name, log_alpha in zip(self.spec.names, self.loss.log_alpha, strict=True):
            metrics[f"alpha/{name}"] = log_alpha.detach().exp()
        metrics["alpha/joint"] = self.loss.log_alpha_joint.detach().exp()
        return metrics
