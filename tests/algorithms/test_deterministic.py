"""HADDPG, HATD3, MADDPG, MATD3 under the Trainer: schedules, settings, every kind of team."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchrl.envs import ExplorationType, set_exploration_type

from hetmarl.algorithms import (
    HADDPG,
    HASAC,
    HATD3,
    MADDPG,
    MASAC,
    MATD3,
    HATD3Config,
    OffPolicyModule,
)
from hetmarl.data import TeamCollector
from hetmarl.engines import UpdateRandomness
from hetmarl.guards import NonFiniteError
from hetmarl.networks import DeterministicNetworkConfig
from hetmarl_envs import make_env
from hetmarl_envs.errors import ConfigError
from tests.algorithms.fitting import fit
from tests.teams import UNEQUAL, CountingEnv, HybridEnv, batch

SIMULTANEOUS = [pytest.param(m, marks=pytest.mark.slow) for m in (MADDPG, MATD3, MASAC)]


@pytest.mark.slow
@pytest.mark.parametrize("module", [HADDPG, HATD3, HASAC, *SIMULTANEOUS])
def test_trains_teams_with_every_kind_of_action(module: type[OffPolicyModule]) -> None:
    """With masks, deaths and both layouts of choices; the environment refuses illegal ones."""
    make = partial(HybridEnv, death_rate=0.1, one_hot=module.sequential)
    trained = fit(make, module=module, frames=80, evaluate_every=4)
    start = module(trained.spec, trained.config, trained.network, 0)
    for i, name in enumerate(trained.spec.names):
        old, new = (list(m.policy.actors[i].parameters()) for m in (start, trained))
        assert all(p.isfinite().all() for p in new), name
        assert not any(map(torch.equal, old, new)), name
    logged = trained.trainer.logged_metrics
    assert all(torch.isfinite(v) for k, v in logged.items() if "loss" in k)


@pytest.mark.slow
@pytest.mark.parametrize("module", [HADDPG, HATD3])
@pytest.mark.parametrize("random", [False, True])
def test_never_an_illegal_action(module: type[HADDPG], random: bool) -> None:
    """Of living agents, exploring or not; ``HybridEnv`` raises at one."""
    env = HybridEnv(num_envs=20, death_rate=0.2)
    policy = fit(HybridEnv, module=module, frames=30).policy
    kind = ExplorationType.RANDOM if random else ExplorationType.DETERMINISTIC
    with set_exploration_type(kind):
        chunk, _ = TeamCollector(env, policy, seed=0).collect(40, 0)
    assert chunk["valve", "action"].unique().numel() > 1


@pytest.mark.parametrize("module", [HATD3, MATD3])
def test_actors_and_targets_move_at_every_third_gradient_step(module: type[HATD3]) -> None:
    """Counted over iterations; between them not by one bit."""
    agent = module(UNEQUAL, HATD3Config(policy_delay=3), DeterministicNetworkConfig([8]))
    agent.optimizers_of_team()
    moved = []
    for iteration in range(9):
        still = (agent.policy, agent.loss.target_actors, agent.loss.target_critic)
        before = [[p.clone() for p in m.parameters()] for m in still]
        critic = [p.clone() for p in agent.critic.parameters()]
        given = SimpleNamespace(
            learning_steps=1, update_priority=None, sample=lambda *_, **__: batch(UNEQUAL)
        )
        metrics = agent.learn(given, UpdateRandomness(0, iteration))
        changes = [
            not all(map(torch.equal, old, list(m.parameters())))
            for old, m in zip(before, still, strict=True)
        ]
        assert len(set(changes)) == 1
        assert not any(map(torch.equal, critic, list(agent.critic.parameters())))
        assert ("loss_actor/body" in metrics) == changes[0]
        moved.append(changes[0])
    assert moved == [False, False, True] * 3


def test_settings_reach_loss_engine_and_actors() -> None:
    config = HATD3Config(actor_lr=0.1, critic_lr=0.2, policy_noise=0.3, noise_clip=0.4, polyak=0.5)
    network = DeterministicNetworkConfig([8], exploration_noise=0.6)
    module = HATD3(UNEQUAL, config, network)
    rates = [o.param_groups[0]["lr"] for o in module.optimizers_of_team()]
    assert rates == [0.2, 0.1, 0.1, 0.1]
    assert (module.loss.policy_noise, module.loss.noise_clip) == (0.3, 0.4)
    assert {actor.exploration_noise for actor in module.policy.actors} == {0.6}
    assert len(module.critic.values) == 2 and module.engine.sequential
    plain = HADDPG(UNEQUAL)
    assert plain.loss.policy_noise == 0 and len(plain.critic.values) == 1
    assert [m(UNEQUAL).sequential for m in (MADDPG, MATD3)] == [False, False]
    assert all(map(plain.moves_actors, range(1, 10)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy_delay": 0}, "algo.policy_delay=0: expected 1 or more"),
        ({"policy_noise": -0.1}, "algo.policy_noise=-0.1: expected 0 or more"),
        ({"noise_clip": float("nan")}, "algo.noise_clip=nan: expected 0 or more"),
        ({"gamma": 2.0}, "algo.gamma=2.0: expected 0 < gamma <= 1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HATD3Config(**settings)


def test_a_non_finite_loss_is_named(tmp_path: Path) -> None:
    class Spoilt(HATD3):
        def learn(self, batch: Any, randomness: Any) -> dict[str, Tensor]:
            actor = self.loss.actor

            def poisoned(data: Any, agent: int, *rest: Any) -> Tensor:
                value = actor(data, agent, *rest)
                return value * float("nan") if agent == 1 and self.iteration == 4 else value

            self.loss.actor = poisoned  # type: ignore[method-assign]
            try:
                return super().learn(batch, randomness)
            finally:
                self.loss.actor = actor  # type: ignore[method-assign]

    with pytest.raises(NonFiniteError, match="NaN in loss_actor of agent 'narrow' at frame 40"):
        fit(CountingEnv, tmp_path, module=Spoilt)


def returns(module: type[OffPolicyModule], task: str, frames: int) -> float:
    """Return of the greedy policy of a one-step game after so many frames."""
    make = partial(make_env, task)
    trained = fit(
        make,
        module=module,
        frames=frames,
        num_envs=10,
        config={"batch_size": 64, "n_step": 1, "updates_per_step": 1.0, "critic_lr": 5e-3}
        | {"actor_lr": 2e-3},
        data_config={"warmup_frames": 500, "buffer_size": frames, "frames_per_batch": 50},
        network={"hidden_sizes": [32]},
        evaluate_every=frames // 50,
    )
    env = make(num_envs=1)
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        data = env.step(trained.policy(env.reset()))
    return data["next", "reward"].item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "task", "least"), [(HADDPG, "games/xor", 1.0), (HATD3, "games/climbing", 5.0)]
)
def test_choices_find_an_equilibrium(module: type[HADDPG], task: str, least: float) -> None:
    """From which no agent gains alone: in climbing 11 or 7, or 5 and 6 on the way there."""
    assert returns(module, task, 8_000) >= least
