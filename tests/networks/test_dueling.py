"""Dueling actors: their values, their greedy choices, their coins."""

from __future__ import annotations

import itertools

import pytest
import torch

from hetmarl.networks import DuelingActor, GreedyNetworkConfig
from hetmarl_envs.contract import ActionSpace, AgentSpec
from hetmarl_envs.errors import ConfigError
from tests.choosing import legal_mask

CHOICES = (3, 2)


def actor(choices: tuple[int, ...] = CHOICES, hidden: tuple[int, ...] = (8, 6)) -> DuelingActor:
    torch.manual_seed(0)
    kind = "discrete" if len(choices) == 1 else "multi_discrete"
    agent = AgentSpec("a", "g", 0, (4,), ActionSpace(kind, choices=choices))
    return DuelingActor(agent, GreedyNetworkConfig(list(hidden))).double()


@pytest.mark.parametrize("hidden", [(8,), (8, 6), (8, 7, 6)])
def test_values_are_the_streams_with_the_legal_mean_taken_off(hidden: tuple[int, ...]) -> None:
    net = actor(hidden=hidden)
    observation, mask = torch.randn(5, 4).double(), legal_mask(5, choices=CHOICES)
    combinations = list(itertools.product(range(3), range(2)))
    assert [tuple(c) for c in net.choices.tolist()] == combinations
    features = net.net(observation)
    value, advantage = net.value(features), net.advantage(features)
    assert value.shape == (5, 1) and advantage.shape == (5, 6)
    got, free = net(observation, mask), net(observation)
    for b in range(5):
        legal = [bool(mask[b, i]) and bool(mask[b, 3 + j]) for i, j in combinations]
        mean = sum(advantage[b, c] for c in range(6) if legal[c]) / sum(legal)
        for c in range(6):
            if legal[c]:
                torch.testing.assert_close(got[b, c], value[b, 0] + advantage[b, c] - mean)
            else:
                assert got[b, c] < -1e300
        torch.testing.assert_close(free[b].mean(), value[b, 0])


def test_greedy_is_the_best_legal_combination() -> None:
    """Also where the components would do better by themselves, of which one is illegal."""
    net, observation = actor(), torch.randn(200, 4).double()
    mask = legal_mask(200, choices=CHOICES)
    acted, _ = net.act(observation, None, mask)
    values = net(observation)
    for b in range(200):
        legal = [c for c in range(6) if all(mask[b, k] for k in net.encoded[c].nonzero())]
        best = max(legal, key=lambda c, b=b: values[b, c].item())
        assert acted[b].tolist() == net.choices[best].tolist()
    sample = net.sample(observation, None, mask)
    assert sample.log_prob is None and not sample.action.requires_grad
    parts = sample.action.split(CHOICES, -1)
    assert torch.equal(torch.stack([p.argmax(-1) for p in parts], -1), acted)
    assert torch.equal(sample.action.sum(-1), torch.full((200,), 2.0).double())


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_every_row_tosses_its_own_coin(epsilon: float) -> None:
    """Each legal choice but the greedy one comes ε/(legal choices) of the time."""
    net, rows = actor((5,)), 20_000
    net.epsilon.fill_(epsilon)
    observation = torch.randn(4).double().expand(rows, 4)
    mask = torch.tensor([True, False, True, True, True]).expand(rows, 5)
    generator = torch.Generator().manual_seed(1)
    acted, hidden = net.act(
        observation, lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype), mask
    )
    assert acted.shape == (rows, 1) and hidden is None
    greedy = net.act(observation[:1], None, mask[:1])[0].item()
    shares = acted.squeeze(-1).bincount(minlength=5) / rows
    expected = torch.full((5,), epsilon / 4)
    expected[1] = 0.0
    expected[greedy] += 1 - epsilon
    assert shares[1] == 0
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)
    # independent from row to row: pairs of neighbours
    other = acted.squeeze(-1) != greedy
    both = (other[::2] & other[1::2]).double().mean().item()
    assert both == pytest.approx((0.75 * epsilon) ** 2, abs=0.015)


def test_without_noise_no_coin_is_tossed() -> None:
    net, observation = actor(), torch.randn(50, 4).double()
    net.epsilon.fill_(1.0)
    a, b = (net.act(observation, None)[0] for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, net.act(observation)[0])


def test_who_has_no_choice_at_all_does_no_harm() -> None:
    net, observation = actor(), torch.randn(3, 4).double()
    nothing = torch.zeros(3, 5, dtype=torch.bool)
    net.epsilon.fill_(0.5)
    assert net(observation, nothing).isfinite().all()
    assert net.act(observation, torch.randn_like, nothing)[0].shape == (3, 2)


def test_epsilon_is_saved_and_what_follows_from_the_spec_is_not() -> None:
    names = set(actor().state_dict())
    assert "epsilon" in names and not names & {"choices", "encoded"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (ActionSpace("continuous", (-1.0,), (1.0,)), r"'a' acts by 1 real numbers.*algo=hatd3"),
        (ActionSpace("multi_discrete", choices=(40, 40)), r"1600 combinations .*algo=hasac"),
    ],
)
def test_what_has_no_few_choices_is_refused(space: ActionSpace, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DuelingActor(AgentSpec("a", "g", 0, (4,), space), GreedyNetworkConfig([8]))
