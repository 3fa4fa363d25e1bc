"""Finite cooperative Markov games, solved exactly: the ground on which learners are tested.

Everything is float64 and a function of the game, of a product policy and of the learner's discount
γ. A product policy is one tensor ``[S, K_i]`` per agent, rows summing to 1: agent i plays a^i in
state s with probability π^i(a^i|s), independently of the others. Sizes: S states, n agents, K_i
actions.

Matrix games are games of one state: ``TabularGame.from_matrix``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hetmarl_envs.errors import ConfigError

Policies = Sequence[Tensor]
ROUNDING = 1e-6
"""Probabilities that sum to 1 up to this (float32 tables do) are made to sum to 1."""


@dataclass(frozen=True, eq=False)
class TabularGame:
    """A cooperative Markov game as tables.

    Args:
        transition: P(s'|s, a), ``[S, K_1, ..., K_n, S]``. Rows sum to at most 1; what is missing is
            the probability that the episode terminates there (0 if it is below 1e-6).
        reward: R(s, a), ``[S, K_1, ..., K_n]``, the team's.
        initial: ρ(s), ``[S]``.

    Raises:
        ConfigError: shapes that do not fit, or rows that are no probabilities.
    """

    transition: Tensor
    reward: Tensor
    initial: Tensor

    def __post_init__(self) -> None:
        for name in ("transition", "reward", "initial"):
            table = torch.as_tensor(getattr(self, name)).detach().to("cpu", torch.float64)
            object.__setattr__(self, name, table)
        p, r, rho = self.transition, self.reward, self.initial
        if r.dim() < 2 or p.shape != (*r.shape, r.shape[0]) or rho.shape != r.shape[:1]:
            raise ConfigError(
                f"transition {list(p.shape)}, reward {list(r.shape)} and initial {list(rho.shape)} "
                "do not fit: expected [S, K_1..K_n, S], [S, K_1..K_n] and [S]."
            )
        if not bool(r.isfinite().all()):
            raise ConfigError("reward holds NaN or infinity.")
        if not bool((p >= 0).all()) or not bool((p.sum(-1) <= 1 + ROUNDING).all()):
            raise ConfigError(
                "transition: expected probabilities that sum to at most 1 over s' (the rest "
                f"terminates); found {p.min():g} as the least one and {p.sum(-1).max():g} as the "
                "largest sum."
            )
        if not bool((rho >= 0).all()) or not abs(float(rho.sum()) - 1) <= ROUNDING:
            raise ConfigError(f"initial: expected probabilities that sum to 1, given {rho}.")
        total = p.sum(-1, keepdim=True)
        full = (total - 1).abs() <= ROUNDING
        object.__setattr__(self, "transition", torch.where(full, p / total, p))
        object.__setattr__(self, "initial", rho / rho.sum())

    @classmethod
    def from_matrix(cls, payoff: Tensor, repeated: bool = False) -> TabularGame:
        """The one-state game of a payoff ``[K_1, ..., K_n]``.

        Played once it terminates; ``repeated``, it never does and comes again and again.
        """
        stay = torch.full((1, *payoff.shape, 1), float(repeated))
        return cls(stay, payoff.unsqueeze(0), torch.ones(1))

    @property
    def num_states(self) -> int:
        """S."""
        return self.reward.shape[0]

    @property
    def num_agents(self) -> int:
        """n."""
        return self.reward.dim() - 1

    @property
    def actions(self) -> tuple[int, ...]:
        """Numbers of actions (K_1, ..., K_n)."""
        return tuple(self.reward.shape[1:])

    # ------------------------------------------------------------------ policies
    def check_policies(self, policies: Policies) -> list[Tensor]:
        """The policies in float64 on the CPU, ``[S, K_i]`` each.

        Raises:
            ConfigError: a wrong number of them, a wrong shape, or rows that are no probabilities.
        """
        shapes = [(self.num_states, k) for k in self.actions]
        if [tuple(policy.shape) for policy in policies] != shapes:
            raise ConfigError(
                f"policies of shapes {[list(policy.shape) for policy in policies]}, expected one "
                f"[S, K_i] per agent: {[list(shape) for shape in shapes]}."
            )
        checked = [policy.detach().to("cpu", torch.float64) for policy in policies]
        for i, policy in enumerate(checked):
            near = (policy.sum(-1) - 1).abs() <= ROUNDING
            if not bool((policy >= 0).all()) or not bool(near.all()):
                raise ConfigError(
                    f"policy of agent {i}: expected rows of probabilities that sum to 1, given "
                    f"sums {policy.sum(-1).tolist()} and the least entry {policy.min():g}."
                )
        return [policy / policy.sum(-1, keepdim=True) for policy in checked]

    def uniform_policies(self) -> list[Tensor]:
        """Every action equally likely, ``[S, K_i]`` per agent."""
        return [
            torch.full((self.num_states, k), 1.0 / k, dtype=torch.float64) for k in self.actions
        ]

    def joint_policy(self, policies: Policies) -> Tensor:
        """π(a|s) = Π_i π^i(a^i|s), ``[S, K_1, ..., K_n]``."""
        joint = torch.ones(self.num_states, dtype=torch.float64)
        for policy in self.check_policies(policies):
            joint = joint.unsqueeze(-1) * policy.reshape(
                -1, *[1] * (joint.dim() - 1), policy.shape[1]
            )
        return joint

    def average(self, values: Tensor, policies: Policies, agents: Sequence[int]) -> Tensor:
        """E of ``values`` over the actions of ``agents``, whose axes go.

        Args:
            values: ``[S, K_1, ..., K_n, ...]``, an axis per agent and any number of others behind.
            policies: product policy.
            agents: those to average over; the axes of the others stay in their order.
        """
        checked = self.check_policies(policies)
        for agent in sorted(agents, reverse=True):  # the last axis first: the others keep places
            axis = agent + 1
            behind = [1] * (values.dim() - axis - 1)
            policy = checked[agent]
            weights = policy.reshape(self.num_states, *[1] * agent, policy.shape[1], *behind)
            values = (values * weights).sum(axis)
        return values

    # ------------------------------------------------------------------ evaluation
    def policy_chain(self, policies: Policies) -> tuple[Tensor, Tensor]:
        """r_π(s) = Σ_a π(a|s) R(s, a), ``[S]``; P_π(s'|s) = Σ_a π(a|s) P(s'|s, a), ``[S, S]``."""
        everyone = range(self.num_agents)
        reward = self.average(self.reward, policies, everyone)
        return reward, self.average(self.transition, policies, everyone)

    def state_values(self, policies: Policies, discount: float) -> Tensor:
        """V^π = (I - γ P_π)^-1 r_π, ``[S]``."""
        reward, chain = self.policy_chain(policies)
        return self._solve(chain, reward, discount)

    def action_values(self, policies: Policies, discount: float) -> Tensor:
        """Q^π(s, a) = R(s, a) + γ Σ_s' P(s'|s, a) V^π(s'), ``[S, K_1, ..., K_n]``."""
        return self.backup(self.state_values(policies, discount), discount)

    def backup(self, values: Tensor, discount: float) -> Tensor:
        """R + γ P V of state values ``[S]``, ``[S, K_1, ..., K_n]``."""
        return self.reward + discount * self.transition @ values

    def advantages(self, policies: Policies, discount: float) -> Tensor:
        """A^π(s, a) = Q^π(s, a) - V^π(s), ``[S, K_1, ..., K_n]``."""
        return self.multi_agent_advantages(policies, discount, range(self.num_agents))

    def multi_agent_values(
        self, policies: Policies, discount: float, agents: Sequence[int]
    ) -> Tensor:
        """Q^{i_1:m}(s, a^{i_1:m}) = E_{a^-i ~ π}[Q^π(s, a)], ``[S, K_{i_1}, ..., K_{i_m}]``.

        Args:
            agents: i_1, ..., i_m in any order, which is the order of the result's axes.
        """
        agents = self._check_agents(agents)
        others = [i for i in range(self.num_agents) if i not in agents]
        left = self.average(self.action_values(policies, discount), policies, others)
        axes = sorted(agents)
        return left.permute(0, *(1 + axes.index(i) for i in agents))

    def multi_agent_advantages(
        self,
        policies: Policies,
        discount: float,
        agents: Sequence[int],
        given: Sequence[int] = (),
    ) -> Tensor:
        """What ``agents`` add when ``given`` have chosen already.

        A^{i_1:m}(s, a^{j_1:k}, a^{i_1:m}) = Q^{j_1:k, i_1:m}(s, a^j, a^i) - Q^{j_1:k}(s, a^j),
        ``[S, K_{j_1}, ..., K_{j_k}, K_{i_1}, ..., K_{i_m}]``. These add up (Kuba et al. 2022, lemma
        1): A^{i_1:m} = Σ_j A^{i_j} given i_1, ..., i_{j-1}.
        """
        agents, given = list(agents), list(given)
        together = self.multi_agent_values(policies, discount, [*given, *agents])
        before = self.multi_agent_values(policies, discount, given)
        return together - before.reshape(*before.shape, *[1] * len(agents))

    def visits(self, policies: Policies, discount: float) -> Tensor:
        """η_π = ρ (I - γ P_π)^-1, ``[S]``: discounted visits; J(π) = Σ_s η_π(s) r_π(s)."""
        _, chain = self.policy_chain(policies)
        return self._solve(chain.T, self.initial, discount, chain)

    def state_distribution(self, policies: Policies, discount: float) -> Tensor:
        """η_π / Σ η_π, ``[S]``; (1 - γ) η_π where episodes never terminate."""
        visits = self.visits(policies, discount)
        return visits / visits.sum()

    def expected_return(self, policies: Policies, discount: float) -> float:
        """J(π) = Σ_s ρ(s) V^π(s)."""
        return float(self.initial @ self.state_values(policies, discount))

    # ------------------------------------------------------------------ optima and equilibria
    def optimum(self, discount: float) -> tuple[Tensor, Tensor]:
        """The best that the team can do, by policy iteration over joint actions (exact).

        Returns:
            V*(s) = max_a R(s, a) + γ Σ P(s'|s, a) V*(s'), ``[S]``, and a joint action that attains
            it in each state, int64 ``[S, n]``.
        """
        values, best = self._policy_iteration(
            self.reward.flatten(1), self.transition.flatten(1, -2), discount
        )
        return values, torch.stack(torch.unravel_index(best, self.actions), dim=-1)

    def optimal_return(self, discount: float) -> float:
        """J* = Σ_s ρ(s) V*(s)."""
        return float(self.initial @ self.optimum(discount)[0])

    def finite_horizon_return(self, steps: int) -> float:
        """The best undiscounted return over at most ``steps`` steps, by backward induction."""
        values = torch.zeros(self.num_states, dtype=torch.float64)
        for _ in range(steps):
            values = self.backup(values, 1.0).flatten(1).amax(-1)
        return float(self.initial @ values)

    def best_response(
        self, policies: Policies, agent: int, discount: float
    ) -> tuple[Tensor, Tensor]:
        """The best policy of one agent while the others keep theirs, by policy iteration (exact).

        Returns:
            A deterministic policy ``[S, K_i]``, and the team's values under it ``[S]``.
        """
        (agent,) = self._check_agents([agent])
        others = [i for i in range(self.num_agents) if i != agent]
        values, best = self._policy_iteration(
            self.average(self.reward, policies, others),
            self.average(self.transition, policies, others),
            discount,
        )
        policy = torch.nn.functional.one_hot(best, self.actions[agent]).double()
        return policy, values

    def nash_gap(self, policies: Policies, discount: float) -> float:
        """max_i max_{π'^i} J(π'^i, π^-i) - J(π): 0 iff π is a Nash equilibrium.

        Gains are weighed with ρ, as J is: behaviour in states never reached does not count.
        """
        values = self.state_values(policies, discount)
        gains = (
            float(self.initial @ (self.best_response(policies, i, discount)[1] - values))
            for i in range(self.num_agents)
        )
        return max(gains)

    # ------------------------------------------------------------------ maximum entropy
    def soft_state_values(self, policies: Policies, discount: float, temperature: float) -> Tensor:
        """V^π = (I - γ P_π)^-1 (r_π + α Σ_i H(π^i(.|s))), ``[S]``; α the temperature."""
        reward, chain = self.policy_chain(policies)
        checked = self.check_policies(policies)
        entropy = sum((torch.special.entr(policy).sum(-1) for policy in checked), reward * 0)
        return self._solve(chain, reward + _positive(temperature) * entropy, discount)

    def soft_action_values(self, policies: Policies, discount: float, temperature: float) -> Tensor:
        """Q^π = R + γ P V^π with soft V^π, ``[S, K_1, ..., K_n]``; no entropy of the first step."""
        return self.backup(self.soft_state_values(policies, discount, temperature), discount)

    def soft_return(self, policies: Policies, discount: float, temperature: float) -> float:
        """J_α(π) = E[Σ_t γ^t (R + α Σ_i H(π^i(.|s_t)))]."""
        return float(self.initial @ self.soft_state_values(policies, discount, temperature))

    def quantal_response(
        self, policies: Policies, agent: int, discount: float, temperature: float
    ) -> Tensor:
        """softmax_{a^i}( E_{a^-i ~ π}[Q^π(s, a)] / α ), ``[S, K_i]``, with soft values Q^π.

        The soft greedy step of one agent against the others as they are (Liu et al. 2024, arXiv
        2306.10715).
        """
        (agent,) = self._check_agents([agent])
        others = [i for i in range(self.num_agents) if i != agent]
        values = self.soft_action_values(policies, discount, temperature)
        return (self.average(values, policies, others) / temperature).softmax(-1)

    def quantal_residual(self, policies: Policies, discount: float, temperature: float) -> float:
        """max_{i,s,a} |π^i(a|s) - quantal response|: 0 iff π is a logit equilibrium."""
        checked = self.check_policies(policies)
        return max(
            float((policy - self.quantal_response(checked, i, discount, temperature)).abs().max())
            for i, policy in enumerate(checked)
        )

    # ------------------------------------------------------------------ inside
    def _check_agents(self, agents: Sequence[int]) -> list[int]:
        agents = [int(agent) for agent in agents]
        if len(set(agents)) != len(agents) or not set(agents) <= set(range(self.num_agents)):
            raise ConfigError(
                f"agents {agents}: expected different numbers from 0 to {self.num_agents - 1}."
            )
        return agents

    def _solve(
        self, matrix: Tensor, right: Tensor, discount: float, chain: Tensor | None = None
    ) -> Tensor:
        """x = (I - γ matrix)^-1 right; ``chain`` is the chain where ``matrix`` is its transpose."""
        if not 0 <= discount <= 1:
            raise ConfigError(f"discount={discount!r}, expected a number from 0 to 1.")
        chain = matrix if chain is None else chain
        if discount == 1:
            # A chain that can end from everywhere can do so within S steps.
            staying = torch.linalg.matrix_power(chain, self.num_states).sum(-1).max()
            if staying > 1 - ROUNDING:
                raise ConfigError(
                    "discount=1 needs policies under which every episode terminates: some state "
                    "here is never left. Take a discount below 1."
                )
        identity = torch.eye(self.num_states, dtype=torch.float64)
        return torch.linalg.solve(identity - discount * matrix, right)

    def _policy_iteration(
        self, reward: Tensor, transition: Tensor, discount: float
    ) -> tuple[Tensor, Tensor]:
        """Optimal values and actions ``[S]`` of reward ``[S, A]`` and transition ``[S, A, S]``."""
        rows = torch.arange(self.num_states)
        best = reward.argmax(-1)
        while True:
            values = self._solve(transition[rows, best], reward[rows, best], discount)
            gains = reward + discount * transition @ values
            improved = gains.argmax(-1)
            # Only what is more than rounding is a change, or ties would go round for ever.
            worth = 1e-12 * max(1.0, float(gains.abs().max()))
            change = gains[rows, improved] > gains[rows, best] + worth
            if not bool(change.any()):
                return values, best
            best = torch.where(change, improved, best)


def _positive(temperature: float) -> float:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature={temperature!r}, expected a finite number above 0.")
    return temperature
