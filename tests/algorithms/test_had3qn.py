"""HAD3QN trains: ε, legality, games solved, the order of updates, one agent, checkpoints."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torchrl.envs import ExplorationType, set_exploration_type

import hetmarl
from hetmarl.algorithms import HAD3QN, HAD3QNConfig
from hetmarl.algorithms.schedule import scheduled
from hetmarl.data import Replay, TeamCollector
from hetmarl.data.replay_data import ReplayBatch
from hetmarl.engines import UpdateRandomness, stream
from hetmarl.networks import GreedyNetworkConfig, NetworkConfig
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.errors import ConfigError
from hetmarl_envs.games.garnet import random_game
from hetmarl_envs.games.table_env import TableEnv
from hetmarl_envs.games.tabular import TabularGame
from tests.algorithms.fitting import fit
from tests.choosing import ALONE, CHOOSERS, ChoosingEnv, replayed
from tests.teams import UNEQUAL

LINEAR = {"epsilon": 0.8, "epsilon_final": 0.2, "epsilon_decay_frames": 40}


def make(spec: TeamSpec, **config: Any) -> HAD3QN:
    """In double, its engine built."""
    module = HAD3QN(spec, HAD3QNConfig(**config), GreedyNetworkConfig([8, 6])).double()
    module.optimizers_of_team()
    return module


# ---------------------------------------------------------------------- training
class Watch(Callback):
    """ε of every actor while each chunk is collected, and what is logged after it."""

    def __init__(self) -> None:
        self.acting: list[float] = []
        self.logged: list[float] = []

    def on_train_batch_start(self, trainer: Any, module: HAD3QN, *_: Any) -> None:
        found = {actor.epsilon.item() for actor in module.policy.actors}
        assert len(found) == 1
        self.acting += found

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.logged.append(trainer.logged_metrics["train/epsilon"].item())


def test_a_masked_team_trains_with_a_falling_epsilon() -> None:
    """The environment asserts that no action is illegal; 10 frames an iteration."""
    watch = Watch()
    module = fit(ChoosingEnv, module=HAD3QN, config=LINEAR, callbacks=(watch,))
    # what the batch at hand was collected with: ε at the frames before it
    assert watch.acting == pytest.approx([0.8, 0.65, 0.5, 0.35, 0.2, 0.2])
    assert watch.logged == pytest.approx([0.65, 0.5, 0.35, 0.2, 0.2, 0.2])
    start = HAD3QN(module.spec, module.config, module.network, 0)
    for old, new in zip(start.policy.actors, module.policy.actors, strict=True):
        assert not torch.equal(next(old.parameters()), next(new.parameters()))


@pytest.mark.slow
def test_same_seed_same_bits() -> None:
    a, b, c = (fit(ChoosingEnv, module=HAD3QN, config=LINEAR, seed=s) for s in (0, 0, 1))
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))
    assert not all(map(torch.equal, a.state_dict().values(), c.state_dict().values()))


def test_a_coin_per_agent_and_environment() -> None:
    """Who deviates from the greedy joint action: each one by itself, with probability ε·3/4."""
    env = make_env("games/matrix", num_envs=4000, matrix=torch.zeros(4, 4).tolist())
    module = make(TeamSpec.from_env(env), epsilon=0.4)
    collector = TeamCollector(env, module.policy, seed=0)
    chunk, _ = collector.collect(1, 0)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        greedy = module.policy(env.reset())["agents", "action"]
    other = (chunk["agents", "action"][:, 0] != greedy).double()
    assert other.mean(0).tolist() == pytest.approx([0.3, 0.3], abs=0.03)
    assert other.prod(-1).mean().item() == pytest.approx(0.09, abs=0.02)


@pytest.mark.parametrize(
    ("shape", "middle"), [("linear", 0.55), ("exponential", 0.31622776601683794)]
)
def test_schedules(shape: str, middle: float) -> None:
    at = partial(scheduled, 1.0, 0.1, decay_frames=100, shape=shape)
    values = [at(frames=f) for f in (0, 50, 100, 1000)]
    assert values == pytest.approx([1.0, middle, 0.1, 0.1])
    assert scheduled(1.0, 0.1, 0, 0) == 0.1


# ---------------------------------------------------------------------- refusals
def test_continuous_teams_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"agent 'left' acts by 2 real numbers.*algo=hasac"):
        HAD3QN(UNEQUAL)
    with pytest.raises(ConfigError, match="expects a GreedyNetworkConfig"):
        HAD3QN(CHOOSERS, network=NetworkConfig([8]))


@pytest.mark.parametrize(
    ("key", "value"), [("epsilon", 1.1), ("epsilon_final", -0.1), ("epsilon_decay_frames", -1)]
)
def test_settings_out_of_range(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"algo.{key}={value}: expected"):
        HAD3QNConfig(**{key: value})


# ---------------------------------------------------------------------- checkpoints
def test_policy_of_a_checkpoint(tmp_path: Path) -> None:
    module = fit(ChoosingEnv, tmp_path, module=HAD3QN, config=LINEAR)
    policy = hetmarl.load_policy(tmp_path / "checkpoints" / "last.ckpt")
    data = ChoosingEnv().reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        expected = module.policy(data.clone())
        for group in ("valve", "panel"):
            found = policy(data.clone())[group, "action"]
            assert torch.equal(found, expected[group, "action"])
    assert policy.actors[0].epsilon.item() == pytest.approx(0.2)
    loaded = HAD3QN.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert loaded.config == module.config and loaded.network == module.network


# ---------------------------------------------------------------------- games
def learn(
    env: Any, iterations: int, *, seed: int = 0, lr: float = 1e-2, gamma: float = 0.9
) -> HAD3QN:
    """Without Lightning: 4 vector steps and 8 gradient steps an iteration, all actions random."""
    spec = TeamSpec.from_env(env)
    config = HAD3QNConfig(
        gamma=gamma, batch_size=128, updates_per_step=2.0, polyak=0.1, actor_lr=lr, critic_lr=lr
    )
    module = HAD3QN(spec, config, GreedyNetworkConfig([16]), seed)
    module.optimizers_of_team()
    collector = TeamCollector(env, module.policy, seed=seed)
    replay = None
    for k in range(iterations):
        chunk, episodes = collector.collect(4, k, random=True)
        replay = replay or Replay(chunk, spec, 100_000, spare=8)
        replay.extend(chunk)
        sample = partial(replay.sample, generator=stream(seed, "draw", k))
        batch = ReplayBatch(chunk.numel(), 4, sample, episodes)
        module.learn(batch, UpdateRandomness(seed, k))
    return module


def greedy(module: HAD3QN, states: int) -> list[Tensor]:
    """Everybody's greedy policy as a table ``[S, K]``."""
    seen = torch.eye(states)
    return [
        torch.nn.functional.one_hot(actor.act(seen, None)[0][:, 0], len(actor.choices)).double()
        for actor in module.policy.actors
    ]


DOMINANT = [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("name", "iterations"),
    [("dominant", 12), ("xor", 12), pytest.param("climbing", 40, marks=pytest.mark.slow)],
)
def test_ends_where_no_single_agent_can_improve(name: str, iterations: int) -> None:
    """Where there is one such joint action only it is the optimum, and there it ends."""
    options = {"matrix": DOMINANT} if name == "dominant" else {}
    env = make_env(f"games/{'matrix' if options else name}", num_envs=32, **options)
    team = greedy(learn(env, iterations), 1)
    game: TabularGame = env.game
    assert game.nash_gap(team, 1.0) == pytest.approx(0.0, abs=1e-9)
    pure = itertools.product(*(torch.eye(k).double() for k in game.actions))
    gaps = [game.nash_gap([row[None] for row in rows], 1.0) for rows in pure]
    if sum(gap < 1e-9 for gap in gaps) == 1:
        assert name == "dominant"
        assert game.expected_return(team, 1.0) == pytest.approx(game.optimal_return(1.0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_several_states_end_where_no_single_agent_can_improve(seed: int) -> None:
    """Against the exact solver; the smallest gains are the critic's to see or not."""
    game = random_game(3, (2, 3), density=0.3, termination=0.0, seed=seed)
    env = TableEnv(game, num_envs=64, seed=seed, max_steps=20)
    start = HAD3QN(TeamSpec.from_env(env), network=GreedyNetworkConfig([16]), seed=seed)
    team = greedy(learn(env, 60, seed=seed, lr=5e-3), 3)
    assert game.nash_gap(team, 0.9) < 0.05 * game.nash_gap(greedy(start, 3), 0.9)


# ---------------------------------------------------------------------- the engine
def test_each_agent_is_fitted_against_its_predecessors_new_greedy_actions() -> None:
    module = make(CHOOSERS, actor_lr=0.1)
    loss, engine = module.loss, module.engine
    turns: list[tuple[int, list[Tensor], list[Tensor], list[Tensor]]] = []
    actor = loss.actor

    def watched(data: Any, i: int, joint: Sequence[Tensor], log_prob: None) -> Tensor:
        now = [loss.sample(data, j).action for j in range(3)]
        weights = [p.detach().clone() for a in loss.policy.actors for p in a.parameters()]
        turns.append((i, [a.clone() for a in joint], now, weights))
        return actor(data, i, joint, log_prob)

    loss.actor = watched  # type: ignore[method-assign]
    orders = set()
    for k in range(8):
        turns.clear()
        data = replayed(CHOOSERS, 16)
        before = [loss.sample(data, j).action for j in range(3)]
        engine.update(data, UpdateRandomness(0, k))
        orders.add(tuple(turn[0] for turn in turns))
        for place, (i, joint, now, _) in enumerate(turns):
            for j in range(3):
                assert torch.equal(joint[j], now[j])
                if j not in [turn[0] for turn in turns[:place]]:
                    assert torch.equal(joint[j], before[j]), i
        moved = any(not torch.equal(a, b) for a, b in zip(before, turns[-1][2], strict=True))
        assert moved  # else it would be the same to be shown old actions
    assert len(orders) > 3


def test_one_agent_is_double_dueling_q_learning() -> None:
    """Written straight down: a critic, a slow copy, and a dueling network that follows it."""
    module = make(ALONE, actor_lr=1e-2, critic_lr=1e-2, polyak=0.1, gamma=0.9)
    batches = [replayed(ALONE, 16) for _ in range(12)]
    critic, q = copy.deepcopy((module.loss.critic.values[0], module.policy.actors[0]))
    slow = copy.deepcopy(critic)
    descend_critic = torch.optim.Adam(critic.parameters(), 1e-2)
    descend_q = torch.optim.Adam(q.parameters(), 1e-2)
    for data in batches:
        o, o2 = (d["agents", "observation"][:, 0] for d in (data, data["next"]))
        legal, legal2 = (d["agents", "action_mask"][:, 0] for d in (data, data["next"]))
        s, s2, a = data["state"], data["next", "state"], data["agents", "action"][:, 0]
        eye = torch.eye(4).double()
        with torch.no_grad():
            best = eye[q(o2, legal2).argmax(-1)]
            k, ended = data["steps_to_next_obs"], data["next", "terminated"]
            value = slow(torch.cat([s2, best], -1))
            y = data["next", "reward"] + torch.where(ended, 0.0, 0.9**k * value)
        descend_critic.zero_grad()
        (critic(torch.cat([s, eye[a]], -1)) - y).square().mean().backward()
        descend_critic.step()
        with torch.no_grad():
            told = torch.stack(
                [critic(torch.cat([s, row.expand(16, 4)], -1))[:, 0] for row in eye], -1
            )
        descend_q.zero_grad()
        error = torch.where(legal, q(o, legal) - told, 0.0)
        (error.square().sum(-1) / legal.sum(-1)).mean().backward()
        descend_q.step()
        for old, new in zip(slow.parameters(), critic.parameters(), strict=True):
            old.data.lerp_(new.data, 0.1)
    start = [p.detach().clone() for p in module.loss.parameters()]
    for k, data in enumerate(batches):
        module.engine.update(data, UpdateRandomness(0, k))
    assert not all(map(torch.equal, start, [p.detach() for p in module.loss.parameters()]))
    parts = ((module.loss.critic, critic), (module.policy.actors[0], q))
    for ours, theirs in (*parts, (module.loss.target_critic, slow)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
