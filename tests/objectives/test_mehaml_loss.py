"""MEHAML's losses: divergences by brute force, old policies, what a drift is given and refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, TanhTransform

from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.networks.distributions import DiagonalGaussian
from hetmarl.objectives import ClipDrift, HASACLoss, KLBall, KLDrift, MEHAMLLoss, PolicyChange
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError
from tests.teams import ALONE, UNEQUAL, HybridEnv, batch
from tests.theory.drifts import Tsallis


def make(spec: TeamSpec = UNEQUAL, *parts: Any, moved: float = 0.2, **settings: Any) -> MEHAMLLoss:
    """In double, the policies a little away from the old ones."""
    network = NetworkConfig([8])
    loss = MEHAMLLoss(TeamPolicy(spec, network), JointQ(spec, network), *parts, **settings).double()
    loss.remember()
    with torch.no_grad():
        for parameter in loss.policy.actors.parameters():
            parameter.add_(moved * torch.randn_like(parameter))
    return loss


def kl(loss: MEHAMLLoss, data: TensorDictBase, agent: int) -> Tensor:
    """KL(new ‖ old) as a drift sees it, ``[*B, 1]``."""
    change = loss.change(data, agent, loss.old(data, agent))
    return change.new.kl(change.old)


# ---------------------------------------------------------------------- divergences
def squashed(actor: Any, observation: Tensor) -> TransformedDistribution:
    mean, log_std = actor(observation)
    affine = AffineTransform(actor.centre, actor.half_width)
    return TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(), affine])


def test_divergence_of_squashed_gaussians_by_integration_over_actions() -> None:
    """Bounds [−1, 1] and [0, 5]; dimensions are independent, so that their divergences add up."""
    torch.manual_seed(0)
    loss, data = make(ALONE), batch(ALONE, 4, dtype=torch.float64)
    observation = ALONE.observation(data, 0)
    new, old = (
        squashed(actors[0], observation) for actors in (loss.policy.actors, loss.old_actors)
    )
    share = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:-1, None, None]
    low, high = (torch.tensor(x) for x in (ALONE.agents[0].action.low, ALONE.agents[0].action.high))
    grid = low + (high - low) * share
    p, q = (d.log_prob(grid.expand(-1, 4, 2)) for d in (new, old))
    expected = (p.exp() * (p - q)).mean(0) * (high - low)
    torch.testing.assert_close(kl(loss, data, 0), expected.sum(-1, keepdim=True), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["valve", "panel_0"])
def test_divergence_of_choices_over_every_legal_action(name: str) -> None:
    """Discrete and multi-discrete, with masks."""
    env = HybridEnv(num_envs=16)
    spec, data = TeamSpec.from_env(env), env.reset().double()
    agent = spec.names.index(name)
    loss = make(spec)
    observation, mask = spec.observation(data, agent), spec.action_mask(data, agent)
    assert mask is not None and not mask.all()
    counts = list(spec.agents[agent].action.choices)
    both = []
    for actor in (loss.policy.actors[agent], loss.old_actors[agent]):
        parts = zip(actor.net(observation).split(counts, -1), mask.split(counts, -1), strict=True)  # type: ignore[operator, union-attr]
        chances = [logits.exp() * legal for logits, legal in parts]
        both.append([c / c.sum(-1, keepdim=True) for c in chances])
    expected = torch.zeros(16, dtype=torch.float64)
    for choice in itertools.product(*map(range, counts)):
        p, q = (
            torch.stack([c[:, k] for c, k in zip(parts, choice, strict=True)]).prod(0)
            for parts in both
        )
        expected += torch.where(p > 0, p * (p / q).log(), 0.0)
    assert expected.max() > 0.01
    torch.testing.assert_close(kl(loss, data, agent), expected[:, None])


# ---------------------------------------------------------------------- what a drift is given
def gradients(loss: MEHAMLLoss, data: TensorDictBase, agent: int = 0) -> list[Tensor]:
    """Value of the drift and its gradient."""
    torch.manual_seed(0)
    value = loss.drift_cost(data, agent, loss.old(data, agent))
    parameters = list(loss.policy.actors[agent].parameters())
    return [value.detach(), *torch.autograd.grad(value, parameters)]


@pytest.mark.parametrize("drift", [KLDrift(0.1), KLDrift(0.1, "old_new"), Tsallis(2.0)])
def test_zero_with_zero_gradient_at_the_old_policy(drift: Any) -> None:
    loss, data = make(UNEQUAL, drift), batch(UNEQUAL, 64, dtype=torch.float64)
    away = gradients(loss, data)
    assert away[0] > 1e-3 and any(g.abs().max() > 1e-3 for g in away[1:])
    loss.remember()
    assert all(x.abs().max() < 1e-12 for x in gradients(loss, data))


def test_ratios_are_of_actions_of_the_old_policy() -> None:
    """E_old[r] = 1 and E_old[−log r] = KL(old ‖ new); of the new policy's actions they are not."""
    loss, data = make(UNEQUAL, moved=0.1), batch(UNEQUAL, 1, dtype=torch.float64)
    data = data.expand(200_000).clone()
    change = loss.change(data, 1, loss.old(data, 1))
    divergence = change.old.kl(change.new)[0].item()
    assert divergence > 1e-3
    assert change.ratio.mean().item() == pytest.approx(1, abs=0.02)
    error = 4 * change.log_ratio.std().item() / 200_000**0.5
    assert -change.log_ratio.mean().item() == pytest.approx(divergence, abs=error)
    assert change.log_ratio.requires_grad


def test_the_dead_pay_no_drift_and_are_no_distance() -> None:
    loss = make(UNEQUAL, KLDrift(1.0), KLBall(1.0))
    data = batch(UNEQUAL, 32, deaths=True, dtype=torch.float64)
    alive = data["legs", "alive"][:, 1]
    assert 0 < alive.sum() < 32
    old = loss.old(data, 2)
    expected = kl(loss, data, 2)[alive].mean()
    torch.testing.assert_close(loss.drift_cost(data, 2, old), expected)
    change = loss.change(data, 2, old)
    expected = change.old.kl(change.new)[alive].mean()
    torch.testing.assert_close(loss.distance(data, 2, old), expected)
    assert make().distance(data, 2, old) == 0  # no neighbourhood


# ---------------------------------------------------------------------- old policies
def test_old_policies_are_saved_and_never_trained() -> None:
    loss, data = make(UNEQUAL, KLDrift(1.0)), batch(UNEQUAL, dtype=torch.float64)
    trained = {n for n, p in loss.named_parameters() if p.requires_grad}
    assert not any("old_actors" in name for name in trained)
    other = make(UNEQUAL, KLDrift(1.0))
    other.load_state_dict(loss.state_dict())
    assert torch.equal(kl(loss, data, 1), kl(other, data, 1))
    before = kl(loss, data, 1)
    with torch.no_grad():
        next(loss.policy.actors[1].parameters()).add_(1.0)
    assert not torch.equal(before, kl(loss, data, 1))
    loss.remember()
    assert not kl(loss, data, 1).any()


def test_forward_adds_the_drifts() -> None:
    torch.manual_seed(3)
    loss, data = make(UNEQUAL, KLDrift(0.5)), batch(UNEQUAL, dtype=torch.float64)
    torch.manual_seed(0)
    found = loss(data)
    torch.manual_seed(0)
    plain = HASACLoss.forward(loss, data)
    drift = 2 * sum(kl(loss, data, i).mean() for i in range(3))
    assert set(found.keys()) == set(loss.out_keys) == {*plain.keys(), "drift"}
    torch.testing.assert_close(found["drift"], drift.detach())
    torch.testing.assert_close(found["loss_actor"], plain["loss_actor"] + drift)
    for name in ("loss_qvalue", "loss_alpha", "entropy", "q_mean"):
        assert torch.equal(found[name], plain[name]), name


# ---------------------------------------------------------------------- refusals
class Wide:
    radius = 1.0

    def distance(self, change: PolicyChange) -> Tensor:
        return change.log_ratio.mean()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((ClipDrift(0.2),), r"reads PolicyChange\.advantage.*on policy only.*KLDrift"),
        (
            (lambda change: change.new.base.mean,),
            r"the drift of a batch \[1\] of samples of agent 'left' is \[1, 2\]; expected one",
        ),
        ((None, Wide()), r"the distance of a batch .* is \[\]; expected one number per sample"),
    ],
)
def test_what_needs_more_is_refused_before_anything_is_collected(parts: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(UNEQUAL, *parts)


def test_actors_that_cannot_be_compared_are_refused() -> None:
    class Own(torch.nn.Linear):
        pass

    policy = TeamPolicy(ALONE, actors=[Own(3, 2)])
    with pytest.raises(ConfigError, match=r"the Own of agent 'solo' has no policy_at\("):
        MEHAMLLoss(policy, JointQ(ALONE, NetworkConfig([8])))


def test_policies_of_real_numbers_are_taken_before_squashing() -> None:
    loss, data = make(ALONE), batch(ALONE, dtype=torch.float64)
    policy = loss.policy.actors[0].policy_at(ALONE.observation(data, 0))  # type: ignore[operator]
    assert isinstance(policy, DiagonalGaussian)
    u = policy.sample(lambda like: torch.ones_like(like))
    sample = loss.sample(data, 0, lambda like: torch.ones_like(like))
    actor = loss.policy.actors[0]
    torch.testing.assert_close(actor._squash(u), sample.action)  # type: ignore[operator]
