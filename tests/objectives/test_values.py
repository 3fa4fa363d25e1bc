"""Advantages, value targets and the critic's loss, against closed forms and plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from hetmarl.data import TeamCollector
from hetmarl.networks import OnPolicyNetworkConfig, TeamPolicy
from hetmarl.objectives import ValueNorm, masked_mean
from hetmarl.objectives.values import advantages, standardise, value_loss, values_and_next
from hetmarl_envs.contract import TeamSpec
from tests.on_policy import Processes
from tests.teams import CountingEnv


def counted(steps: int, **settings: Any) -> TensorDict:
    env = CountingEnv(num_envs=3, **settings)
    policy = TeamPolicy(TeamSpec.from_env(env), OnPolicyNetworkConfig([4]))
    return TeamCollector(env, policy, seed=0).collect(steps, 0)[0]


class Linear(nn.Module):
    """Values ``slope · (episode, step) + offset`` of the state."""

    recurrent = False

    def __init__(self, slope: float, offset: float, count: int = 1) -> None:
        super().__init__()
        self.slope, self.offset, self.num_values = slope, offset, count

    def forward(self, data: Any) -> Tensor:
        value = self.slope * data.get("state").double() @ torch.tensor([[100.0], [10.0]]).double()
        return value + self.offset + torch.arange(self.num_values)


# ---------------------------------------------------------------------- what follows a step
def test_what_follows_is_the_next_step_or_the_true_final_observation() -> None:
    """State (episode, step) is worth 10·episode + step; episodes of 5 steps."""
    data = counted(7, max_steps=5)
    value, following, output = values_and_next(data, Linear(1.0, 0.0))
    assert value[0, :, 0].tolist() == pytest.approx([10, 11, 12, 13, 14, 20, 21])
    assert following[0, :, 0].tolist() == pytest.approx([11, 12, 13, 14, 15, 21, 22])
    assert torch.equal(value, output)


def test_what_follows_in_raw_scale() -> None:
    norm = ValueNorm()
    norm.update(torch.tensor([[3.0], [7.0]]))
    data, critic = counted(7, max_steps=3), Linear(0.1, -1.0)
    value, following, output = values_and_next(data, critic, norm)
    plain = values_and_next(data, critic)
    assert torch.equal(output, plain[2])
    torch.testing.assert_close(value, 5 + 2 * plain[0])
    torch.testing.assert_close(following, 5 + 2 * plain[1])


# ---------------------------------------------------------------------- advantages
@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("deaths", [False, True])
def test_advantages_of_any_pattern_of_ends(gae_lambda: float, deaths: bool) -> None:
    """A_t = Σ_k (γλ)^k δ_{t+k} up to the first end; several values per step, which may die."""
    generator = torch.Generator().manual_seed(1)
    envs, steps, count, gamma = 4, 9, 3, 0.9
    flags = torch.rand(2, envs, steps, 1, generator=generator) < 0.25
    terminated, truncated = flags[0], flags[1] & ~flags[0]
    reward = torch.randn(envs, steps, 1, generator=generator).double()
    value, following = torch.randn(2, envs, steps, count, generator=generator).double()
    died = torch.rand(envs, steps, count, generator=generator) < 0.2 if deaths else None
    after = {
        "reward": reward,
        "terminated": terminated,
        "truncated": truncated,
        "done": terminated | truncated,
    }
    data = TensorDict({"next": after}, [envs, steps])
    found, target = advantages(data, value, following, gamma, gae_lambda, died)
    for e in range(envs):
        for v in range(count):
            for t in range(steps):
                total, weight = 0.0, 1.0
                for k in range(t, steps):
                    end = bool(terminated[e, k]) or (died is not None and bool(died[e, k, v]))
                    ahead = 0.0 if end else gamma * following[e, k, v].item()
                    total += weight * (reward[e, k].item() + ahead - value[e, k, v].item())
                    weight *= gamma * gae_lambda
                    if end or truncated[e, k]:
                        break
                assert found[e, t, v].item() == pytest.approx(total, abs=1e-12)
    torch.testing.assert_close(target, found + value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("gamma", [0.5, 0.99])
def test_an_endless_task_cut_off_is_worth_all_that_would_follow(
    gamma: float, gae_lambda: float
) -> None:
    """Reward 1 for ever: V = 1/(1 − γ) is its own target, whatever the time limit."""
    data = counted(11, max_steps=4)
    assert data["next", "truncated"].sum() == 6 and not data["next", "terminated"].any()
    value, following, _ = values_and_next(data, Linear(0.0, 1 / (1 - gamma)))
    gain, target = advantages(data, value, following, gamma, gae_lambda)
    torch.testing.assert_close(gain, torch.zeros_like(gain), rtol=0, atol=1e-11)
    torch.testing.assert_close(target, value, rtol=0, atol=1e-11)
    # from any other value the targets are nearer
    value, following, _ = values_and_next(data, Linear(0.0, 1 / (1 - gamma) + 8))
    target = advantages(data, value, following, gamma, gae_lambda)[1]
    off = target - 1 / (1 - gamma)
    assert (off > 0).all() and (off <= 8 * gamma + 1e-9).all()


def test_termination_ends_what_can_be_had() -> None:
    """Reward 1 and 4 steps: the truth 1 + γ + … is its own target."""
    gamma, data = 0.5, counted(8, max_steps=4, terminates=True)
    left = 4 - (data["state"][..., 1:] * 10).round()

    class Truth(Linear):
        def forward(self, td: Any) -> Tensor:
            remaining = 4 - (td.get("state")[..., 1:].double() * 10).round()
            # of a terminal state it is nonsense, which nobody may read
            return torch.where(remaining > 0, (1 - gamma**remaining) / (1 - gamma), 99.0)

    value, following, _ = values_and_next(data, Truth(0.0, 0.0))
    gain, target = advantages(data, value, following, gamma, 0.9)
    torch.testing.assert_close(gain, torch.zeros_like(gain), rtol=0, atol=1e-12)
    torch.testing.assert_close(target, ((1 - gamma**left) / (1 - gamma)).double())


def test_the_discount_is_not_rounded() -> None:
    """In double precision γ = .99 is .99, not float32's."""
    data = counted(2, max_steps=50)
    value = torch.zeros(3, 2, 1, dtype=torch.float64)
    gain, _ = advantages(data, value, value + 1, 0.99, 0.95)
    assert gain[0, 1].item() == pytest.approx(1.99, abs=1e-15)
    assert gain[0, 0].item() == pytest.approx(1.99 + 0.99 * 0.95 * 1.99, abs=1e-15)


# ---------------------------------------------------------------------- standardising
def test_standardised_over_the_living_alone() -> None:
    x, alive = torch.randn(4, 5, 1) * 3 + 1e5, torch.rand(4, 5, 1) < 0.5
    scaled = standardise(torch.where(alive, x, -1e30), alive)[alive].double()
    own = x[alive].double()
    expected = (own - own.mean()) / (own.std(correction=0) + 1e-5)
    torch.testing.assert_close(scaled, expected, rtol=1e-5, atol=1e-5)
    assert scaled.mean().item() == pytest.approx(0, abs=1e-4)


def test_standardising_what_does_not_vary() -> None:
    assert standardise(torch.full((3, 4, 1), 2.0), None).abs().max() < 1e-6
    nobody = standardise(torch.randn(3, 4, 1), torch.zeros(3, 4, 1, dtype=torch.bool))
    assert nobody.isfinite().all()


def test_standardised_over_all_processes() -> None:
    x, alive = torch.randn(6, 5, 1).double() * 9, torch.rand(6, 5, 1) < 0.5
    alive[3:, 1:] = False  # unequal numbers of the living
    whole = standardise(x, alive)
    parts = Processes().run(
        lambda rank, reduce: standardise(
            x[3 * rank : 3 * rank + 3], alive[3 * rank : 3 * rank + 3], reduce
        )
    )
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- the critic's loss
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_huber_is_the_same_on_both_sides(sign: float) -> None:
    """½e² up to δ, then δ·(|e| − ½δ): also where e is far below −δ."""

    def loss(error: float, **settings: Any) -> float:
        zero = torch.zeros(1, 1).double()
        return value_loss(zero, zero, zero + sign * error, clip=None, **settings).item()

    assert loss(0.5, huber_delta=2.0) == pytest.approx(0.125)
    assert loss(2.0, huber_delta=2.0) == pytest.approx(2.0)
    assert loss(5.0, huber_delta=2.0) == pytest.approx(2 * (5 - 1))
    assert loss(5.0, huber_delta=None) == pytest.approx(12.5)
    assert loss(1e3, huber_delta=10.0) == pytest.approx(10 * (1e3 - 5))


@pytest.mark.parametrize(
    ("prediction", "target", "expected", "slope"),
    [
        (0.1, 1.0, 0.5 * 0.9**2, -0.9),  # within the bound: plain
        (0.5, 1.0, 0.5 * 0.8**2, 0.0),  # moved far towards the target: pays no more
        (-0.5, 1.0, 0.5 * 1.5**2, -1.5),  # moved far away: pulled back in full
        (0.5, -1.0, 0.5 * 1.5**2, 1.5),
        (-0.5, -1.0, 0.5 * 0.8**2, 0.0),
    ],
)
def test_clipping_is_the_larger_of_both(
    prediction: float, target: float, expected: float, slope: float
) -> None:
    """V_old = 0, bound .2."""
    value = torch.tensor([[prediction]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    loss = value_loss(value, zero, zero + target, clip=0.2, huber_delta=10.0)
    assert loss.item() == pytest.approx(expected)
    assert torch.autograd.grad(loss, value)[0].item() == pytest.approx(slope, abs=1e-12)


def test_value_loss_of_the_living() -> None:
    """Per value: a mean over all living (sample, agent) pairs, not over agents' means."""
    prediction, old, target = torch.randn(3, 6, 2).double()
    alive = torch.tensor([[1, 1], [1, 0], [0, 0], [1, 0], [1, 0], [1, 1]]).bool()
    garbage = torch.where(alive, target, 1e12)
    loss = value_loss(prediction, old, garbage, alive, clip=0.3, huber_delta=1.0)
    rows = [(i, v) for i in range(6) for v in range(2) if alive[i, v]]
    single = [
        value_loss(
            *(x[i : i + 1, v : v + 1] for x in (prediction, old, target)), clip=0.3, huber_delta=1.0
        )
        for i, v in rows
    ]
    assert loss.item() == pytest.approx(torch.stack(single).mean().item())
    nobody = value_loss(prediction, old, target, torch.zeros_like(alive))
    assert nobody.item() == 0.0


def test_masked_means_of_processes_average_to_the_whole() -> None:
    x, alive = torch.randn(6, 1), torch.tensor([1, 0, 0, 1, 1, 1]).bool()[:, None]
    parts = Processes().run(
        lambda rank, reduce: masked_mean(
            x[3 * rank : 3 * rank + 3], alive[3 * rank : 3 * rank + 3], reduce
        )
    )
    torch.testing.assert_close(sum(parts) / 2, x[alive].mean())
