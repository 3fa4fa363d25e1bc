"""Values, advantages and the critic's loss."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.nn import functional as F
from torchrl.objectives.value.functional import generalized_advantage_estimate

from hetmarl.objectives.masked import masked_mean
from hetmarl.objectives.reduce import Reduce, identity
from hetmarl.objectives.value_norm import ValueNorm


@torch.no_grad()
def values_and_next(data: TensorDictBase, critic: Any, norm: ValueNorm | None = None) -> Any:
    """Values of a rollout's steps and of what follows each, in raw scale.

    What follows a step is the next one, except where an episode ends or the rollout does: there it
    is the true final observation. Only those few are evaluated besides the rollout.

    Args:
        data: rollout ``[E, T]``.
        critic: ``critic(data) -> [*B, V]``.
        norm: denormalises what the critic puts out.

    Returns:
        Values, the values that follow, both ``[E, T, V]``, and the critic's output ``[E, T, V]``.
    """
    output = critic(data)
    value = output if norm is None else norm.denormalise(output)
    following = torch.roll(value, -1, dims=1)
    ends = data.get(("next", "done")).squeeze(-1).clone()
    ends[:, -1] = True
    last = ends.nonzero(as_tuple=True)  # once: a mask would be looked up for every tensor
    final = critic(data.get("next")[last])
    following[last] = final if norm is None else norm.denormalise(final)
    return value, following, output


def advantages(
    data: TensorDictBase,
    value: Tensor,
    following: Tensor,
    gamma: float,
    gae_lambda: float,
    died: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and value targets, both ``[E, T, V]``.

    Only termination cuts the value that a step bootstraps from; truncation bootstraps from the true
    final observation. Both end the trace (Schulman et al. 2016, arXiv 1506.02438). A value of one
    agent's own ends with its life: what it sees when dead is nothing that its critic learns from.

    Args:
        data: rollout ``[E, T]`` with ``("next", "reward" | "done" | "terminated")``.
        value, following: as of ``values_and_next``.
        gamma, gae_lambda: discount and trace decay per step.
        died: values whose agent does not live after the step ``[E, T, V]``; None: all do.
    """
    after = data.get("next")
    done, terminated = (
        after.get(name).expand(value.shape).contiguous() for name in ("done", "terminated")
    )
    if died is not None:
        done, terminated = done | died, terminated | died
    reward = after.get("reward").to(value.dtype).expand(value.shape).contiguous()
    # numbers of Python's would be rounded to float32 in its products with the flags
    decay = value.new_tensor([gamma, gae_lambda])
    # TorchRL's loop over time; its vectorised form is slower with more than a few environments
    return generalized_advantage_estimate(*decay, value, following, reward, done, terminated)


def standardise(x: Tensor, alive: Tensor | None, reduce: Reduce = identity) -> Tensor:
    """``x [*B, 1]`` with mean 0 and variance 1 over the living samples of all processes."""
    wide = x.double()
    weight = torch.ones_like(wide) if alive is None else alive.double()
    sums = torch.stack([(wide * weight).sum(), (wide.square() * weight).sum(), weight.sum()])
    total, squares, count = reduce(sums)
    count = count.clamp(min=1e-12)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    return ((wide - mean) / (std + 1e-5)).to(x.dtype)


def value_loss(
    prediction: Tensor,
    old: Tensor,
    target: Tensor,
    alive: Tensor | None = None,
    *,
    clip: float | None = 0.2,
    huber_delta: float | None = 10.0,
    reduce: Reduce = identity,
) -> Tensor:
    """How far values are from their targets (scalar), all in the critic's own units.

    max(ℓ(G − V), ℓ(G − clip(V, V_old ± c))), with ℓ Huber's function or half the square.

    Args:
        prediction, old, target: V, V_old, G, ``[N, V]`` (or ``[N, L, V]``).
        alive: samples that count, of the same shape; None: all.
        clip: c; None: no clipping.
        huber_delta: where Huber's function turns linear; None: half the square.
    """

    def distance(value: Tensor) -> Tensor:
        if huber_delta is None:
            return 0.5 * (target - value).square()
        return F.huber_loss(value, target, reduction="none", delta=huber_delta)

    loss = distance(prediction)
    if clip is not None:
        loss = torch.maximum(loss, distance(old + (prediction - old).clamp(-clip, clip)))
    return masked_mean(loss, alive, reduce)
