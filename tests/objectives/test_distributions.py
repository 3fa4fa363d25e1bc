"""Ratios, divergences, entropies and draws of the policies, against sums and integrals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from hetmarl.networks.distributions import Choices, DiagonalGaussian, Joint, mask_logits


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=generator)


def probabilities(logits: Tensor, counts: list[int], mask: Tensor | None = None) -> list[Tensor]:
    """Per component, of the legal choices only; written without logarithms."""
    found, start = [], 0
    for count in counts:
        part = logits[start : start + count].double().exp()
        if mask is not None:
            part = part * mask[start : start + count]
        found.append(part / part.sum())
        start += count
    return found


# ---------------------------------------------------------------------- divergences
def test_divergence_weighs_choices_with_their_probability() -> None:
    """Summed over choices without weights it would be ·6 here, ·450 at a peaked policy."""
    for scale in (0.3, 6.0):
        old, new = torch.randn(2, 6, dtype=torch.float64) * scale
        (p,), (q,) = probabilities(old, [6]), probabilities(new, [6])
        expected = sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
        found = Choices(old, [6]).kl(Choices(new, [6]))
        assert found.shape == (1,) and found.item() == pytest.approx(expected, rel=1e-10)
        unweighted = sum(b / a - 1 - math.log(b / a) for a, b in zip(p, q, strict=True))
        assert unweighted > 2 * expected


def test_divergence_of_several_choices_is_that_of_their_product() -> None:
    """The joint distribution of a multi-discrete action, listed in full, with masks."""
    counts = [3, 2, 4]
    for seed in range(5):
        torch.manual_seed(seed)
        old, new = torch.randn(2, 9, dtype=torch.float64) * 2
        mask = torch.rand(9) < 0.6
        mask[[0, 3, 5]] = True
        p, q = probabilities(old, counts, mask), probabilities(new, counts, mask)
        kl = entropy = 0.0
        first, second = (Choices(mask_logits(x, mask), counts) for x in (old, new))
        for pick in itertools.product(*(range(n) for n in counts)):
            a = math.prod(part[k].item() for part, k in zip(p, pick, strict=True))
            b = math.prod(part[k].item() for part, k in zip(q, pick, strict=True))
            if a > 0:
                kl += a * math.log(a / b)
                entropy -= a * math.log(a)
                log_prob = first.log_prob(torch.tensor(pick))
                assert log_prob.shape == (1,)
                assert log_prob.item() == pytest.approx(math.log(a), rel=1e-10)
        assert first.kl(second).item() == pytest.approx(kl, rel=1e-10)
        assert first.entropy().item() == pytest.approx(entropy, rel=1e-10)


def test_gaussian_divergence_and_entropy_by_integration() -> None:
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    old = torch.tensor([0.3, -1.0, 0.7, 1.5], dtype=torch.float64)  # means, then deviations
    new = torch.tensor([-0.4, 0.5, 1.1, 0.9], dtype=torch.float64)
    kl = entropy = 0.0
    for d in range(2):
        p, q = Normal(old[d], old[2 + d]), Normal(new[d], new[2 + d])
        density = p.log_prob(x).exp()
        kl += torch.trapezoid(density * (p.log_prob(x) - q.log_prob(x)), x).item()
        entropy -= torch.trapezoid(density * p.log_prob(x), x).item()
    first, second = DiagonalGaussian(old), DiagonalGaussian(new)
    assert first.kl(second).item() == pytest.approx(kl, rel=1e-9)
    assert first.entropy().item() == pytest.approx(entropy, rel=1e-9)


def test_one_ratio_per_sample_whatever_the_dimensions() -> None:
    """The product over dimensions, once: not raised to their number."""
    old, new = torch.randn(2, 7, 6, dtype=torch.float64)
    action = torch.randn(7, 3, dtype=torch.float64)
    # deviations of one
    first, second = (
        DiagonalGaussian(torch.cat([x[:, :3], torch.ones(7, 3)], -1)) for x in (old, new)
    )
    ratio = (second.log_prob(action) - first.log_prob(action)).exp()
    square = (action - old[:, :3]).square() - (action - new[:, :3]).square()
    assert ratio.shape == (7, 1)
    torch.testing.assert_close(ratio, (square / 2).exp().prod(-1, keepdim=True))
    pick = torch.randint(2, (7, 3))
    one, two = Choices(old, [2, 2, 2]), Choices(new, [2, 2, 2])
    ratio = (two.log_prob(pick) - one.log_prob(pick)).exp()
    assert ratio.shape == (7, 1)
    for row in range(7):
        parts = zip(probabilities(old[row], [2] * 3), probabilities(new[row], [2] * 3), strict=True)
        expected = math.prod(
            (b[k] / a[k]).item() for (a, b), k in zip(parts, pick[row], strict=True)
        )
        assert ratio[row].item() == pytest.approx(expected, rel=1e-10)


# ---------------------------------------------------------------------- masks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_illegal_choices_have_probability_zero_and_nothing_is_lost_to_them(
    dtype: torch.dtype,
) -> None:
    logits = torch.tensor([[50.0, 0.0, -3.0, 1.0, 2.0]], dtype=dtype)
    mask = torch.tensor([[False, True, True, False, True]])
    policy = Choices(mask_logits(logits, mask), [3, 2])
    first, second = policy.components
    assert first.probs[0, 0] == 0.0 and second.probs[0, 0] == 0.0 and second.probs[0, 1] == 1.0
    assert first.probs.sum().item() == pytest.approx(1.0)
    assert policy.mode().tolist() == [[1, 1]]
    expected = -math.log1p(math.exp(-3.0))
    assert policy.log_prob(torch.tensor([[1, 1]])).item() == pytest.approx(expected, abs=1e-6)


ROWS = {
    "one legal": [False, True, False, True, False],
    "none legal": [False] * 5,
    "all legal": [True] * 5,
    "none of one component": [True, True, False, False, False],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("row", ROWS)
def test_everything_stays_finite_under_any_mask(row: str, dtype: torch.dtype) -> None:
    """Also second derivatives, also of actions that are illegal: a dead agent's."""
    mask = torch.tensor([ROWS[row]])
    old = torch.randn(1, 5, dtype=dtype) * 3
    new = (old + torch.randn(1, 5, dtype=dtype)).requires_grad_()
    first, second = (Choices(mask_logits(x, mask), [3, 2]) for x in (old, new))
    values = [second.entropy(), first.kl(second), second.kl(first)]
    for pick in itertools.product(range(3), range(2)):
        action = torch.tensor([pick])
        values.append((second.log_prob(action) - first.log_prob(action)).exp())
    for value in values:
        assert value.isfinite().all()
        (slope,) = torch.autograd.grad(value.sum(), new, create_graph=True)
        assert slope.isfinite().all() and (slope[~mask] == 0).all()
        (curve,) = torch.autograd.grad(
            slope.square().sum(), new, allow_unused=True, retain_graph=True
        )
        assert curve is None or curve.isfinite().all()
    if row in ("one legal", "none legal"):
        for value in (first.kl(second), second.kl(first)):
            assert value.item() == 0.0
    if row == "one legal":
        assert second.entropy().item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_divergence_where_a_probability_underflows(dtype: torch.dtype) -> None:
    """Policies certain of different choices are far apart, not infinitely so."""
    sure = torch.tensor([[0.0, -1000.0]], dtype=dtype)
    other = torch.tensor([[0.0, -300.0]], dtype=dtype, requires_grad=True)
    opposite = torch.tensor([[-1000.0, 0.0]], dtype=dtype, requires_grad=True)
    first = Choices(sure, [2])
    for logits, distance in ((other, 0.0), (opposite, 1000.0)):
        second = Choices(logits, [2])
        for value in (first.kl(second), second.kl(first)):
            assert value.item() == pytest.approx(distance, abs=1e-3)
            assert torch.autograd.grad(value.sum(), logits, retain_graph=True)[0].isfinite().all()


# ---------------------------------------------------------------------- draws
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_follow_the_probabilities(dtype: torch.dtype) -> None:
    """Pearson's χ² of the joint choice, legal ones only; below the .9999 quantile."""
    counts, n = [4, 3], 200_000
    logits = torch.tensor([2.0, 0.0, -1.0, -4.0, 0.0, 1.0, 5.0], dtype=dtype)
    mask = torch.tensor([True, True, False, True, True, True, False])
    policy = Choices(mask_logits(logits, mask).expand(n, 7), counts)
    generator = torch.Generator().manual_seed(0)
    drawn = policy.sample(lambda like: normal(like, generator))
    assert drawn.shape == (n, 2) and drawn.dtype == torch.int64
    seen = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=12).double()
    p, q = probabilities(logits, counts, mask)
    expected = (n * p[:, None] * q).flatten()
    assert (seen[expected == 0] == 0).all()
    legal = expected > 0
    statistic = ((seen - expected).square() / expected)[legal].sum().item()
    assert legal.sum() == 6 and statistic < 25.75  # χ² of 5 degrees of freedom


def test_no_draw_is_illegal_however_extreme_the_noise() -> None:
    mask = torch.rand(1000, 6) < 0.3
    mask[torch.arange(1000), torch.randint(6, (1000,))] = True
    policy = Choices(mask_logits(30 * torch.randn(1000, 6), mask), [6])
    noises: list[Any] = [torch.zeros_like, lambda x: x.new_full(x.shape, 40.0)]
    noises += [lambda x: x.new_full(x.shape, -40.0), lambda x: 40 * torch.randn_like(x)]
    for noise in noises:
        assert mask.gather(1, policy.sample(noise)).all()
    assert mask.gather(1, policy.mode()).all()


def test_gaussian_draws_are_mean_and_deviation_of_the_noise() -> None:
    parameters = torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    policy = DiagonalGaussian(parameters)
    assert policy.sample(lambda x: torch.ones_like(x)).tolist() == [[1.5, 1.0]]
    assert policy.mode().tolist() == [[1.0, -2.0]]


# ---------------------------------------------------------------------- several agents as one
def test_joint_policy_sums_over_the_living() -> None:
    gaussian = DiagonalGaussian(torch.rand(4, 4) + 0.5)
    other = DiagonalGaussian(torch.rand(4, 4) + 0.5)
    choice, second = Choices(torch.randn(4, 3), [3]), Choices(torch.randn(4, 3), [3])
    alive = torch.tensor([[True], [False], [True], [False]])
    joint, old = Joint([gaussian, choice], [None, alive]), Joint([other, second], [None, alive])
    actions = torch.cat([torch.randn(4, 2), torch.randint(3, (4, 1)).float()], -1)
    weight = alive.float()
    for found, parts in (
        (joint.entropy(), (gaussian.entropy(), choice.entropy())),
        (joint.kl(old), (gaussian.kl(other), choice.kl(second))),
        (
            joint.log_prob(actions),
            (gaussian.log_prob(actions[:, :2]), choice.log_prob(actions[:, 2:])),
        ),
    ):
        torch.testing.assert_close(found, parts[0] + weight * parts[1])
    assert joint.mode().shape == (4, 3)
