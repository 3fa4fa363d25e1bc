"""The checkers pass what mirror learning allows, and say what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hetmarl.objectives import (
    ClipDrift,
    Drift,
    DriftError,
    KLBall,
    KLDrift,
    NoDrift,
    PolicyChange,
    check_drift,
    check_neighbourhood,
)
from hetmarl_envs.errors import ConfigError
from tests.theory.drifts import TotalVariation, Tsallis, negative, sloped

CHOICES = ["choices"]
VALID: dict[str, Drift] = {
    "none": NoDrift(),
    "clip": ClipDrift(0.2),
    "kl": KLDrift(0.5),
    "kl_weak": KLDrift(1e6, "old_new"),
    "tsallis_half": Tsallis(0.5),
    "tsallis_1.1": Tsallis(1.1),
    "tsallis_2": Tsallis(2.0),
    # estimates whose samples are of both signs
    "tsallis_plain": lambda c: c.ratio**2 - 1,
    "kl_sampled": lambda c: -c.log_ratio,
}
Function = Callable[[PolicyChange], Tensor]


@pytest.mark.parametrize("drift", VALID.values(), ids=VALID.keys())
def test_valid_drifts_pass(drift: Drift) -> None:
    check_drift(drift, trials=5)


def test_squared_total_variation_passes_plain_does_not() -> None:
    check_drift(TotalVariation(2), kinds=CHOICES)
    with pytest.raises(DriftError, match=r"slope or a kink.*Squaring"):
        check_drift(TotalVariation(1), kinds=CHOICES)


BROKEN: dict[str, tuple[Function, str]] = {
    "negative": (negative, r"is -\d.*reward leaving"),
    "fee": (sloped, r"is -\d.*reward leaving"),
    "entropy": (lambda c: c.old.entropy() - c.new.entropy(), "reward leaving"),
    "far": (lambda c: c.new.kl(c.old) - 2 * c.new.kl(c.old) ** 2, "reward leaving"),
    "not_zero": (lambda c: c.new.kl(c.old) + 0.1, r"0\.1 on average at the old policy itself"),
    "kink": (lambda c: (c.ratio - 1).abs(), "slope or a kink"),
    "small_kink": (lambda c: c.new.kl(c.old) + 1e-3 * (c.ratio - 1).abs(), "slope or a kink"),
    "tiny": (lambda c: 1e-9 * (c.ratio - 1).abs(), "slope or a kink"),
    "detached": (lambda c: c.new.kl(c.old).detach(), "detached"),
    "half_detached": (lambda c: (c.ratio.detach() - 1) * c.log_ratio, "detached"),
    "nan": (lambda c: c.log_ratio / 0, "finite"),
    "squeezed": (lambda c: c.new.kl(c.old).squeeze(-1), r"is \[\d+\].*\[\d+, 1\]"),
    "mean": (lambda c: c.new.kl(c.old).mean(), r"is \[\],"),
    "number": (lambda c: 0.0, "is float"),  # type: ignore[arg-type, return-value]
    "per_dimension": (lambda c: (c.new.mode() - c.old.mode()).double() ** 2, r"is \[\d+, 2\]"),
}


@pytest.mark.parametrize(("drift", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_drifts_are_found(drift: Function, message: str) -> None:
    for kind in ["choices"] if drift is sloped else ["choices", "gaussian"]:
        with pytest.raises(DriftError, match=message):
            check_drift(drift, kinds=[kind])


def test_a_message_says_where() -> None:
    with pytest.raises(DriftError, match=r"for choices with logits \[.*\]; expected"):
        check_drift(negative, kinds=CHOICES)
    with pytest.raises(DriftError, match=r"for a Gaussian with means and σ \[.*\]; expected"):
        check_drift(negative, kinds=["gaussian"])


def test_equal_seeds_check_alike() -> None:
    seen: list[list[Tensor]] = []
    for _ in range(2):
        batches: list[Tensor] = []

        def look(change: PolicyChange, batches: list[Tensor] = batches) -> Tensor:
            batches.append(change.advantage)
            return change.new.kl(change.old)

        check_drift(look, trials=2, seed=3)
        seen.append(batches)
    assert len(seen[0]) == len(seen[1])
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


@dataclass
class Ball:
    """A neighbourhood of any distance."""

    function: Function
    radius: float = 1.0

    def distance(self, change: PolicyChange) -> Tensor:
        return self.function(change)


@pytest.mark.parametrize("ball", [KLBall(0.1), Ball(lambda c: c.new.kl(c.old)), Ball(Tsallis())])
def test_smooth_neighbourhoods_pass(ball: Ball) -> None:
    check_neighbourhood(ball, trials=5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda c: (c.ratio - 1).abs(), "curves by"),
        # a square, but autograd has no second derivative of its root
        (TotalVariation(2), "curves by"),
        (lambda c: c.old.kl(c.new).detach(), "curves by"),
        (lambda c: c.old.kl(c.new) + 1.0, "at the old policy itself"),
        (negative, "reward leaving"),
        (lambda c: c.old.kl(c.new).squeeze(-1), "one number per sample"),
    ],
)
def test_broken_neighbourhoods_are_found(function: Function, message: str) -> None:
    with pytest.raises(DriftError, match=message):
        check_neighbourhood(Ball(function), kinds=CHOICES)


@pytest.mark.parametrize("kinds", ["choices", [], ["discrete"]])
def test_unknown_kinds_are_refused(kinds: Sequence[str]) -> None:
    with pytest.raises(ConfigError, match="choices, gaussian"):
        check_drift(NoDrift(), kinds=kinds)
