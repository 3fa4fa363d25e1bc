"""The losses of HASAC."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor, nn

from hetmarl.networks.critics import JointQ
from hetmarl.networks.distributions import NoiseLike
from hetmarl.networks.policy import TeamPolicy
from hetmarl.objectives.masked import masked_mean
from hetmarl.objectives.off_policy import JointQLoss, least, log_probs
from hetmarl.objectives.reduce import Reduce, identity
from hetmarl_envs.errors import ConfigError


class HASACLoss(JointQLoss):
    """Heterogeneous-agent soft actor-critic: maximum entropy, one joint critic, n actors.

    The value of the next state in the target of ``JointQLoss`` is soft:

        V̄(s′) = min(Q̄₁, Q̄₂)(s′, a′) − α·Σᵢ log πⁱ(a′ⁱ|o′ⁱ),  a′ ~ π

    Actor iₘ, after i₁…iₘ₋₁ were updated (their actions come from their *new* policies, those of the
    agents still to come from their current ones):

        L_π = mean [αⁱ·log πⁱ(aⁱ|oⁱ) − min(Q₁, Q₂)(s, a^{i₁:ₘ₋₁}, aⁱ, a^{iₘ₊₁:ₙ})],  aⁱ ~ πⁱ

    Where an agent makes a single choice, the mean over aⁱ is a sum, and with ``exact_choices``
    computed as one (Christodoulou 2019, arXiv 1910.07207):

        L_π = mean Σ_a πⁱ(a|oⁱ)·[αⁱ·log πⁱ(a|oⁱ) − min(Q₁, Q₂)(s, a^{i₁:ₘ₋₁}, a, a^{iₘ₊₁:ₙ})]

    Otherwise choices are draws whose gradient is the softmax's, straight through (``GumbelActor``):
    biased wherever Q is not linear in the one-hot vector, which a network is not.

    Temperatures, each agent's and the critic's joint one (its target H̄ is the sum of the agents'):

        L_α = −mean log αⁱ·(log πⁱ + H̄ⁱ)

    H̄ⁱ = −target_entropy_scale·dim aⁱ for real numbers, and for choices target_entropy_choices times
    the largest entropy, Σ_d log(number of *legal* choices), which changes from state to state.

    Liu et al. 2024 (arXiv 2306.10715), algorithm 1. The paper has one α; as in its authors' code
    each agent adapts its own and the critic a joint one, which are all equal where α is fixed.

    Args:
        policy, critic, gamma, reduce: see ``JointQLoss``, as the keys that it reads.
        alpha: temperature; the initial one if ``auto_alpha``.
        auto_alpha: adapt the temperatures to their target entropies.
        target_entropy_scale: of real-valued actions, in nats per dimension.
        target_entropy_choices: share of the largest entropy, for choices.
        exact_choices: sum over an agent's choices, which asks the critic for each of them.
    """

    def __init__(
        self,
        policy: TeamPolicy,
        critic: JointQ,
        *,
        gamma: float = 0.99,
        alpha: float = 0.2,
        auto_alpha: bool = True,
        target_entropy_scale: float = 1.0,
        target_entropy_choices: float = 0.98,
        exact_choices: bool = True,
        reduce: Reduce = identity,
    ) -> None:
        super().__init__(policy, critic, gamma=gamma, reduce=reduce)
        if alpha <= 0:
            raise ConfigError(f"alpha={alpha}: expected a temperature above 0.")
        self.auto_alpha = auto_alpha
        start = torch.tensor(float(alpha)).log()
        self.log_alpha = nn.ParameterList(
            nn.Parameter(start.clone(), requires_grad=auto_alpha) for _ in self.spec.agents
        )
        self.log_alpha_joint = nn.Parameter(start.clone(), requires_grad=auto_alpha)
        self.target_entropy_scale = target_entropy_scale
        self.target_entropy_choices = target_entropy_choices
        self.exact_choices = exact_choices

    @property
    def out_keys(self) -> list[str]:
        return ["loss_qvalue", "loss_actor", "loss_alpha", "q_mean", "entropy"]

    @torch.no_grad()
    def set_alpha(self, alpha: float) -> None:
        """Makes all temperatures ``alpha``: constant, or in steps of a schedule."""
        for log_alpha in (*self.log_alpha, self.log_alpha_joint):
            log_alpha.fill_(math.log(alpha))

    # ------------------------------------------------------------------ the equations
    def next_value(self, following: TensorDictBase, noise: NoiseLike) -> Tensor:
        samples = self.samples(following, range(self.spec.num_agents), noise)
        log_prob = self._joint_log_prob(following, log_probs(samples))
        q = least(self.target_critic(self.state(following), [s.action for s in samples]))
        return q - self.log_alpha_joint.exp() * log_prob

    def actor(
        self,
        data: TensorDictBase,
        agent: int,
        joint_action: Sequence[Tensor],
        log_prob: Tensor | None = None,
        value: Tensor | None = None,
    ) -> Tensor:
        alpha = self.log_alpha[agent].detach().exp()
        if not self.climbs(agent):
            return self.mean(self._over_choices(data, agent, joint_action, alpha), data, agent)
        assert log_prob is not None
        q = self.climbed(data, joint_action) if value is None else value
        return self.mean(alpha * log_prob - q, data, agent)

    def climbs(self, agent: int) -> bool:
        return not (self.exact_choices and self.spec.agents[agent].action.kind == "discrete")

    def _over_choices(
        self, data: TensorDictBase, agent: int, joint_action: Sequence[Tensor], alpha: Tensor
    ) -> Tensor:
        """Σ_a π(a)·(α·log π(a) − Q(a)), ``[*B, 1]``."""
        observation, beside = self.seen(data, agent)
        logits = self.policy.actors[agent](observation, *beside)
        log_p = logits.log_softmax(-1)
        choices = torch.eye(logits.shape[-1], dtype=log_p.dtype, device=log_p.device)
        q = self.candidates(data, agent, joint_action, choices)
        p = log_p.exp()
        # what is never chosen has a logarithm of −∞, and 0·∞ is no number
        return (p * (alpha * log_p.masked_fill(p == 0, 0.0) - q)).sum(-1, keepdim=True)

    def target_entropy(self, data: TensorDictBase, agent: int) -> Tensor | float:
        """H̄ⁱ in nats, one number or ``[*B, 1]`` where the legal choices change."""
        space = self.spec.agents[agent].action
        if space.kind == "continuous":
            return -self.target_entropy_scale * space.dim
        mask = self.action_mask(data, agent)
        if mask is None:
            return self.target_entropy_choices * sum(map(math.log, space.choices))
        legal = [part.sum(-1, keepdim=True) for part in mask.split(list(space.choices), dim=-1)]
        # the dead may have no choice at all
        return self.target_entropy_choices * sum(k.clamp(min=1).log() for k in legal)

    def temperature(self, data: TensorDictBase, log_probs: Sequence[Tensor]) -> Tensor:
        """L_α of all agents and the joint one, summed (scalar), from ``log_probs [*B, 1]``."""
        loss = data.get(("next", self.tensor_keys.reward)).new_zeros(())
        gap: Tensor | float = 0.0
        for i, (log_alpha, log_prob) in enumerate(zip(self.log_alpha, log_probs, strict=True)):
            alive = self.alive(data, i)
            excess = log_prob.detach() + self.target_entropy(data, i)
            loss = loss - log_alpha * self.mean(excess, data, i)
            gap = gap + (excess if alive is None else excess * alive)
        assert isinstance(gap, Tensor)
        valid = data.get("valid", None)
        return loss - self.log_alpha_joint * masked_mean(gap, valid, self.reduce)

    def _joint_log_prob(self, data: TensorDictBase, log_probs: Sequence[Tensor]) -> Tensor:
        """log π(a|s) of the living, ``[*B, 1]``."""
        total = torch.zeros_like(log_probs[0])
        for agent, log_prob in enumerate(log_probs):
            alive = self.alive(data, agent)
            total = total + (log_prob if alive is None else log_prob * alive)
        return total

    # ------------------------------------------------------------------ TorchRL's contract
    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """All losses at once, every actor against the others' *current* policies.

        For use in other TorchRL loops. The sequential update, in which each agent sees its
        predecessors' new policies, is ``hetmarl.engines.OffPolicyEngine``'s.

        Args:
            tensordict: batch ``[*B]``, keys as in ``JointQLoss``'s description.

        Returns:
            ``loss_qvalue``, ``loss_actor`` (sum over agents), ``loss_alpha`` (all scalars), and
            detached ``q_mean`` and ``entropy`` (of the joint policy, in nats).
        """
        losses, samples = self.actors_and_critic(tensordict)
        drawn = log_probs(samples)
        losses["loss_alpha"] = self.temperature(tensordict, drawn)
        losses["entropy"] = -self._joint_log_prob(tensordict, drawn).mean().detach()
        return losses
