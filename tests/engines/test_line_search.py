"""A trust region step where derivatives or precision give way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hetmarl.engines import TrustRegionStep


def test_under_autocast_it_sees_the_weights_it_tries() -> None:
    """Autocast keeps casts of weights; the gain of old ones would be 0, and no step be taken."""
    net, x = nn.Linear(3, 2), torch.randn(16, 3)

    def evaluate() -> tuple[Tensor, Tensor]:
        output = net(x).float()
        return output.mean(), (output - start).square().mean()

    with torch.autocast("cpu", torch.bfloat16):
        start = net(x).float().detach()
        found = TrustRegionStep(list(net.parameters()), radius=0.1)(evaluate)
    assert found["step_fraction"] > 0
    assert found["surrogate_gain"] > 0.01


def test_a_derivative_that_is_not_finite_is_told_and_no_step_taken() -> None:
    p = nn.Parameter(torch.zeros(3))

    def evaluate() -> tuple[Tensor, Tensor]:
        return p.sum(), p.abs().pow(1.5).sum()  # its second derivative at 0 is infinite

    found = TrustRegionStep([p], radius=0.1)(evaluate)
    assert not found["curvature"].isfinite()
    assert found["grad_norm"] == torch.ones(3).norm()
    assert found["step_fraction"] == 0
    assert torch.equal(p.detach(), torch.zeros(3))
