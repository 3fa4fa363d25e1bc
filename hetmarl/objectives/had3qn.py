"""The losses of HAD3QN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor

from hetmarl.networks.distributions import NoiseLike
from hetmarl.networks.dueling import DuelingActor
from hetmarl.objectives.off_policy import JointQLoss, least


class HAD3QNLoss(JointQLoss):
    """Dueling double deep Q-learning of a team: one joint critic, n agents greedy in their own.

    The value of the next state in the target of ``JointQLoss`` is that of the joint action that the
    agents would take, chosen by their Q-functions and valued by the critic's slow copy, as double
    Q-learning wants it (van Hasselt et al. 2016, arXiv 1509.06461):

        V̄(s′) = Q̄(s′, a′),  a′ⁱ = argmax over legal a of Qⁱ(o′ⁱ, a)

    Agent iₘ, after i₁…iₘ₋₁ were updated (their greedy actions come from their *new* Q-functions,
    those of the agents still to come from their current ones), fits its own Q-function to what the
    critic says of each of its legal choices aⁱ ∈ Aⁱ(o):

        L_π = mean over samples and legal a of (Qⁱ(oⁱ, a) − Q(s, a^{i₁:ₘ₋₁}, a, a^{iₘ₊₁:ₙ}))²

    (Zhong et al. 2024, arXiv 2304.09870, give HADDPG and HATD3; this is their greedy member for
    choices, which their code has.) Differences from that code: it fits Qⁱ at its greedy choice
    alone, goes on with the critic's argmax in place of the agent's own, values the next state at
    the choices of slow copies of the agents, and its critic has an output per *joint* action,
    Π|Aⁱ| of them. Here the critic reads the joint action one-hot and is asked for |Aⁱ| of them, and
    illegal choices are left out of every argmax, mean and loss.

    Args and keys: see ``JointQLoss``. The policy's actors are ``DuelingActor``s.
    """

    # ------------------------------------------------------------------ the equations
    def next_value(self, following: TensorDictBase, noise: NoiseLike) -> Tensor:
        greedy = [s.action for s in self.samples(following, range(self.spec.num_agents), noise)]
        return least(self.target_critic(self.state(following), greedy))

    def actor(
        self,
        data: TensorDictBase,
        agent: int,
        joint_action: Sequence[Tensor],
        log_prob: Tensor | None = None,
        value: Tensor | None = None,
    ) -> Tensor:
        actor, (observation, beside) = self._actor(agent), self.seen(data, agent)
        q = self.candidates(data, agent, joint_action, actor.encoded)
        error = actor(observation, *beside) - q
        legal = actor.legal(beside[0])
        if legal is None:
            return self.mean(error.square().mean(-1, keepdim=True), data, agent)
        error = torch.where(legal, error, 0.0)
        count = legal.sum(-1, keepdim=True).clamp(min=1)
        return self.mean(error.square().sum(-1, keepdim=True) / count, data, agent)

    def _actor(self, agent: int) -> DuelingActor:
        return self.policy.actors[agent]  # type: ignore[return-value]
