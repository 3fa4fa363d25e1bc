"""The losses of maximum-entropy mirror learning: HASAC's, with a drift and a neighbourhood."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor

from hetmarl.networks.critics import JointQ
from hetmarl.networks.distributions import ActionDistribution, NoiseLike
from hetmarl.networks.policy import TeamPolicy
from hetmarl.objectives.drifts import Drift, Neighbourhood, NoDrift, PolicyChange
from hetmarl.objectives.hasac import HASACLoss
from hetmarl_envs.errors import ConfigError


class SoftChange(PolicyChange):
    """A ``PolicyChange`` off policy, where no data tells what the old policy's actions are worth.

    ``log_ratio`` is that of an action drawn afresh from the old policy, so that means over a batch
    are expectations over the old policy's actions, as on policy: what ``check_drift`` says of a
    drift holds here too. Real-valued actions are taken before squashing, which changes no ratio
    and no divergence, but an entropy. There is no ``advantage``.
    """

    @property
    def advantage(self) -> Tensor:  # type: ignore[override]
        raise ConfigError(
            "this drift or distance reads PolicyChange.advantage, which is there on policy only: "
            "off policy the critic says what actions are worth. Take one of new, old and "
            "log_ratio, such as KLDrift, or an on-policy algorithm such as happo."
        )


class OldPolicy(NamedTuple):
    """One agent's old policy on a batch, without gradient.

    Args:
        policy: at the batch's observations.
        action: drawn from it ``[*B, D]``.
        log_prob: of that action ``[*B, 1]``.
    """

    policy: ActionDistribution
    action: Tensor
    log_prob: Tensor


class MEHAMLLoss(HASACLoss):
    """Maximum-entropy mirror learning: agent iₘ goes, in a neighbourhood U of its old policy, down

        L_π = mean [αⁱ·log πⁱ(aⁱ|oⁱ) − min(Q₁, Q₂)(s, a^{i₁:ₘ₋₁}, aⁱ, a^{iₘ₊₁:ₙ})]
              + mean D(πⁱ | πⁱ_old),   aⁱ ~ πⁱ

    Critic and temperatures are ``HASACLoss``'s, which has D = 0 and U everything (Liu et al. 2024,
    arXiv 2306.10715, the template MEHAML). The old policies are those of the last ``remember``:
    copies of the actors, ``old_actors``, part of the state. With gradient steps one must say how
    long they stay: right after ``remember`` a drift has no gradient.

    ``forward`` adds the drifts to ``loss_actor``; a neighbourhood is kept by
    ``hetmarl.engines.SoftMirrorEngine``.

    Args:
        policy, critic, settings: see ``HASACLoss``.
        drift: D; None: none.
        neighbourhood: U; None: everything.

    Raises:
        ConfigError: a drift or distance that needs what is not there off policy, or that is not one
            number per sample.
    """

    def __init__(
        self,
        policy: TeamPolicy,
        critic: JointQ,
        drift: Drift | None = None,
        neighbourhood: Neighbourhood | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(policy, critic, **settings)
        self.drift = drift or NoDrift()
        self.neighbourhood = neighbourhood
        self.old_actors = copy.deepcopy(policy.actors).requires_grad_(False)
        self._try()

    @property
    def out_keys(self) -> list[str]:
        return [*super().out_keys, "drift"]

    @torch.no_grad()
    def remember(self) -> None:
        """Takes the policies as they are for the old ones."""
        torch._foreach_copy_(
            list(self.old_actors.parameters()), list(self.policy.actors.parameters())
        )

    # ------------------------------------------------------------------ one agent's change
    @torch.no_grad()
    def old(
        self, data: TensorDictBase, agent: int, noise: NoiseLike = torch.randn_like
    ) -> OldPolicy:
        """The agent's old policy on the batch, and an action of it."""
        policy = self._policy_at(self.old_actors[agent], data, agent)
        action = policy.sample(noise)
        return OldPolicy(policy, action, policy.log_prob(action))

    def change(self, data: TensorDictBase, agent: int, old: OldPolicy) -> SoftChange:
        """From there to the policy as it is, with gradient."""
        new = self._policy_at(self.policy.actors[agent], data, agent)
        log_ratio = new.log_prob(old.action) - old.log_prob
        return SoftChange(new, old.policy, log_ratio, old.log_prob, self.alive(data, agent))

    def drift_cost(self, data: TensorDictBase, agent: int, old: OldPolicy) -> Tensor:
        """Mean D over the samples in which the agent lives (scalar)."""
        return self.mean(self.drift(self.change(data, agent, old)), data, agent)

    @torch.no_grad()
    def distance(self, data: TensorDictBase, agent: int, old: OldPolicy) -> Tensor:
        """Mean distance over them, and over all processes (scalar); 0 without a neighbourhood."""
        if self.neighbourhood is None:
            return old.log_prob.new_zeros(())
        distance = self.neighbourhood.distance(self.change(data, agent, old))
        return self.reduce(self.mean(distance, data, agent))

    def _policy_at(self, actor: Any, data: TensorDictBase, agent: int) -> ActionDistribution:
        observation, beside = self.seen(data, agent)
        policy: ActionDistribution = actor.policy_at(observation, *beside)
        return policy

    @torch.no_grad()
    def _try(self) -> None:
        """Every agent's drift and distance once, before anything is collected for them."""
        actors: Any = self.policy.actors
        for agent, actor in zip(self.spec.agents, actors, strict=True):
            if not hasattr(actor, "policy_at"):
                raise ConfigError(
                    f"the {type(actor).__name__} of agent '{agent.name}' has no policy_at("
                    "observation, action_mask) -> ActionDistribution, which drifts and "
                    "neighbourhoods compare."
                )
            observation = next(actor.parameters()).new_zeros(1, *agent.observation_shape)
            policy = actor.policy_at(observation)
            log_prob = policy.log_prob(policy.mode())
            change = SoftChange(policy, policy, log_prob - log_prob, log_prob)
            costs = {"the drift": self.drift(change)}
            if self.neighbourhood is not None:
                costs["the distance"] = self.neighbourhood.distance(change)
            for name, cost in costs.items():
                if cost.shape != (1, 1):
                    raise ConfigError(
                        f"{name} of a batch [1] of samples of agent '{agent.name}' is "
                        f"{list(cost.shape)}; expected one number per sample, [1, 1]."
                    )

    # ------------------------------------------------------------------ TorchRL's contract
    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """``HASACLoss``'s, with the drifts in ``loss_actor``, and detached ``drift``, their sum."""
        losses = super().forward(tensordict)
        drifts = [
            self.drift_cost(tensordict, i, self.old(tensordict, i))
            for i in range(self.spec.num_agents)
        ]
        total = torch.stack(drifts).sum()
        losses["loss_actor"] = losses["loss_actor"] + total
        losses["drift"] = total.detach()
        return losses
