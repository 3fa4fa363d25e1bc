"""Straight-through choices: exact draws and log-probabilities, gradients, masks."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical

from hetmarl.networks import GumbelActor, NetworkConfig, make_actor
from hetmarl_envs.contract import ActionSpace, AgentSpec

CHOICES = (3, 2)


def actor(choices: tuple[int, ...] = CHOICES) -> GumbelActor:
    torch.manual_seed(0)
    kind = "discrete" if len(choices) == 1 else "multi_discrete"
    made = make_actor(
        AgentSpec("a", "g", 0, (4,), ActionSpace(kind, choices=choices)), NetworkConfig([8])
    )
    assert isinstance(made, GumbelActor)
    return made.double()


def test_draws_and_densities_are_the_categorical_ones() -> None:
    policy = actor()
    observation = torch.randn(4, dtype=torch.float64).expand(40_000, 4)
    generator = torch.Generator().manual_seed(1)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, dtype=like.dtype, generator=generator)

    sample = policy.sample(observation, noise)
    parts = sample.action.detach().split(CHOICES, -1)
    logits = policy(observation[:1]).split(CHOICES, -1)
    expected = 0
    for drawn, part in zip(parts, logits, strict=True):
        assert torch.equal(drawn.round().sum(-1), torch.ones(40_000, dtype=torch.float64))
        assert torch.allclose(drawn, drawn.round(), atol=1e-12)
        torch.testing.assert_close(drawn.mean(0), part.softmax(-1)[0], atol=0.01, rtol=0)
        expected = expected + Categorical(logits=part).log_prob(drawn.argmax(-1))
    torch.testing.assert_close(sample.log_prob.squeeze(-1).detach(), expected.detach())


def test_acts_as_it_samples_and_takes_the_mode_without_noise() -> None:
    policy, observation = actor(), torch.randn(7, 4, dtype=torch.float64)
    normal = torch.randn(7, 5, dtype=torch.float64)
    acted, _ = policy.act(observation, lambda _: normal)
    sampled = policy.sample(observation, lambda _: normal).action.split(CHOICES, -1)
    assert torch.equal(acted, torch.stack([part.argmax(-1) for part in sampled], -1))
    mode, _ = policy.act(observation, None)
    parts = policy(observation).split(CHOICES, -1)
    assert torch.equal(mode, torch.stack([part.argmax(-1) for part in parts], -1))


def test_gradient_is_that_of_the_softmax() -> None:
    """Backwards the draw is softmax(log p + g); here against that written out."""
    policy, observation = actor((3,)), torch.randn(5, 4, dtype=torch.float64)
    normal, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    sample = policy.sample(observation, lambda _: normal)
    got = torch.autograd.grad((sample.action * weight).sum(), list(policy.parameters()))
    gumbel = -(-torch.special.ndtr(normal).log()).log()
    soft = (policy(observation).log_softmax(-1) + gumbel).softmax(-1)
    expected = torch.autograd.grad((soft * weight).sum(), list(policy.parameters()))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_illegal_choices_are_never_drawn_and_gradients_stay_finite(dtype: torch.dtype) -> None:
    policy, observation = actor().to(dtype), torch.randn(2_000, 4, dtype=dtype)
    mask = torch.rand(2_000, 5) < 0.5
    mask[:, 0] |= ~mask[:, :3].any(-1)
    mask[:, 3] |= ~mask[:, 3:].any(-1)
    mask[:10] = False  # the dead
    sample = policy.sample(observation, torch.randn_like, mask)
    assert not (sample.action[10:] * ~mask[10:]).any()
    acted, _ = policy.act(observation, torch.randn_like, mask)
    assert mask[10:].gather(1, acted[10:] + torch.tensor([0, 3])).all()
    assert sample.log_prob.isfinite().all() and (sample.log_prob[mask.sum(-1) == 2] == 0).all()
    loss = (sample.action * torch.randn(5)).sum() + sample.log_prob.sum()
    for gradient in torch.autograd.grad(loss, list(policy.parameters())):
        assert gradient.isfinite().all() and gradient.any()
