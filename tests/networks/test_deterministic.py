"""Deterministic actors: where they act, how they explore, what target actors put out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchrl.envs import ExplorationType, set_exploration_type

import hetmarl
from hetmarl.algorithms import HADDPG
from hetmarl.networks import (
    DeterministicActor,
    DeterministicChoiceActor,
    DeterministicNetworkConfig,
    GumbelActor,
    NetworkConfig,
    TeamPolicy,
    make_deterministic_actor,
)
from hetmarl_envs.contract import ActionSpace, AgentSpec
from hetmarl_envs.errors import ConfigError
from tests.algorithms.fitting import fit
from tests.teams import MIXED, HybridEnv, agent, batch

LOW, HIGH = torch.tensor([-1.0, 0.0, -3.0]).double(), torch.tensor([1.0, 5.0, -2.5]).double()
SMALL = DeterministicNetworkConfig([8], exploration_noise=0.3)


def continuous(**settings: Any) -> DeterministicActor:
    spec = agent("a", "g", 0, 4, LOW.tolist(), HIGH.tolist())
    actor = make_deterministic_actor(spec, SMALL)
    assert isinstance(actor, DeterministicActor)
    return actor.double()


def choices() -> DeterministicChoiceActor:
    space = ActionSpace("multi_discrete", choices=(3, 2))
    actor = make_deterministic_actor(AgentSpec("a", "g", 0, (4,), space), SMALL)
    assert isinstance(actor, DeterministicChoiceActor)
    return actor.double()


def constant(value: float) -> Any:
    return lambda like: torch.full_like(like, value)


def test_action_is_the_networks_output_squashed_into_the_bounds() -> None:
    actor, observation = continuous(), torch.randn(6, 4, dtype=torch.float64)
    expected = (LOW + HIGH) / 2 + (HIGH - LOW) / 2 * actor.net(observation).tanh()
    sample = actor.sample(observation, lambda _: pytest.fail("draws noise"))
    torch.testing.assert_close(sample.action, expected)
    assert sample.log_prob is None and sample.action.requires_grad
    assert torch.equal(actor.act(observation, None)[0], sample.action)


@pytest.mark.parametrize("draw", [-1.5, 0.4, 100.0])
def test_explores_in_half_widths_and_stops_at_the_bounds(draw: float) -> None:
    actor, observation = continuous(), torch.randn(6, 4, dtype=torch.float64)
    noisy = actor(observation) + 0.3 * draw * (HIGH - LOW) / 2
    acted, memory = actor.act(observation, constant(draw))
    torch.testing.assert_close(acted, torch.minimum(torch.maximum(noisy, LOW), HIGH))
    assert memory is None and (draw != 100 or torch.equal(acted, HIGH.expand(6, 3)))


def test_in_single_precision_no_bound_is_passed_by_a_bit() -> None:
    actor = make_deterministic_actor(agent("a", "g", 0, 1, [-0.1], [0.7]), SMALL)
    for draw in (-1e6, 1e6):
        acted, _ = actor.act(torch.randn(5, 1), constant(draw))
        assert ((acted >= torch.tensor(-0.1)) & (acted <= torch.tensor(0.7))).all()


@pytest.mark.parametrize("draw", [-1.0, -9.0, 0.5, 9.0])
def test_smoothing_is_clipped_first_and_bounded_then(draw: float) -> None:
    actor, observation = continuous(), torch.randn(6, 4, dtype=torch.float64)
    offset = max(-0.5, min(0.5, 0.2 * draw)) * (HIGH - LOW) / 2
    expected = torch.minimum(torch.maximum(actor(observation) + offset, LOW), HIGH)
    smoothed = actor.smoothed(observation, constant(draw), 0.2, 0.5)
    torch.testing.assert_close(smoothed, expected)
    plain = actor.smoothed(observation, lambda _: pytest.fail("draws noise"), 0.0, 0.5)
    assert torch.equal(plain, actor(observation))


def test_choices_are_gumbel_draws_and_their_mode() -> None:
    actor, observation = choices(), torch.randn(7, 4, dtype=torch.float64)
    normal = torch.randn(7, 5, dtype=torch.float64)
    mask = torch.rand(7, 5) < 0.6
    mask[:, 0] = mask[:, 4] = True

    def whole(like: Tensor) -> Tensor:
        return normal

    sample = actor.sample(observation, whole, mask)
    theirs = GumbelActor.sample(actor, observation, whole, mask)
    assert torch.equal(sample.action, theirs.action) and sample.log_prob is None
    assert sample.action.requires_grad
    drawn = actor.smoothed(observation, whole, 0.2, 0.5, mask)
    torch.testing.assert_close(drawn, sample.action.detach(), atol=1e-12, rtol=0)
    acted, _ = actor.act(observation, whole, mask)
    parts = drawn.split([3, 2], -1)
    assert torch.equal(acted, torch.stack([p.argmax(-1) for p in parts], -1))
    mode, _ = actor.act(observation, None, mask)
    best = [part.argmax(-1) for part in actor(observation, mask).split([3, 2], -1)]
    assert torch.equal(mode, torch.stack(best, -1))
    target = actor.smoothed(observation, lambda _: pytest.fail("draws"), 0.0, 0.5, mask)
    assert torch.equal(
        torch.stack([p.argmax(-1) for p in target.split([3, 2], -1)], -1), mode
    ) and torch.equal(target.sum(-1), torch.full((7,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.0, 0.2])
def test_target_choices_are_legal(scale: float) -> None:
    actor, observation = choices(), torch.randn(2_000, 4, dtype=torch.float64)
    mask = torch.rand(2_000, 5) < 0.5
    mask[:, 1] |= ~mask[:, :3].any(-1)
    mask[:, 3] |= ~mask[:, 3:].any(-1)
    hot = actor.smoothed(observation, torch.randn_like, scale, 0.5, mask)
    assert not (hot * ~mask).any() and torch.equal(hot.sum(-1), torch.full_like(hot[:, 0], 2.0))


def test_team_of_both_kinds_explores_and_evaluates() -> None:
    policy, data = TeamPolicy(MIXED, DeterministicNetworkConfig([8])), batch(MIXED, masks=True)
    kinds = [type(actor).__name__ for actor in policy.actors]
    choice = "DeterministicChoiceActor"
    assert kinds == [choice, "DeterministicActor", choice, choice]
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        first = policy(data.clone())
        assert torch.equal(first["arm", "action"], policy(data.clone())["arm", "action"])
        assert torch.equal(first["panel", "action"], policy(data.clone())["panel", "action"])
    with set_exploration_type(ExplorationType.RANDOM):
        gap = policy(data.clone())["arm", "action"] - first["arm", "action"]
    assert 0 < gap.abs().max() < 5 * 0.1 * 2.5


def test_policy_of_a_checkpoint(tmp_path: Path) -> None:
    """The networks' class is found by its name, and not the target actors are taken."""
    module = fit(HybridEnv, tmp_path, module=HADDPG)
    policy = hetmarl.load_policy(tmp_path / "checkpoints" / "last.ckpt")
    for mine, loaded, target in zip(
        module.policy.actors, policy.actors, module.loss.target_actors, strict=True
    ):
        assert type(mine) is type(loaded)
        pairs = list(zip(mine.parameters(), loaded.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in pairs)
        assert not torch.equal(next(mine.parameters()), next(target.parameters()))


def test_settings() -> None:
    config = DeterministicNetworkConfig()
    assert (config.hidden_sizes, config.exploration_noise) == ([128, 128], 0.1)
    assert DeterministicNetworkConfig(**config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"network.exploration_noise=-0.1: expected 0 or more"):
        DeterministicNetworkConfig(exploration_noise=-0.1)
    with pytest.raises(ConfigError, match="HADDPG expects a DeterministicNetworkConfig"):
        HADDPG(MIXED, network=NetworkConfig([8]))
    with pytest.raises(ConfigError, match="agent 'a': squashed actions need finite action bounds"):
        make_deterministic_actor(agent("a", "g", 0, 4, [0.0], [float("inf")]), SMALL)
