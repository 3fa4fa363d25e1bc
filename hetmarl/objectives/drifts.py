"""Drifts and neighbourhoods of mirror learning: what a new member is made of.

One agent's update is

    πⁱ ← argmax over π in U(πⁱ_old) of E[r·M] − E[D(π | πⁱ_old, predecessors)]

with the ratio r = π(aⁱ|oⁱ)/πⁱ_old(aⁱ|oⁱ) and M the advantage weighted by the ratios of the agents
before (HAML; Zhong et al. 2024, arXiv 2304.09870, definitions 3 and 4, algorithm 1). A *drift* D is
a function of a ``PolicyChange``; a *neighbourhood* U says how far a policy may go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from hetmarl.networks.distributions import ActionDistribution
from hetmarl_envs.errors import ConfigError


class PolicyChange(NamedTuple):
    """One agent at its turn, on a batch ``[*B]``.

    Args:
        new: the policy being optimised, with gradient.
        old: the policy that it starts from, without; on-policy the one that collected the data.
        log_ratio: log r ``[*B, 1]``, with gradient.
        advantage: M ``[*B, 1]``, the factor of the predecessors in it.
        alive: samples that count ``[*B, 1]``; None: all.
    """

    new: ActionDistribution
    old: ActionDistribution
    log_ratio: Tensor
    advantage: Tensor
    alive: Tensor | None = None

    @property
    def ratio(self) -> Tensor:
        """r ``[*B, 1]``: the product over all action dimensions."""
        return self.log_ratio.exp()


class Drift(Protocol):
    """A cost of change D, ``[*B, 1]`` per sample; its mean over living samples is subtracted.

    Its expectation must be non-negative, and zero with zero gradient where new and old are equal:
    ``hetmarl.objectives.check_drift`` verifies that.
    """

    def __call__(self, change: PolicyChange) -> Tensor: ...


class NoDrift:
    """D = 0: HAA2C, HATRPO."""

    def __call__(self, change: PolicyChange) -> Tensor:
        return torch.zeros_like(change.log_ratio)


@dataclass
class ClipDrift:
    """D = ReLU(r·M − clip(r, 1 ± ε)·M): HAPPO, as r·M − D = min(r·M, clip(r, 1 ± ε)·M).

    (arXiv 2304.09870, section 4.1.3.)

    Args:
        epsilon: ε, .05 to .3.
    """

    epsilon: float = 0.2

    def __call__(self, change: PolicyChange) -> Tensor:
        ratio, advantage = change.ratio, change.advantage
        clipped = ratio.clamp(1 - self.epsilon, 1 + self.epsilon)
        return (ratio * advantage - clipped * advantage).relu()


Direction = Literal["new_old", "old_new"]


@dataclass
class KLDrift:
    """D = KL/t: HAMDPO (Nasiri & Rezghi 2023, arXiv 2308.06741; Tomar et al. 2022, 2005.09814).

    Args:
        step_size: t, the larger the freer; may be set anew each iteration.
        direction: ``"new_old"``, KL(new ‖ old), as in MDPO, or ``"old_new"``.
    """

    step_size: float = 1.0
    direction: Direction = "new_old"

    def __post_init__(self) -> None:
        if not self.step_size > 0:
            raise ConfigError(f"step_size={self.step_size}: expected more than 0.")
        if self.direction not in get_args(Direction):
            raise ConfigError(
                f"direction='{self.direction}': expected one of {', '.join(get_args(Direction))}."
            )

    def __call__(self, change: PolicyChange) -> Tensor:
        new, old = change.new, change.old
        kl = new.kl(old) if self.direction == "new_old" else old.kl(new)
        return kl / self.step_size


class Neighbourhood(Protocol):
    """How far a policy may go: the mean of ``distance`` over living samples, at most ``radius``.

    ``hetmarl.objectives.check_neighbourhood`` verifies what ``distance`` says of itself.
    """

    radius: float

    def distance(self, change: PolicyChange) -> Tensor:
        """``[*B, 1]``, twice differentiable; zero with zero gradient where new and old agree."""
        ...


@dataclass
class KLBall:
    """U = {π: mean KL(old ‖ π) ≤ δ}: HATRPO (Kuba et al. 2022, arXiv 2109.11251, equation 10).

    Args:
        radius: δ in nats, .001 to .02.
    """

    radius: float = 0.01

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ConfigError(f"radius={self.radius}: expected more than 0.")

    def distance(self, change: PolicyChange) -> Tensor:
        return change.old.kl(change.new)
