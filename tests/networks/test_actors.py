"""The squashed Gaussian: exact density within each dimension's own bounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Normal, TanhTransform, TransformedDistribution
from torchrl.modules import TanhNormal

from hetmarl.networks import NetworkConfig, SquashedGaussianActor, make_actor
from hetmarl_envs.contract import ActionSpace, AgentSpec
from hetmarl_envs.errors import ConfigError
from tests.teams import agent

SMALL = NetworkConfig([8])
LOW, HIGH = [-1.0, 0.0, -3.0], [1.0, 5.0, -2.5]


def actor(low: list[float] = LOW, high: list[float] = HIGH) -> SquashedGaussianActor:
    return SquashedGaussianActor(agent("a", "g", 0, 4, low, high), SMALL).double()


class Fixed(nn.Module):
    """In place of the network: the same output for every observation."""

    def __init__(self, *output: float) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.tensor(output, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.output.expand(*x.shape[:-1], -1)


@pytest.mark.parametrize("shape", [(6,), (2, 3), ()])
def test_density_is_that_of_torch_distributions(shape: tuple[int, ...]) -> None:
    policy = actor()
    observation = torch.randn(*shape, 4, dtype=torch.float64)
    action, log_prob = policy.sample(observation)
    mean, log_std = policy(observation)
    low, high = torch.tensor(LOW).double(), torch.tensor(HIGH).double()
    squash = [TanhTransform(), AffineTransform((low + high) / 2, (high - low) / 2)]
    reference = TransformedDistribution(Normal(mean, log_std.exp()), squash)
    expected = reference.log_prob(action).sum(-1, keepdim=True)
    assert action.shape == (*shape, 3) and log_prob.shape == (*shape, 1)
    torch.testing.assert_close(log_prob, expected, rtol=1e-8, atol=1e-8)


def test_density_is_that_of_torchrl() -> None:
    policy = actor()
    observation = torch.randn(6, 4, dtype=torch.float64)
    action, log_prob = policy.sample(observation)
    mean, log_std = policy(observation)
    low, high = torch.tensor(LOW).double(), torch.tensor(HIGH).double()
    theirs = TanhNormal(mean, log_std.exp(), low=low, high=high, tanh_loc=False, upscale=1.0)
    torch.testing.assert_close(log_prob.squeeze(-1), theirs.log_prob(action), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(policy.act(observation, None)[0], theirs.deterministic_sample)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -1.0), (0.7, -0.5), (-1.0, 0.2)])
def test_density_integrates_to_one_in_each_interval(mean: float, log_std: float) -> None:
    """P(a < u₀) of the action by its density is P(u < …) of the Gaussian: change of variables."""
    policy = actor([-1.0], [4.0])
    policy.net = Fixed(mean, log_std)
    u = torch.linspace(-12, 12, 200_001, dtype=torch.float64)[:, None]
    noise = (u - mean) / math.exp(log_std)
    action, log_prob = policy.sample(torch.zeros(len(u), 4, dtype=torch.float64), lambda _: noise)
    density, at = log_prob.exp().squeeze(), action.squeeze()
    assert torch.trapezoid(density, at).item() == pytest.approx(1.0, abs=1e-6)
    below = at <= 2.0
    mass = torch.trapezoid(density[below], at[below]).item()
    edge = math.atanh((2.0 - 1.5) / 2.5)
    expected = Normal(mean, math.exp(log_std)).cdf(torch.tensor(edge)).item()
    assert mass == pytest.approx(expected, abs=1e-4)


def test_entropy_of_samples() -> None:
    """A narrow Gaussian far from its bounds has that Gaussian's entropy, scaled."""
    policy = actor([-10.0], [30.0])
    policy.net = Fixed(0.0, -4.0)
    log_prob = policy.sample(torch.zeros(50_000, 4, dtype=torch.float64)).log_prob
    expected = 0.5 * math.log(2 * math.pi * math.e) - 4.0 + math.log(20.0)
    assert -log_prob.mean().item() == pytest.approx(expected, abs=0.02)


def test_samples_are_gaussian_and_squashed() -> None:
    policy = actor([-1.0, 0.0], [1.0, 4.0])
    policy.net = Fixed(0.3, -0.2, -1.0, -2.0)
    action = policy.act(torch.zeros(50_000, 4, dtype=torch.float64))[0]
    u = ((action - torch.tensor([0.0, 2.0])) / torch.tensor([1.0, 2.0])).atanh()
    assert u.mean(0).tolist() == pytest.approx([0.3, -0.2], abs=0.01)
    assert u.std(0).log().tolist() == pytest.approx([-1.0, -2.0], abs=0.02)


def test_mode_is_the_squashed_mean() -> None:
    policy = actor([-1.0, 0.0], [1.0, 4.0])
    policy.net = Fixed(0.3, -0.2, 1.0, 1.0)
    expected = [math.tanh(0.3), 2 + 2 * math.tanh(-0.2)]
    assert policy.act(torch.zeros(1, 4, dtype=torch.float64), None)[0][0].tolist() == pytest.approx(
        expected
    )


def test_act_and_sample_draw_alike() -> None:
    policy, observation = actor(), torch.randn(5, 4, dtype=torch.float64)
    torch.manual_seed(3)
    action = policy.act(observation)[0]
    torch.manual_seed(3)
    assert torch.equal(action, policy.sample(observation).action)


@pytest.mark.parametrize("extreme", [-1e4, -50.0, 50.0, 1e4])
def test_extreme_means_stay_finite(extreme: float) -> None:
    policy = actor([-1.0], [1.0]).float()
    policy.net = Fixed(extreme, 0.0).float()
    action, log_prob = policy.sample(torch.zeros(100, 4))
    assert action.isfinite().all() and action.abs().max() <= 1
    assert log_prob.isfinite().all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), policy.net.parameters())
    assert gradient.isfinite().all()


def test_log_std_is_clamped() -> None:
    policy = actor([-1.0], [1.0])
    for given, expected in ((-100.0, -20.0), (100.0, 2.0), (0.5, 0.5)):
        policy.net = Fixed(0.0, given)
        assert policy(torch.zeros(1, 4, dtype=torch.float64))[1].item() == expected


def test_gradients_in_double() -> None:
    policy = actor()
    observation = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda o: tuple(policy.sample(o, lambda _: noise)), observation)


def test_bounds_hold_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    low = 6 * torch.rand(2000, generator=generator) - 3
    high = low + 3 * torch.rand(2000, generator=generator) + 0.01
    low[0], high[0], low[1], high[1] = 1e6, 1e6 + 1, -3.0, 0.001
    policy = actor(low.tolist(), high.tolist()).float()
    for end in (-100.0, 100.0):
        policy.net = Fixed(*[end] * 2000, *[0.0] * 2000).float()
        action = policy.act(torch.zeros(1, 4), None)[0][0]
        assert (action >= low).all() and (action <= high).all()
        torch.testing.assert_close(action, low if end < 0 else high, rtol=1e-5, atol=1e-5)


def test_bfloat16_autocast_leaves_actions_and_densities_in_float() -> None:
    policy, observation = actor().float(), torch.randn(64, 4)
    noise = torch.randn(64, 3)
    exact = policy.sample(observation, lambda _: noise)
    with torch.autocast("cpu", torch.bfloat16):
        rough = policy.sample(observation, lambda _: noise)
    assert rough.action.dtype == rough.log_prob.dtype == torch.float32
    torch.testing.assert_close(rough.log_prob, exact.log_prob, rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("low", "high"), [([-1.0], [math.inf]), ([1.0], [1.0]), ([2.0], [1.0]), ([math.nan], [1.0])]
)
def test_bounds_that_cannot_be_squashed_into(low: list[float], high: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"agent 'a': .*finite action bounds.*given low="):
        make_actor(agent("a", "g", 0, 4, low, high), SMALL)


def test_pictures_are_refused() -> None:
    space = ActionSpace("continuous", (-1.0,), (1.0,))
    with pytest.raises(ConfigError, match=r"agent 'a' observes \[3, 8, 8\], expected a vector"):
        make_actor(AgentSpec("a", "g", 0, (3, 8, 8), space), SMALL)
