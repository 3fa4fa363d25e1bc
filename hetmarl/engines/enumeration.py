"""Mirror learning of a finite game with nothing estimated: what its theorems speak of.

The loss and the engine are those of training. Only the batch is not drawn: every state and joint
action is a sample, weighted with its probability, and the critic is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from hetmarl.engines.on_policy import Changes, OnPolicyEngine, UnitUpdate
from hetmarl.engines.randomness import UpdateRandomness, stream
from hetmarl.networks.distributions import Choices, NoiseLike
from hetmarl.networks.policy import TeamPolicy
from hetmarl.objectives.drifts import Drift, PolicyChange
from hetmarl.objectives.mirror import AgentBatch, MirrorLoss, Objective
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.games.table_env import TableEnv
from hetmarl_envs.games.tabular import TabularGame


class TableActor(nn.Module):
    """A policy of one-hot observations ``[*B, S]`` as a table of logits ``[S, K]``.

    Args:
        policy: what it starts as, rows of probabilities above 0 ``[S, K]``.
    """

    def __init__(self, policy: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(policy.log())

    def forward(
        self, observation: Tensor, action_mask: Tensor | None = None, memory: Any = None
    ) -> tuple[Tensor, None]:
        """Logits ``[*B, K]``."""
        return observation.to(self.logits) @ self.logits, None

    def distribution(self, parameters: Tensor) -> Choices:
        return Choices(parameters, [self.logits.shape[1]])

    def act(
        self,
        observation: Tensor,
        noise: NoiseLike | None = torch.randn_like,
        action_mask: Tensor | None = None,
        memory: Any = None,
    ) -> tuple[Tensor, None]:
        """A choice ``[*B, 1]``; without noise the most probable one."""
        policy = self.distribution(self(observation)[0])
        return (policy.mode() if noise is None else policy.sample(noise)), None


class TableValue(nn.Module):
    """V(s) as a table; of a distribution over states ``[*B, S]`` its mean."""

    table: Tensor
    recurrent, num_values = False, 1

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", values)

    def forward(self, data: TensorDictBase) -> Tensor:
        """``[*B, 1]``."""
        return (data.get("state") @ self.table).unsqueeze(-1)


class EnumeratedLoss(MirrorLoss):
    """``MirrorLoss`` whose E is the sum over all states and joint actions.

    A sample weighs d(s)·π_old(a|s), with d the discounted state distribution of the old policy.
    Advantages are A(s, a) itself: exact, and not standardised.

    Args:
        game: the game; its rewards and transitions are the batch.
        policy: the team's ``TableActor``s.
        drift: D.
        discount: γ.
    """

    critic: TableValue  # type: ignore[assignment]

    def __init__(
        self, game: TabularGame, policy: TeamPolicy, drift: Drift | None, discount: float
    ) -> None:
        critic: Any = TableValue(torch.zeros(game.num_states, dtype=torch.float64))
        super().__init__(policy, critic, drift, gamma=discount, entropy_coef=0.0, value_norm=False)
        self.game = game
        self.solve()

    @property
    def policies(self) -> list[Tensor]:
        """The team's policies as they are, ``[S, K_i]`` each."""
        return [actor.logits.detach().softmax(-1) for actor in self.policy.actors]  # type: ignore[operator]

    @torch.no_grad()
    def solve(self) -> None:
        """Sets the critic to V and the samples' weights to those of the policies as they are."""
        game, team = self.game, self.policies
        self.critic.table.copy_(game.state_values(team, self.gamma))
        visits = game.state_distribution(team, self.gamma)
        joint = game.joint_policy(team)
        self.weights = (visits.reshape(-1, *[1] * game.num_agents) * joint).reshape(-1, 1)

    def prepare(self, data: TensorDictBase) -> TensorDictBase:
        """As every rollout, but for the advantages: V + A − V of one step, as they come."""
        super().prepare(data)
        keys = self.tensor_keys
        exact = data.get(keys.value_target) - data.get(keys.value)
        for group, members in self.spec.groups.items():
            data.set((group, keys.advantage), torch.stack([exact] * len(members), dim=-2))
        return data

    def mean(self, values: Sequence[Tensor], changes: Sequence[PolicyChange]) -> Tensor:
        """Expectation over the samples (scalar)."""
        rows = [value.reshape(-1, 1) for value in values]  # of a batch [N] or a rollout [N, 1]
        return torch.stack([(self.weights * value).sum() for value in rows]).mean()

    @torch.no_grad()
    def per_state(self, changes: Sequence[PolicyChange], batches: Sequence[AgentBatch]) -> Tensor:
        """What each state contributes to E[r·M] − E[D], ``[S]``."""
        values = [c.ratio * c.advantage - self.drift(c) for c in changes]
        parts = zip(values, batches, strict=False)  # several that share are one change
        return sum(b.observation.T @ (self.weights * v) for v, b in parts).squeeze(-1)  # type: ignore[union-attr]


class Maximise:
    """Ascends a unit's objective until little is left to gain: the argmax of the theory.

    Args:
        parameters: the unit's table of logits ``[S, K]``.
        steps: of L-BFGS with line search, which never loses what it had.
        everywhere: start also near each action, and keep the best per state. The argmax of a drift
            that is not convex in the policy can be far away.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], steps: int = 20, everywhere: bool = False
    ) -> None:
        (self.logits,) = parameters
        self.steps, self.everywhere = steps, everywhere

    def __call__(
        self,
        loss: MirrorLoss,
        batches: Sequence[AgentBatch],
        changes: Changes,
        randomness: UpdateRandomness,
    ) -> dict[str, Tensor]:
        """Optimises on the whole batch; returns objective and drift there."""
        assert isinstance(loss, EnumeratedLoss)
        old = self.logits.detach().log_softmax(-1)
        starts = [old]
        if self.everywhere:
            towards = torch.eye(old.shape[1], dtype=old.dtype)
            starts += [(0.1 * old.exp() + 0.9 * action).log() for action in towards]
        found, values = [], []
        for start in starts:
            self._set(start)
            self._ascend(lambda: loss.objective(changes(batches)))
            found.append(self.logits.detach().clone())
            values.append(loss.per_state(changes(batches), batches))
        best = torch.stack(values).argmax(0)
        self._set(torch.stack(found)[best, torch.arange(len(old))])
        objective = loss.objective(changes(batches))
        return {"loss_actor": objective.loss.detach(), "drift": objective.drift.detach()}

    def _set(self, logits: Tensor) -> None:
        with torch.no_grad():
            self.logits.copy_(logits)

    def _ascend(self, objective: Callable[[], Objective]) -> None:
        def evaluate() -> Tensor:
            value = objective().loss
            (self.logits.grad,) = torch.autograd.grad(value, [self.logits])
            return value.detach()

        torch.optim.LBFGS(
            [self.logits],
            max_iter=self.steps,
            max_eval=2 * self.steps,
            tolerance_grad=1e-12,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        ).step(evaluate)  # type: ignore[arg-type]


class EnumeratedTeam:
    """A team of tables that learns a finite game by exact mirror learning.

    With a drift that ``check_drift`` passes, sequential updates never lower the return, and the
    Nash gap goes to 0 (Zhong et al. 2024, arXiv 2304.09870, theorem 14).

    Args:
        game: as of ``env.game``.
        drift: D; None: none.
        discount: γ.
        actors: one per agent, the same object for several to share it; None: random ones.
        update: makes a unit's update from its parameters.
        sequential: one after another, each against its updated predecessors; or all at once.
        fixed_order: team order instead of a random one.
        seed: of the random policies and orders.
    """

    def __init__(
        self,
        game: TabularGame,
        drift: Drift | None = None,
        *,
        discount: float = 0.9,
        actors: Sequence[TableActor] | None = None,
        update: Callable[[list[nn.Parameter]], UnitUpdate] = Maximise,
        sequential: bool = True,
        fixed_order: bool = False,
        seed: int = 0,
    ) -> None:
        if actors is None:
            generator = stream(seed, "policies")
            shapes = [(game.num_states, k) for k in game.actions]
            drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
            actors = [TableActor(logits.softmax(-1)) for logits in drawn]
        spec = TeamSpec.from_env(TableEnv(game))
        policy = TeamPolicy(spec, actors=actors)
        self.game, self.discount, self.seed, self.iteration = game, discount, seed, 0
        self.loss = EnumeratedLoss(game, policy, drift, discount)
        self.engine = OnPolicyEngine(
            self.loss,
            [update(list(actors[unit[0]].parameters())) for unit in policy.units],
            self._solve,  # type: ignore[arg-type]
            critic_epochs=1,
            sequential=sequential,
            fixed_order=fixed_order,
        )

    @property
    def policies(self) -> list[Tensor]:
        """``[S, K_i]`` per agent."""
        return self.loss.policies

    @property
    def expected_return(self) -> float:
        """J(π)."""
        return self.game.expected_return(self.policies, self.discount)

    @property
    def nash_gap(self) -> float:
        """The most that any one agent could add to J."""
        return self.game.nash_gap(self.policies, self.discount)

    def step(self) -> dict[str, Tensor]:
        """One iteration of everybody; returns the engine's metrics."""
        metrics = self.engine.update(
            every_sample(self.game, self.loss.spec), UpdateRandomness(self.seed, self.iteration)
        )
        self.iteration += 1
        return metrics

    def _solve(self, loss_critic: Tensor) -> Tensor:
        """The critic's step, to where its loss is 0; the engine expects the gradient's norm."""
        self.loss.solve()
        return torch.zeros_like(loss_critic)


def every_sample(game: TabularGame, spec: TeamSpec) -> TensorDict:
    """A rollout ``[S·ΠK, 1]`` of each state and joint action once, as one step of one environment.

    What follows a step is the distribution over next states in place of one of them, so that values
    linear in the state are means.
    """
    grid = torch.cartesian_prod(*(torch.arange(k) for k in (game.num_states, *game.actions)))
    state, joint = grid[:, 0], grid[:, 1:]
    seen = torch.nn.functional.one_hot(state, game.num_states).double()
    following = game.transition.reshape(-1, game.num_states)
    never = torch.zeros(len(grid), 1, dtype=torch.bool)
    data = TensorDict(
        {
            "state": seen,
            "next": {
                "state": following,
                "reward": game.reward.reshape(-1, 1),
                "done": ~never,
                "terminated": never,
            },
        },
        [len(grid)],
    )
    for group, members in spec.groups.items():
        data.set((group, "observation"), seen.unsqueeze(1).expand(-1, len(members), -1))
    spec.write_actions(data, [joint[:, [i]] for i in range(game.num_agents)])
    return data.unsqueeze(1)  # type: ignore[return-value]
