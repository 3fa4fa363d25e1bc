"""The matrix products that HASAC and HAPPO cannot do without, written bare.

They are counted from the algorithms (Liu et al. 2024, algorithm 1; Zhong et al. 2024, algorithm 1),
not from this implementation: no product that a gradient does not need, none twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from hetmarl.networks import NetworkConfig, OnPolicyNetworkConfig
from hetmarl_envs.contract import TeamSpec

Product = tuple[int, int, int]
"""Rows, inner size, columns: ``[M, K] @ [K, N]``."""
Layers = list[tuple[int, int]]


def layers(inputs: int, outputs: int, network: NetworkConfig) -> Layers:
    """(inputs, outputs) of every layer of a multilayer perceptron."""
    widths = [inputs, *network.hidden_sizes, outputs]
    return list(pairwise(widths))


def forward(net: Layers, batch: int) -> list[Product]:
    return [(batch, k, n) for k, n in net]


def backward(net: Layers, batch: int) -> list[Product]:
    """Gradients of all weights, and of the inputs of all layers but the first."""
    return [(n, batch, k) for k, n in net] + [(batch, n, k) for k, n in net[1:]]


def acting(spec: TeamSpec, network: NetworkConfig, envs: int) -> list[Product]:
    """One vector step of everybody."""
    return [product for net in actors(spec, network) for product in forward(net, envs)]


def actors(spec: TeamSpec, network: NetworkConfig) -> list[Layers]:
    return [
        layers(sum(agent.observation_shape), 2 * agent.action.dim, network) for agent in spec.agents
    ]


def gradient_step(spec: TeamSpec, network: NetworkConfig, batch: int) -> list[Product]:
    """One gradient step of everybody."""
    team = actors(spec, network)
    dims = [agent.action.dim for agent in spec.agents]
    q = layers(spec.critic_dim + sum(dims), 1, network)
    products: list[Product] = []
    # the target: next actions, target critics; then the critics forward and back
    products += [product for net in team for product in forward(net, batch)]
    products += 2 * forward(q, batch)
    products += 2 * (forward(q, batch) + backward(q, batch))
    # every actor: its action, through both critics and back to it, through the actor
    for net, dim in zip(team, dims, strict=True):
        products += forward(net, batch)
        products += 2 * forward(q, batch)
        products += 2 * [(batch, n, k) for k, n in q[1:]] + 2 * [(batch, q[0][1], dim)]
        products += backward(net, batch)
    # everybody but the last once more, from the updated policy
    return products + [product for net in team[:-1] for product in forward(net, batch)]


def happo_update(
    spec: TeamSpec, network: OnPolicyNetworkConfig, frames: int, epochs: int
) -> list[Product]:
    """One update of everybody on a rollout: old policies and values, epochs, ratios."""
    nets = [
        layers(sum(agent.observation_shape), agent.action.dim, network) for agent in spec.agents
    ]
    nets.append(layers(spec.critic_dim, 1, network))
    products: list[Product] = []
    for net in nets:
        # an actor's first epoch starts from the old policy; its ratio is taken from the new one
        products += epochs * (forward(net, frames) + backward(net, frames)) + forward(net, frames)
    return products


def operations(products: Sequence[Product]) -> int:
    """Floating-point operations."""
    return sum(2 * m * k * n for m, k, n in products)


def bare(products: Sequence[Product], library: str) -> Callable[[], None]:
    """Does the products one after another, on matrices of their own.

    Args:
        products: their sizes.
        library: ``"torch"``, PyTorch's ``mm``; ``"onednn"``, the operator of
            ``hetmarl.networks.Linear``.
    """
    matrices: list[tuple[Tensor, Tensor]] = [
        (torch.randn(m, k), torch.randn(n, k)) for m, k, n in products
    ]
    onednn = torch.ops.mkldnn._linear_pointwise

    @torch.no_grad()
    def run() -> None:
        if library == "torch":
            for x, weight in matrices:
                torch.mm(x, weight.t())
        else:
            for x, weight in matrices:
                onednn(x, weight, None, "none", [], "")

    return run
