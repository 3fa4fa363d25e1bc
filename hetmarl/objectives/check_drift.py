"""Verifies that a drift keeps what mirror learning's guarantees need."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from hetmarl.networks.distributions import ActionDistribution, Choices, DiagonalGaussian
from hetmarl.objectives.drifts import Drift, PolicyChange
from hetmarl_envs.errors import HetmarlError


class DriftError(HetmarlError):
    """A drift that breaks a condition of mirror learning."""


TOLERANCE = 1e-9
STEPS = (1e-3, 1e-4)
"""Lengths of the steps away from the old policy, in its parameters."""
NODES = 101

Case = tuple[str, Callable[[Tensor], ActionDistribution], Tensor, Tensor, Tensor]


def check_drift(drift: Drift, *, trials: int = 20, seed: int = 0) -> None:
    """Verifies a drift on random policies of choices and of real numbers, in float64.

    With expectations over the old policy's actions, exact for choices and by Gauss–Hermite
    quadrature for a Gaussian, and advantages that are any function of the action:

    1. E[D] is zero where the new policy is the old one;
    2. E[D] is never negative (a single sample may be);
    3. E[D] leaves the old policy with slope zero in every direction: its value after a step of
       length ε, divided by ε, goes to zero with ε. Autograd alone would miss a kink there.

    (Zhong et al. 2024, arXiv 2304.09870, definition 3. With them, and exact updates, returns never
    fall and the limit is a Nash equilibrium, theorem 14.)

    Args:
        drift: a function of a ``PolicyChange``.
        trials: random policies of either kind.
        seed: of the policies, steps and advantages.

    Raises:
        DriftError: which condition is violated, where, and by how much.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(trials):
        for case in _cases(generator):
            _check(drift, case, generator)


def _cases(generator: torch.Generator) -> Iterator[Case]:
    """Kind, distribution of parameters, old parameters ``[P]``, actions ``[K, D]``, weights."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    logits = draw(4)
    actions = torch.arange(4).unsqueeze(-1)
    yield "choices", lambda p: Choices(p, [4]), logits, actions, logits.softmax(-1).unsqueeze(-1)

    mean, std = draw(1), draw(1).mul(0.3).exp()
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(NODES))
    actions = mean + std * nodes.unsqueeze(-1)
    weights = (weights / weights.sum()).unsqueeze(-1)
    yield "a Gaussian", DiagonalGaussian, torch.cat([mean, std]), actions, weights


def _check(drift: Drift, case: Case, generator: torch.Generator) -> None:
    kind, make, old, actions, weights = case
    rows = len(actions)
    before = make(old.expand(rows, -1))
    # a smooth function of the action, of both signs
    slope = torch.randn(2, 1, generator=generator, dtype=torch.float64)
    advantage = (slope[0] * actions.double() + slope[1]).sin()
    direction = torch.randn(old.shape, generator=generator, dtype=torch.float64)
    direction /= direction.norm()

    def expected(length: float) -> float:
        new = make((old + length * direction).expand(rows, -1))
        log_ratio = new.log_prob(actions) - before.log_prob(actions)
        found = drift(PolicyChange(new, before, log_ratio, advantage))
        if found.shape != log_ratio.shape:
            raise DriftError(
                f"the drift is {list(found.shape)}, expected one number per sample, "
                f"{list(log_ratio.shape)}."
            )
        return float((weights * found).sum())

    where = f"for {kind} with parameters {[round(x, 3) for x in old.tolist()]}"
    at_old = expected(0.0)
    if not abs(at_old) <= TOLERANCE:
        raise DriftError(
            f"E[D] is {at_old:.3g} at the old policy itself, {where}; expected 0. Subtract that "
            "value, or measure the change of policy alone."
        )
    for length in (1.0, 0.3, *STEPS):
        value = expected(length if kind == "choices" else 0.3 * length)
        if not value >= -TOLERANCE:
            raise DriftError(
                f"E[D] is {value:.3g} at a distance of {length:g} from the old policy, {where}; "
                "expected 0 or more: a negative cost would reward leaving the old policy."
            )
    far, near = (expected(length) / length for length in STEPS)
    if abs(near) > TOLERANCE / STEPS[1] and abs(near) > 0.3 * abs(far):
        raise DriftError(
            f"E[D]/ε stays at {near:.3g} as ε goes to 0, {where}: the drift has a slope or a kink "
            "at the old policy, expected zero slope in every direction. Squaring it often helps, "
            "as for the total variation."
        )
