"""Every on-policy algorithm with gradient steps equals one written out in plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hetmarl.algorithms import HAA2C, HAMDPO, HAPPO, IA2C, IPPO, MAA2C, MAPPO
from hetmarl.engines import UpdateRandomness
from hetmarl_envs.contract import TeamSpec
from tests.algorithms.on_policy_reference import Reference, kl
from tests.on_policy import make, rollout, weights
from tests.teams import HybridEnv

EPSILON, STEP = 0.1, 0.3


def clipped(r: Tensor, m: float, new: Any, old: Any) -> Tensor:
    return torch.minimum(r * m, r.clamp(1 - EPSILON, 1 + EPSILON) * m)


def plain(r: Tensor, m: float, new: Any, old: Any) -> Tensor:
    return r * m


def mirror_new_old(r: Tensor, m: float, new: Any, old: Any) -> Tensor:
    return r * m - kl(new, old) / STEP


def mirror_old_new(r: Tensor, m: float, new: Any, old: Any) -> Tensor:
    return r * m - kl(old, new) / STEP


# learning rates that move ratios out of the clip range, bounds that bite
COMMON = {
    "actor_lr": 0.03,
    "critic_lr": 0.01,
    "epochs": 2,
    "critic_epochs": 2,
    "max_grad_norm": 0.7,
    "value_clip": 0.05,
    "huber_delta": 0.4,
    "gamma": 0.9,
    "gae_lambda": 0.8,
    "entropy_coef": 0.02,
}
CASES = {
    "happo": (HAPPO, clipped, {"clip_epsilon": EPSILON, "minibatches": 2}),
    "haa2c": (HAA2C, plain, {"critic_minibatches": 3}),
    "hamdpo": (HAMDPO, mirror_new_old, {"step_size": STEP}),
    "hamdpo_authors": (
        HAMDPO,
        mirror_old_new,
        {"step_size": STEP, "kl_direction": "old_new", "minibatches": 3},
    ),
    "mappo": (MAPPO, clipped, {"clip_epsilon": EPSILON, "critic_minibatches": 2}),
    "ippo": (IPPO, clipped, {"clip_epsilon": EPSILON, "critic_minibatches": 2}),
    "maa2c": (MAA2C, plain, {"value_clip": None, "max_grad_norm": None}),
    "ia2c": (IA2C, plain, {"huber_delta": None, "epochs": 1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_equals_the_plain_loops(name: str) -> None:
    algorithm, objective, settings = CASES[name]
    one_hot = name in ("haa2c", "ippo")
    env = HybridEnv(num_envs=3, one_hot=one_hot)
    module = make(algorithm, TeamSpec.from_env(env), **COMMON | settings)
    reference = Reference(module, objective, algorithm.sequential)
    for iteration in range(2):
        data = rollout(module, 7, HybridEnv(num_envs=3, one_hot=one_hot), seed=iteration)
        assert not data["panel", "alive"].all() and data["next", "truncated"].any()
        reference.update(data.clone(), UpdateRandomness(4, iteration))
        metrics = module.engine.update(data.clone(), UpdateRandomness(4, iteration))
    assert any(v > 0.2 for k, v in metrics.items() if k.startswith("ratio_deviation"))
    for mine, theirs in zip(module.policy.actors, reference.actors, strict=True):
        torch.testing.assert_close(weights(mine), weights(theirs), rtol=0, atol=1e-10)
    torch.testing.assert_close(weights(module.critic), weights(reference.critic), rtol=0, atol=1e-9)
    norm = module.loss.value_norm
    assert norm is not None
    state = torch.tensor(reference.norm, dtype=torch.float64)
    for column, buffer in zip(state.T, (norm.mean, norm.square, norm.weight), strict=True):
        torch.testing.assert_close(buffer, column, rtol=1e-10, atol=0)
