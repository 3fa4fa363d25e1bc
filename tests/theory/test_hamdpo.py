"""HAMDPO: with its divergence and without, the number of gradient steps, the step sizes."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from hetmarl.algorithms import HAMDPO, HAMDPOConfig
from hetmarl.data import TeamCollector
from hetmarl.data.rollout_data import RolloutBatch
from hetmarl.engines import (
    EnumeratedTeam,
    GradientEpochs,
    GradientStep,
    TableActor,
    UpdateRandomness,
)
from hetmarl.networks import OnPolicyNetworkConfig
from hetmarl.objectives import KLDrift
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.games.garnet import random_game

GAME = random_game(3, (3, 3), density=1.0, termination=0.0, seed=4)
STEP_SIZE = 2.0


def start() -> list[TableActor]:
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return [TableActor(logits.softmax(-1)) for logits in drawn]


def closed_form() -> list[torch.Tensor]:
    """π ∝ π_old·exp(t·E[M | s, a]), agent after agent in team order."""
    old = [actor.logits.detach().softmax(-1) for actor in start()]
    new = list(old)
    for agent in range(2):
        # E over the others' new policies of A(s, a) of the old ones is E[M | s, a]
        others = [1 - agent]
        mean = GAME.average(GAME.advantages(old, 0.9), new, others)
        new[agent] = (old[agent].log() + STEP_SIZE * mean).softmax(-1)
    return new


def after(steps: int, step_size: float) -> list[torch.Tensor]:
    """The team after one iteration with so many gradient steps per agent."""

    def update(parameters: list[nn.Parameter]) -> GradientEpochs:
        step = GradientStep(parameters, torch.optim.SGD(parameters, lr=8.0))
        return GradientEpochs(step, steps, 1)

    team = EnumeratedTeam(GAME, KLDrift(step_size), actors=start(), update=update, fixed_order=True)
    team.step()
    return team.policies


def distance(policies: list[torch.Tensor]) -> float:
    pairs = zip(policies, closed_form(), strict=True)
    return max((found - expected).abs().max().item() for found, expected in pairs)


def test_the_argmax_is_a_multiplicative_step() -> None:
    team = EnumeratedTeam(GAME, KLDrift(STEP_SIZE), actors=start(), fixed_order=True)
    team.step()
    assert distance(team.policies) < 1e-4


def test_gradient_steps_come_closer_to_it() -> None:
    """The first one is blind to the divergence, whose gradient is zero at the old policy."""
    distances = [distance(after(steps, STEP_SIZE)) for steps in (1, 5, 50)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.1 * distances[0]
    for with_it, without in zip(after(1, STEP_SIZE)[:1], after(1, math.inf)[:1], strict=True):
        torch.testing.assert_close(with_it, without, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_without_the_divergence_each_step_goes_further() -> None:
    """Entropy falls towards 0 with the number of steps; with it, it stays at the closed form's."""

    def entropy(policies: list[torch.Tensor]) -> float:
        return torch.special.entr(policies[0]).sum(-1).mean().item()

    bare = [entropy(after(steps, math.inf)) for steps in (10, 50, 250)]
    held = [entropy(after(steps, STEP_SIZE)) for steps in (10, 50, 250)]
    assert bare == sorted(bare, reverse=True)
    assert bare[-1] < 0.05 < entropy(closed_form())
    assert held[-1] == pytest.approx(entropy(closed_form()), abs=0.01)


def changes_of(config: HAMDPOConfig, iterations: int = 6) -> list[float]:
    """Mean KL(old ‖ new) of each iteration of the real algorithm on a small game."""
    make = partial(make_env, "games/markov", actions=[3, 3], game_seed=4)
    env = make(num_envs=16, seed=0)
    network = OnPolicyNetworkConfig(hidden_sizes=[16])
    module = HAMDPO(TeamSpec.from_env(env), config, network)
    module.optimizers_of_team()
    collector = TeamCollector(env, module.policy, seed=0)
    found = []
    for k in range(iterations):
        data, episodes = collector.collect(16, k)
        batch = RolloutBatch(256, data, episodes, iterations)
        metrics = module.learn(batch, UpdateRandomness(0, k))
        module.iteration += 1
        found.append(sum(metrics[f"kl/{name}"].item() for name in module.spec.names))
    return found


def test_the_divergence_bounds_what_many_sampled_steps_do() -> None:
    settings = {"actor_lr": 0.02, "epochs": 30, "step_size_anneal": False}
    held = changes_of(HAMDPOConfig(step_size=0.3, **settings), 3)
    bare = changes_of(HAMDPOConfig(step_size=math.inf, **settings), 3)
    assert max(held) < 0.1 * max(bare)


@pytest.mark.slow
def test_annealed_step_sizes_end_in_small_changes() -> None:
    """t_k = t(1 − k/K): the last of K changes is that of a K-th of the step size."""
    settings = {"actor_lr": 0.02, "epochs": 20, "step_size": 0.3}
    constant = changes_of(HAMDPOConfig(step_size_anneal=False, **settings))
    annealed = changes_of(HAMDPOConfig(step_size_anneal=True, **settings))
    assert annealed[0] == constant[0]
    assert annealed[-1] < 0.3 * constant[-1]
