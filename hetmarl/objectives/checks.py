"""Verifies that a drift or a neighbourhood keeps what mirror learning's guarantees need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hetmarl.networks.distributions import ActionDistribution, Choices, DiagonalGaussian
from hetmarl.objectives.drifts import Drift, Neighbourhood, PolicyChange
from hetmarl_envs.errors import ConfigError, HetmarlError

KINDS = ("choices", "gaussian")
NEAR = (1e-4, 1e-5)
"""Lengths of the steps that tell a slope from a curve, in the policy's parameters."""
NEAR_AND_FAR = (1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Lengths of the steps after which a drift may not be negative."""
ROUNDING = 1e-11
"""What counts as 0, in the drift's own scale."""


class DriftError(HetmarlError):
    """A drift or neighbourhood that breaks a condition of mirror learning."""


def check_drift(
    drift: Drift, *, kinds: Sequence[str] = KINDS, trials: int = 10, seed: int = 0
) -> None:
    """Verifies a drift on random policies of choices and of real numbers, in float64.

    With expectations over the old policy's actions (two choices at a time, enumerated; two real
    numbers, on a grid), at one observation, and advantages that are any function of the action:

    1. the drift is finite, one number ``[*B, 1]`` per sample;
    2. E[D] is zero where the new policy is the old one;
    3. E[D] is nowhere negative (a single sample may be), near and far: up to ten units of logits,
       and three σ of a mean;
    4. E[D] leaves the old policy with slope zero in every direction: its value after a step of
       length ε, divided by ε, goes to zero with ε. Autograd alone would miss a kink there;
    5. its gradient is that of its value: nothing that matters is detached.

    (2 to 4: Zhong et al. 2024, arXiv 2304.09870, definition 3. With them, and exact updates,
    returns never fall and the limit is a Nash equilibrium, theorem 14;
    ``hetmarl.engines.EnumeratedTeam`` shows it.)

    Args:
        drift: a function of a ``PolicyChange``.
        kinds: of policies that it is for, ``"choices"``, ``"gaussian"``, or both.
        trials: random policies of either kind.
        seed: of the policies, steps and advantages.

    Raises:
        DriftError: which condition is violated, where, and by how much.
        ConfigError: no such kind.
    """
    for case in _cases(kinds, trials, seed):
        _check_drift(case, _Expected(case, drift, "the drift"))


def check_neighbourhood(
    neighbourhood: Neighbourhood, *, kinds: Sequence[str] = KINDS, trials: int = 10, seed: int = 0
) -> None:
    """Verifies a neighbourhood's distance, on the policies of ``check_drift``.

    Its expectation is zero at the old policy, never negative, and curved there as autograd says: a
    trust region's step is as long as autograd's second derivative allows.

    Args:
        neighbourhood: with a ``distance``.
        kinds, trials, seed: as for ``check_drift``.

    Raises:
        DriftError: which condition is violated, where, and by how much.
        ConfigError: no such kind.
    """
    for case in _cases(kinds, trials, seed):
        distance = _Expected(case, neighbourhood.distance, "the distance")
        _check_values(distance)
        length = 1e-3
        curvature = 2 * distance(length) / length**2
        found = distance.derivatives(0.0, order=2)
        if not abs(curvature - found) <= 0.05 * abs(curvature) + ROUNDING * distance.scale:
            raise DriftError(
                f"the distance curves by {curvature:.3g} at the old policy, {case.where}, and by "
                f"{found:.3g} after autograd: expected equal second derivatives, or a trust "
                "region's step has no length. Use a smooth distance, such as a KL divergence."
            )


class _Case(NamedTuple):
    """One old policy at one observation, its actions with their probability, and a way to go."""

    kind: str
    make: Callable[[Tensor], ActionDistribution]
    old: Tensor  # [P]
    direction: Tensor  # [P]
    actions: Tensor  # [K, D]
    weights: Tensor  # [K, 1]
    advantage: Tensor  # [K, 1]
    lengths: Sequence[float]  # of the steps that are tried

    @property
    def where(self) -> str:
        kind = {"choices": "choices with logits", "gaussian": "a Gaussian with means and σ"}
        return f"for {kind[self.kind]} {[round(x, 3) for x in self.old.tolist()]}"


def _cases(kinds: Sequence[str], trials: int, seed: int) -> Iterator[_Case]:
    if isinstance(kinds, str) or not kinds or not set(kinds) <= set(KINDS):
        raise ConfigError(f"kinds={kinds!r}: expected some of {', '.join(KINDS)}, as a list.")
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    counts = [3, 2]
    # The trapezoidal rule is as good as exact for what is smooth and falls as a Gaussian does, and
    # unlike Gauss's it sees far out, where a wider new policy has its mass.
    line = torch.linspace(-10, 10, 81, dtype=torch.float64)
    nodes = torch.cartesian_prod(line, line)
    density = (-nodes.square().sum(-1, keepdim=True) / 2).exp()
    for trial in range(trials):
        for kind in kinds:
            lengths: Sequence[float] = NEAR_AND_FAR
            if kind == "choices":
                old, actions = draw(5), torch.cartesian_prod(*(torch.arange(k) for k in counts))
                weights = Choices(old, counts).log_prob(actions).exp()
                direction = draw(5)
                direction /= direction.norm()
            else:
                mean, std = draw(2), draw(2).mul(0.3).exp()
                old, actions, weights = torch.cat([mean, std]), mean + std * nodes, density
                direction = draw(4)
                if trial % 2:  # far in the means alone: σ would come near 0
                    direction[2:] = 0.0
                else:
                    lengths = [length for length in lengths if length <= 1]
                direction *= 0.3 / direction.norm() * torch.cat([std, std])
            # a smooth function of the action, of both signs
            waves = draw(actions.shape[1] + 1)
            advantage = (actions.double() @ waves[1:] + waves[0]).sin().unsqueeze(-1)
            make = (lambda p: Choices(p, counts)) if kind == "choices" else DiagonalGaussian
            weights = weights / weights.sum()
            yield _Case(kind, make, old, direction, actions, weights, advantage, lengths)


class _Expected:
    """E of a function of the change of policy after a step of a given length."""

    def __init__(self, case: _Case, function: Callable[[PolicyChange], Tensor], name: str) -> None:
        self.case, self.function, self.name = case, function, name
        self.scale = max(self.size(1.0), self.size(0.3))
        """Mean size of a sample, what rounding is measured by."""

    def __call__(self, length: float) -> float:
        return self._mean(length).item()

    def size(self, length: float) -> float:
        """Mean size of a sample after a step."""
        return self._mean(length, of=torch.abs).item()

    def derivatives(self, length: float, order: int = 1) -> float:
        """The first or second derivative by the length, of autograd."""
        along = torch.tensor(length, dtype=torch.float64, requires_grad=True)
        value = self._mean(along)
        for _ in range(order):
            if not value.requires_grad:
                return 0.0
            (value,) = torch.autograd.grad(value, along, create_graph=True)
        return value.item()

    def _mean(self, length: float | Tensor, of: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        case = self.case
        rows = len(case.actions)
        before = case.make(case.old.expand(rows, -1))
        new = case.make((case.old + length * case.direction).expand(rows, -1))
        log_ratio = new.log_prob(case.actions) - before.log_prob(case.actions)
        found = self.function(PolicyChange(new, before, log_ratio, case.advantage))
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape != [rows, 1]:
            raise DriftError(
                f"{self.name} of a batch {[rows]} of samples is {shape}, {case.where}; expected "
                f"one number per sample, {[rows, 1]}, over all dimensions of the action."
            )
        value = (case.weights * of(found)).sum()
        if not value.isfinite():
            raise DriftError(
                f"{self.name} is {value.item():g} at a distance of {float(length):g} from the old "
                f"policy, {case.where}; expected a finite number."
            )
        return value


def _check_values(expected: _Expected) -> None:
    """Zero at the old policy, nowhere negative."""
    name, case, zero = expected.name, expected.case, ROUNDING * expected.scale
    at_old = expected(0.0)
    if abs(at_old) > zero:
        raise DriftError(
            f"{name} is {at_old:.3g} on average at the old policy itself, {case.where}; expected "
            "0. Subtract that value, or measure the change of policy alone."
        )
    for length in case.lengths:
        for signed in (length, -length):
            if (value := expected(signed)) < -max(zero, ROUNDING * expected.size(signed)):
                raise DriftError(
                    f"{name} is {value:.3g} on average at a distance of {length:g} from the old "
                    f"policy, {case.where}; expected 0 or more: a negative cost would reward "
                    "leaving the old policy."
                )


def _check_drift(case: _Case, expected: _Expected) -> None:
    _check_values(expected)
    zero = ROUNDING * expected.scale
    far, near = (expected(length) / length for length in NEAR)
    if near > zero / NEAR[1] and near > 0.5 * far:
        raise DriftError(
            f"the drift divided by the length ε of the step stays at {near:.3g} as ε goes to 0, "
            f"{case.where}: it has a slope or a kink at the old policy, expected zero slope in "
            "every direction. Squaring it often helps, as for the total variation."
        )
    h = 1e-4
    for length in (0.0, 0.3):
        slope = (expected(length + h) - expected(length - h)) / (2 * h)
        found = expected.derivatives(length)
        if not abs(slope - found) <= 0.05 * abs(slope) + 1e-3 * expected.scale:
            raise DriftError(
                f"the drift rises by {slope:.3g} along a step at a distance of {length:g} from the "
                f"old policy, {case.where}, and by {found:.3g} after autograd: expected equal "
                "slopes. Something of the new policy in it is detached."
            )
