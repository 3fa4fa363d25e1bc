"""Two Gaussian agents that earn the product of their actions: who steps against whom."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from hetmarl.engines import (
    GradientStep,
    OnPolicyEngine,
    TrustRegionConfig,
    TrustRegionStep,
    TrustRegionUpdate,
    UpdateRandomness,
)
from hetmarl.networks import OnPolicyNetworkConfig, StateValue, TeamPolicy
from hetmarl.networks.distributions import DiagonalGaussian
from hetmarl.objectives import KLBall, MirrorLoss
from hetmarl_envs import TeamSpec, make_env

START = (-0.25, 0.25)
BEFORE = -0.0625
STEPS = (0.05, 0.3, 0.49, 0.51, 1.0, 1.5)


class Mean(nn.Module):
    """N(mean, 1), whatever is seen."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([mean], dtype=torch.float64))

    def forward(
        self, observation: Tensor, action_mask: Tensor | None = None, memory: object = None
    ) -> tuple[Tensor, None]:
        parameters = torch.cat([self.mean, torch.ones_like(self.mean)])
        return parameters.expand(*observation.shape[:-1], 2), None

    def distribution(self, parameters: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(parameters)


def rollout(means: tuple[float, float], count: int = 60) -> TensorDict:
    """``count``² one-step games, actions at all pairs of the policies' quantiles."""
    at = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    actions = torch.cartesian_prod(*(mean + torch.special.ndtri(at) for mean in means))
    ones = torch.ones(len(actions), 1, 1, dtype=torch.float64)
    flag = torch.ones_like(ones, dtype=torch.bool)
    state = {"state": ones, "agents": {"observation": ones.unsqueeze(-1).expand(-1, 1, 2, 1)}}
    reward = actions.prod(-1).reshape(-1, 1, 1)
    after = state | {"reward": reward, "done": flag, "terminated": flag}
    data = TensorDict(state | {"next": after}, [len(actions), 1])
    data["agents", "action"] = actions.reshape(-1, 1, 2, 1)
    return data


def one_update(delta: float, *, sequential: bool, seed: int = 0) -> float:
    """J after one iteration of the engine, from ``START``, in KL balls that a shift Δ just fits."""
    torch.set_default_dtype(torch.float64)
    spec = TeamSpec.from_env(make_env("games/product"))
    actors = [Mean(mean) for mean in START]
    critic = StateValue(spec, OnPolicyNetworkConfig(hidden_sizes=[4])).double()
    loss = MirrorLoss(TeamPolicy(spec, actors=actors), critic, entropy_coef=0.0, value_norm=False)
    ball = KLBall(delta**2 / 2)
    # damping keeps the step just inside
    search = TrustRegionConfig(damping=1e-9)
    parameters = list(critic.parameters())
    engine = OnPolicyEngine(
        loss,
        [
            TrustRegionUpdate(TrustRegionStep([actor.mean], ball.radius, search), ball)
            for actor in actors
        ],
        GradientStep(parameters, torch.optim.SGD(parameters, lr=0.0)),
        sequential=sequential,
    )
    engine.update(rollout(START), UpdateRandomness(seed, 0))
    shifts = [abs(actor.mean.item() - mean) for actor, mean in zip(actors, START, strict=True)]
    assert shifts == pytest.approx([delta, delta], rel=1e-6)
    return actors[0].mean.item() * actors[1].mean.item()


def simultaneous(delta: float) -> float:
    """Both step towards where the other was: −.25 + Δ and .25 − Δ."""
    return -((delta - 0.25) ** 2)


def sequential(delta: float) -> float:
    """The second steps to where the first now is."""
    return simultaneous(delta) if delta < 0.25 else delta**2 - 0.0625


@pytest.mark.parametrize("delta", STEPS)
def test_the_engine_does_what_the_formulas_say(delta: float) -> None:
    assert one_update(delta, sequential=False) == pytest.approx(simultaneous(delta), abs=1e-6)
    for seed in (0, 3):  # whoever comes first
        found = one_update(delta, sequential=True, seed=seed)
        assert found == pytest.approx(sequential(delta), abs=1e-6)


@pytest.mark.parametrize("delta", STEPS)
def test_simultaneous_steps_lose_beyond_the_crossover_sequential_ones_never(delta: float) -> None:
    assert (one_update(delta, sequential=False) < BEFORE) == (delta > 0.5)
    assert one_update(delta, sequential=True) > BEFORE


def test_both_orders_are_drawn() -> None:
    orders = {tuple(UpdateRandomness(seed, 0).order(2)) for seed in (0, 3)}
    assert orders == {(0, 1), (1, 0)}


def test_the_numbers_of_the_text() -> None:
    """KL radius .5, that is a shift of 1."""
    assert one_update(1.0, sequential=False) == pytest.approx(-0.5625, abs=1e-6)
    assert one_update(1.0, sequential=True) == pytest.approx(0.9375, abs=1e-6)
