"""One step within a trust region: conjugate gradient, then a backtracking line search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hetmarl.objectives.reduce import Reduce, identity
from hetmarl_envs.errors import ConfigError

Vector = Callable[[Tensor], Tensor]
Evaluate = Callable[[], tuple[Tensor, Tensor]]


@dataclass
class TrustRegionConfig:
    """How the step is searched; defaults are HARL's."""

    cg_iterations: int = 10
    """Conjugate gradient iterations at most."""
    cg_tolerance: float = 1e-10
    """Squared residual at which they stop."""
    damping: float = 0.1
    """Added to the Hessian's diagonal, 0 to .1."""
    backtracks: int = 10
    """Line search: steps tried."""
    decay: float = 0.8
    """Line search: each step's length in that of the one before, in (0, 1)."""
    accept_ratio: float = 0.5
    """Line search: least share of the expected improvement."""

    def __post_init__(self) -> None:
        allowed = {
            "cg_iterations": (self.cg_iterations >= 1, "at least 1"),
            "cg_tolerance": (self.cg_tolerance >= 0, "0 or more"),
            "damping": (self.damping >= 0, "0 or more"),
            "backtracks": (self.backtracks >= 1, "at least 1"),
            "decay": (0 < self.decay < 1, "0 < decay < 1"),
            "accept_ratio": (0 <= self.accept_ratio < 1, "0 <= accept_ratio < 1"),
        }
        for name, (fits, expected) in allowed.items():
            if not fits:
                raise ConfigError(f"algo.search.{name}={getattr(self, name)}: expected {expected}.")


class TrustRegionStep:
    """Ascends a surrogate while a distance from the old policy stays below a radius.

    With g = ∇surrogate and H the Hessian of the mean distance at the old policy, x ≈ H⁻¹g by
    conjugate gradient; from the full step √(2δ / xᵀHx)·x backwards, the first one is taken whose
    distance is below δ, and whose improvement is positive and at least ``accept_ratio`` of g·step;
    none: everything stays (Kuba et al. 2022, arXiv 2109.11251, appendix; Schulman et al. 2015,
    arXiv 1502.05477, appendix C).

    Args:
        parameters: those of the agent.
        radius: δ.
        config: of the search.
        reduce: averages over the processes; gradient, Hessian-vector products, and the scalars of
            the line search go through it, so that all take the same step.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        radius: float,
        config: TrustRegionConfig | None = None,
        reduce: Reduce = identity,
    ) -> None:
        self.parameters = list(parameters)
        self.radius = radius
        self.config = config or TrustRegionConfig()
        self.reduce = reduce

    def __call__(self, evaluate: Evaluate, measure: Evaluate | None = None) -> dict[str, Tensor]:
        """One step.

        Args:
            evaluate: surrogate and mean distance (scalars) of the parameters as they are, to be
                differentiated.
            measure: those that the line search decides on, without gradient, where it shall see
                more than what is differentiated; None: ``evaluate``'s.

        Returns:
            Scalars: ``surrogate_gain``, ``distance``, ``step_fraction`` (0: none was taken),
            ``grad_norm`` of g, and ``curvature``, xᵀHx: not finite where a derivative is not, of
            which no step is taken.
        """
        surrogate, distance = evaluate()
        g = self._flat(torch.autograd.grad(surrogate, self.parameters, retain_graph=True))
        slopes = torch.autograd.grad(distance, self.parameters, create_graph=True)
        flat_slope = torch.cat([s.reshape(-1) for s in slopes])

        def hessian_vector(v: Tensor) -> Tensor:
            product = torch.autograd.grad(flat_slope @ v, self.parameters, retain_graph=True)
            return self._flat(product) + self.config.damping * v

        x = conjugate_gradient(
            hessian_vector, g, self.config.cg_iterations, self.config.cg_tolerance
        )
        curvature = x @ hessian_vector(x)
        if measure is not None:
            with torch.no_grad():
                surrogate, _ = measure()
        measure = measure or evaluate
        before = self.reduce(surrogate.detach().clone())
        start = nn.utils.parameters_to_vector(self.parameters).detach().clone()
        zero = before.new_zeros(())
        found = {"surrogate_gain": zero, "distance": zero, "step_fraction": zero}
        found |= {"grad_norm": g.norm(), "curvature": curvature}
        if not curvature > 0:  # no gradient, or no direction
            return found
        step = (2 * self.radius / curvature).sqrt() * x
        expected = g @ step
        fraction = 1.0
        for _ in range(self.config.backtracks):
            self._put(start + fraction * step)
            with torch.no_grad():
                after, now = (self.reduce(value.clone()) for value in measure())
            gain = after - before
            enough = gain / (fraction * expected) > self.config.accept_ratio
            if (now < self.radius) & (gain > 0) & enough:
                taken = before.new_tensor(fraction)
                found |= {"surrogate_gain": gain, "distance": now, "step_fraction": taken}
                return found
            fraction *= self.config.decay
        self._put(start)
        return found

    def _flat(self, gradients: Sequence[Tensor]) -> Tensor:
        return self.reduce(torch.cat([g.reshape(-1) for g in gradients]).detach())

    def _put(self, vector: Tensor) -> None:
        with torch.no_grad():
            for parameter, part in zip(
                self.parameters,
                vector.split([p.numel() for p in self.parameters]),
                strict=True,
            ):
                parameter.copy_(part.view_as(parameter))
        torch.clear_autocast_cache()  # else autocast goes on with casts of the old weights


def conjugate_gradient(
    product: Vector, b: Tensor, iterations: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """x with A·x ≈ b for a symmetric positive definite A, given as ``product(v) = A·v``.

    Always as many products: to ask whether the residual is small already would wait for the device
    at each of them. From there on x stays.

    Args:
        product: of a vector ``[P]``.
        b: right-hand side ``[P]``.
        iterations: at most.
        tolerance: squared residual at which it stops.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, squared = residual.clone(), residual @ residual
    going = ~(squared < tolerance)  # NaN goes on, and is found in the end
    for _ in range(iterations):
        along = product(direction)
        length = torch.where(going, squared / (direction @ along), 0.0)
        x += length * direction
        residual -= length * along
        following = residual @ residual
        direction = residual + torch.where(going, following / squared, 0.0) * direction
        squared, going = following, going & ~(following < tolerance)
    return x
