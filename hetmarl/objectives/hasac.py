"""The losses of HASAC."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrl.objectives import LossModule

from hetmarl.networks.actors import Sample
from hetmarl.networks.critics import TwinQ
from hetmarl.networks.distributions import NoiseLike
from hetmarl.networks.policy import TeamPolicy
from hetmarl.objectives.masked import masked_mean
from hetmarl.objectives.reduce import Reduce, identity
from hetmarl_envs.errors import ConfigError


class HASACLoss(LossModule):
    """Heterogeneous-agent soft actor-critic: maximum entropy, one joint critic, n actors.

    Critic, on n-step transitions that took k steps:

        y  = R + (1 − terminated)·γᵏ·(min(Q̄₁, Q̄₂)(s′, a′) − α·Σᵢ log πⁱ(a′ⁱ|o′ⁱ)),  a′ ~ π
        L_Q = mean (Q₁(s, a) − y)² + mean (Q₂(s, a) − y)²

    Actor iₘ, after i₁…iₘ₋₁ were updated (their actions come from their *new* policies, those of the
    agents still to come from their current ones):

        L_π = mean [αⁱ·log πⁱ(aⁱ|oⁱ) − min(Q₁, Q₂)(s, a^{i₁:ₘ₋₁}, aⁱ, a^{iₘ₊₁:ₙ})],  aⁱ ~ πⁱ

    Temperatures, each agent's and the critic's joint one (H̄ⁱ = −target_entropy_scale·dim aⁱ, joint:
    their sum):

        L_α = −mean log αⁱ·(log πⁱ + H̄ⁱ)

    Liu et al. 2024 (arXiv 2306.10715), algorithm 1. The paper has one α; as in its authors' code
    each agent adapts its own and the critic a joint one, which are all equal where α is fixed.

    Unlike ``torchrl.objectives.SACLoss`` the critic sees the joint action and an agent's loss takes
    the others' actions as arguments, so that an engine can go through the agents in order.
    The networks stay ordinary modules: the loss is not functional and has no vmap.

    Reads (names by ``set_keys``): ``(group, observation) [B, n_g, O_g]``, ``(group, action)
    [B, n_g, A_g]``, optional ``(group, alive) [B, n_g, 1]`` and ``state [B, S]``, the same under
    ``"next"`` for the bootstrap (observations, alive, state), ``("next", reward) [B, 1]`` the
    n-step return, ``("next", terminated) [B, 1]``, and ``steps_to_next_obs [B, 1]`` or
    ``[B]``, the steps k taken (missing: 1). Written by ``hetmarl.data.Replay``, and by TorchRL's
    ``MultiStep``.

    Args:
        policy: the team's actors.
        critic: the joint twin critic; its target copy is made here.
        gamma: discount γ per step.
        alpha: temperature; the initial one if ``auto_alpha``.
        auto_alpha: adapt the temperatures to their target entropies.
        target_entropy_scale: H̄ⁱ = −scale·dim aⁱ, in nats.
        reduce: averages a tensor over the processes in place (see ``hetmarl.objectives.reduce``).
    """

    @dataclass
    class _AcceptedKeys:
        observation: str = "observation"
        action: str = "action"
        alive: str = "alive"
        state: str = "state"
        reward: str = "reward"
        terminated: str = "terminated"
        steps: str = "steps_to_next_obs"

    tensor_keys: _AcceptedKeys

    def __init__(
        self,
        policy: TeamPolicy,
        critic: TwinQ,
        *,
        gamma: float = 0.99,
        alpha: float = 0.2,
        auto_alpha: bool = True,
        target_entropy_scale: float = 1.0,
        reduce: Reduce = identity,
    ) -> None:
        super().__init__()
        if alpha <= 0:
            raise ConfigError(f"alpha={alpha}: expected a temperature above 0.")
        self.spec = policy.team
        self.policy = policy
        self.critic = critic
        self.target_critic = copy.deepcopy(critic).requires_grad_(False)
        self.gamma = gamma
        self.auto_alpha = auto_alpha
        self.reduce = reduce
        count = self.spec.num_agents
        start = torch.tensor(float(alpha)).log()
        self.log_alpha = nn.ParameterList(
            nn.Parameter(start.clone(), requires_grad=auto_alpha) for _ in range(count)
        )
        self.log_alpha_joint = nn.Parameter(start.clone(), requires_grad=auto_alpha)
        self.target_entropy = [-target_entropy_scale * a.action.dim for a in self.spec.agents]

    @property
    def functional(self) -> bool:
        """Whether parameters are held apart from the modules: here they are not."""
        return False

    @property
    def in_keys(self) -> list[Any]:
        keys, groups = self.tensor_keys, self.spec.groups
        root = [(g, k) for g in groups for k in (keys.observation, keys.action)]
        following = [("next", g, keys.observation) for g in groups]
        state = [keys.state, ("next", keys.state)] if self.spec.state_dim is not None else []
        return [*root, *following, *state, ("next", keys.reward), ("next", keys.terminated)]

    @property
    def out_keys(self) -> list[str]:
        return ["loss_qvalue", "loss_actor", "loss_alpha", "q_mean", "entropy"]

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """No value estimator: the n-step target is this class's own."""

    # ------------------------------------------------------------------ reading the batch
    def state(self, data: TensorDictBase) -> Tensor:
        """What the critic sees, ``[B, S]``."""
        keys = self.tensor_keys
        return self.spec.critic_input(data, state=keys.state, observation=keys.observation)

    def alive(self, data: TensorDictBase, agent: int) -> Tensor | None:
        """``[B, 1]``, None where nobody dies."""
        return self.spec.alive(data, agent, key=self.tensor_keys.alive)

    def sample(
        self, data: TensorDictBase, agent: int, noise: NoiseLike = torch.randn_like
    ) -> Sample:
        """Action ``[B, A_i]`` and log-probability ``[B, 1]`` of the agent's policy as it is now."""
        observation = self.spec.observation(data, agent, key=self.tensor_keys.observation)
        return self.policy.actors[agent].sample(observation, noise)  # type: ignore[operator]

    # ------------------------------------------------------------------ the equations
    @torch.no_grad()
    def target(self, data: TensorDictBase, noise: NoiseLike = torch.randn_like) -> Tensor:
        """The soft n-step target y, ``[B, 1]``."""
        keys, following = self.tensor_keys, data.get("next")
        samples = [self.sample(following, i, noise) for i in range(self.spec.num_agents)]
        joint_log_prob = self._joint_log_prob(following, [s.log_prob for s in samples])
        q = torch.minimum(*self.target_critic(self.state(following), [s.action for s in samples]))
        soft_value = q - self.log_alpha_joint.exp() * joint_log_prob
        steps = data.get(keys.steps, None)
        # [B, 1], or [B] as TorchRL's MultiStep has it, which would broadcast to [B, B]
        discount = self.gamma if steps is None else self.gamma ** steps.to(q.dtype).view_as(q)
        continues = (~following.get(keys.terminated)).to(q.dtype)
        return following.get(keys.reward) + continues * discount * soft_value

    def qvalue(
        self, data: TensorDictBase, noise: NoiseLike = torch.randn_like
    ) -> tuple[Tensor, Tensor]:
        """L_Q (scalar) and the mean of both values (scalar, detached)."""
        y = self.target(data, noise)
        action = self.spec.joint_action(data, key=self.tensor_keys.action)
        q1, q2 = self.critic(self.state(data), action)
        return F.mse_loss(q1, y) + F.mse_loss(q2, y), ((q1 + q2) / 2).mean().detach()

    def actor(
        self, data: TensorDictBase, agent: int, joint_action: Sequence[Tensor], log_prob: Tensor
    ) -> Tensor:
        """L_π of one agent (scalar); its own entry of ``joint_action`` carries the gradient."""
        q = torch.minimum(*self.critic(self.state(data), joint_action))
        alpha = self.log_alpha[agent].detach().exp()
        return masked_mean(alpha * log_prob - q, self.alive(data, agent), self.reduce)

    def temperature(self, data: TensorDictBase, log_probs: Sequence[Tensor]) -> Tensor:
        """L_α of all agents and the joint one, summed (scalar), from ``log_probs [B, 1]``."""
        entropies = [log_prob.detach() for log_prob in log_probs]
        loss = data.get(("next", self.tensor_keys.reward)).new_zeros(())
        gap: Tensor | float = 0.0
        for i, (log_alpha, log_prob) in enumerate(zip(self.log_alpha, entropies, strict=True)):
            alive = self.alive(data, i)
            excess = log_prob + self.target_entropy[i]
            loss = loss - log_alpha * masked_mean(excess, alive, self.reduce)
            gap = gap + (excess if alive is None else excess * alive)
        assert isinstance(gap, Tensor)
        return loss - self.log_alpha_joint * gap.mean()

    def _joint_log_prob(self, data: TensorDictBase, log_probs: Sequence[Tensor]) -> Tensor:
        """log π(a|s) of the living, ``[B, 1]``."""
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
            tensordict: batch ``[B]``, keys as in the class's description.

        Returns:
            ``loss_qvalue``, ``loss_actor`` (sum over agents), ``loss_alpha`` (all scalars), and
            detached ``q_mean`` and ``entropy`` (of the joint policy, in nats).
        """
        samples = [self.sample(tensordict, i) for i in range(self.spec.num_agents)]
        loss_q, q_mean = self.qvalue(tensordict)
        actions = [sample.action.detach() for sample in samples]
        loss_actor = loss_q.new_zeros(())
        with frozen(self.critic):
            for i, sample in enumerate(samples):
                joint = [*actions[:i], sample.action, *actions[i + 1 :]]
                loss_actor = loss_actor + self.actor(tensordict, i, joint, sample.log_prob)
        log_probs = [sample.log_prob for sample in samples]
        return TensorDict(
            {
                "loss_qvalue": loss_q,
                "loss_actor": loss_actor,
                "loss_alpha": self.temperature(tensordict, log_probs),
                "q_mean": q_mean,
                "entropy": -self._joint_log_prob(tensordict, log_probs).mean().detach(),
            }
        )


class frozen:
    """Computes no gradient into a module's parameters; gradients flow through it to its inputs."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]

    def __enter__(self) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(True)
