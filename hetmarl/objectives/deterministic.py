"""The losses of deterministic policies: HADDPG, HATD3 and their simultaneous baselines."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor, nn

from hetmarl.networks.actors import Sample
from hetmarl.networks.critics import JointQ
from hetmarl.networks.distributions import NoiseLike
from hetmarl.networks.policy import TeamPolicy
from hetmarl.objectives.off_policy import JointQLoss, least
from hetmarl.objectives.reduce import Reduce, identity
from hetmarl_envs.errors import ConfigError


class DeterministicLoss(JointQLoss):
    """Deterministic policy gradients of a team: one joint critic, n actors and their targets.

    The value of the next state in the target of ``JointQLoss``, the least of the critic's values
    (one: HADDPG; two: HATD3) at the smoothed actions of the target actors π̄:

        V̄(s′) = min_j Q̄_j(s′, a′),  a′ⁱ = clip(π̄ⁱ(o′ⁱ) + hⁱ·clip(σ·ε, ±c), bounds),  ε ~ N(0, 1)

    with half-widths h of the bounds; σ = 0: a′ⁱ = π̄ⁱ(o′ⁱ). Choices: one-hot draws of π̄ⁱ, with
    σ = 0 its most probable choice, both legal in the next state.

    Actor iₘ, after i₁…iₘ₋₁ were updated, against the *first* value:

        L_π = −mean Q₁(s, a^{i₁:ₘ₋₁}, πⁱ(oⁱ), a^{iₘ₊₁:ₙ})

    Zhong et al. 2024 (arXiv 2304.09870, algorithms HADDPG and HATD3), after Lillicrap et al. 2016
    (arXiv 1509.02971) and Fujimoto et al. 2018 (arXiv 1802.09477). The actors are
    ``DeterministicActor`` and ``DeterministicChoiceActor`` (``DeterministicNetworkConfig``).

    Args:
        policy, critic, gamma, reduce: see ``JointQLoss``, as the keys that it reads.
        policy_noise: σ, in half-widths of the bounds.
        noise_clip: c, in half-widths.
    """

    def __init__(
        self,
        policy: TeamPolicy,
        critic: JointQ,
        *,
        gamma: float = 0.99,
        policy_noise: float = 0.0,
        noise_clip: float = 0.5,
        reduce: Reduce = identity,
    ) -> None:
        super().__init__(policy, critic, gamma=gamma, reduce=reduce)
        for name, actor in zip(self.spec.names, policy.actors, strict=True):
            if not hasattr(actor, "smoothed"):
                raise ConfigError(
                    f"agent '{name}' has a {type(actor).__name__}; expected a deterministic actor: "
                    "TeamPolicy(spec, DeterministicNetworkConfig())."
                )
        self.policy_noise, self.noise_clip = policy_noise, noise_clip
        self.target_actors = copy.deepcopy(policy.actors).requires_grad_(False)

    @property
    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        return [*super().targets, (self.target_actors, self.policy.actors)]

    @property
    def acting_next(self) -> tuple[str, nn.ModuleList]:
        return "target_hidden", self.target_actors

    # ------------------------------------------------------------------ the equations
    def next_value(self, following: TensorDictBase, noise: NoiseLike) -> Tensor:
        smoothing = self.policy_noise, self.noise_clip

        def smoothed(actor: Any, observation: Tensor, noise: NoiseLike, *beside: Any) -> Sample:
            return Sample(actor.smoothed(observation, noise, *smoothing, *beside))

        memory_of, actors = self.acting_next
        team = range(self.spec.num_agents)
        samples = self.ask(actors, following, team, smoothed, noise, memory_of)
        return least(self.target_critic(self.state(following), [s.action for s in samples]))

    def actor(
        self,
        data: TensorDictBase,
        agent: int,
        joint_action: Sequence[Tensor],
        log_prob: Tensor | None = None,
        value: Tensor | None = None,
    ) -> Tensor:
        q = self.climbed(data, joint_action) if value is None else value
        return self.mean(-q, data, agent)

    def climbs(self, agent: int) -> bool:
        return True

    def climbed(self, data: TensorDictBase, joint_action: Sequence[Tensor]) -> Tensor:
        """The first of the critic's values, ``[*B, 1]``."""
        (q,) = self.critic(self.state(data), joint_action, 1)
        return q
