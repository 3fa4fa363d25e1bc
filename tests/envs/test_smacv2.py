"""SMACv2 through its real client, against the simulated game."""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hetmarl_envs import TeamSpec, check_team_env, list_tasks, make_env
from hetmarl_envs.contract import write_random_actions
from hetmarl_envs.errors import (
    ConfigError,
    ContractError,
    MissingExtraError,
    UnknownNameError,
)
from hetmarl_envs.registry import get_family
from hetmarl_envs.sc2sim.install import install
from hetmarl_envs.sc2sim.scenarios import SCENARIOS
from hetmarl_envs.smacv2.process import GameProcess
from hetmarl_envs.smacv2.rendering import draw
from hetmarl_envs.smacv2.tasks import GAME_OPTIONS, SMAC_MAPS, game_arguments
from tests.processes import group_of

ROOT = Path(__file__).resolve().parents[2]
MISSING = get_family("smacv2").missing()
plays = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture
def simulator(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SC2PATH", str(root))
    return root


@pytest.fixture
def make(simulator: Path) -> Iterator[Any]:
    """``make_env`` whose environments are closed at the end."""
    made = []

    def make_one(task: str, **options: Any) -> Any:
        made.append(make_env(f"smacv2/{task}", **options))
        return made[-1]

    yield make_one
    for env in made:
        if not env.is_closed:
            env.close()


def play(env: Any, steps: int, seed: int = 0, data: Any = None) -> tuple[Any, Any]:
    """Random legal actions; what was seen, stacked over time, and where the next step begins."""
    generator, spec = torch.Generator().manual_seed(seed), TeamSpec.from_env(env)
    data = env.reset() if data is None else data
    seen = []
    for _ in range(steps):
        stepped, data = env.step_and_maybe_reset(write_random_actions(data, spec, generator))
        seen.append(stepped)
    return torch.stack(seen, dim=1), data


# ---------------------------------------------------------------------- names, options, pictures
def test_tasks_are_listed_without_the_package() -> None:
    tasks = list_tasks("smacv2")
    assert len(tasks) == 15 + len(SMAC_MAPS) == 38
    assert {"smacv2/terran_5_vs_5", "smacv2/zerg_20_vs_23", "smacv2/3s5z", "smacv2/mmm2"} <= {
        *tasks
    }


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'terran_5_vs_5'"):
        game_arguments("teran_5_vs_5", {}, None)
    with pytest.raises(ConfigError, match="Did you mean 'obs_own_pos'"):
        game_arguments("3m", {"obs_own_position": True}, None)
    with pytest.raises(ConfigError, match="step_mul='8', expected a whole number"):
        game_arguments("3m", {"step_mul": "8"}, None)
    with pytest.raises(ConfigError, match="step_mul=True, expected a whole number"):
        game_arguments("3m", {"step_mul": True}, None)
    with pytest.raises(ConfigError, match="whose teams are fixed"):
        game_arguments("3m", {}, {"attack": {}})
    with pytest.raises(ConfigError, match=r"reward_only_positive=False with .* 'health'"):
        game_arguments("zerg_5_vs_5", {"reward_only_positive": False}, {"health": {}})
    game_arguments("zerg_5_vs_5", {"reward_only_positive": False}, {"attack": {}})


def test_sparse_rewards_are_scaled_only_where_that_is_asked_for() -> None:
    sparse = {"reward_sparse": True}
    for task in ("3m", "terran_5_vs_5"):
        assert game_arguments(task, sparse, None)["reward_scale"] is False
        assert game_arguments(task, {**sparse, "reward_scale": True}, None)["reward_scale"] is True
        assert "reward_scale" not in game_arguments(task, {"reward_sparse": False}, None)


def test_arguments_are_what_the_benchmark_trains_with() -> None:
    first = game_arguments("Zerg_10_vs_11", {"step_mul": 4}, None)
    config = first["capability_config"]
    assert first["map_name"] == "10gen_zerg" and first["step_mul"] == 4
    assert (config["n_units"], config["n_enemies"]) == (10, 11)
    assert config["team_gen"]["exception_unit_types"] == ["baneling"]
    assert first["use_unit_ranges"] and first["min_attack_range"] == 2 and first["obs_own_pos"]
    config["team_gen"]["unit_types"].append("changed by smacv2")
    again = game_arguments("zerg_10_vs_11", {}, None)["capability_config"]
    assert again["team_gen"]["unit_types"] == ["zergling", "hydralisk", "baneling"]
    assert game_arguments("mmm2", {}, None) == {"map_name": "MMM2"}


def test_what_is_missing_is_said_with_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    family = get_family("smacv2")
    monkeypatch.setattr("hetmarl_envs.registry._installed", lambda name: name != "smacv2")
    with pytest.raises(
        MissingExtraError, match=r"--no-deps git\+https://github.com/oxwhirl/smacv2"
    ):
        make_env("smacv2/3m")
    assert family.missing() == ["smacv2"]


@plays
def test_tables_agree_with_the_package() -> None:
    from smacv2.env.starcraft2.maps.smac_maps import get_smac_map_registry
    from smacv2.env.starcraft2.starcraft2 import StarCraft2Env

    registry = get_smac_map_registry()
    page = (ROOT / "docs" / "environments" / "smacv2.md").read_text()
    assert {name for name in registry if not name.startswith("10gen")} == set(SMAC_MAPS)
    for name in SMAC_MAPS:
        scenario = SCENARIOS[name]
        counts = [sum(s.count for s in side) for side in (scenario.agents, scenario.enemies)]
        assert counts == [registry[name]["n_agents"], registry[name]["n_enemies"]], name
        assert re.search(rf"`{name.lower()}` {registry[name]['limit']}\b", page), name
    assert set(GAME_OPTIONS) <= set(inspect.signature(StarCraft2Env.__init__).parameters)


@plays
def test_the_game_and_its_map_are_looked_for(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="hetmarl sc2sim install"):
        make_env("smacv2/3m")
    broken = install(tmp_path / "game")
    monkeypatch.setenv("SC2PATH", str(broken))
    (broken / "Maps/SMAC_Maps/32x32_flat.SC2Map").unlink()
    with pytest.raises(MissingExtraError, match=r"no map 32x32_flat.SC2Map in .*SMAC_Maps"):
        make_env("smacv2/3m")
    (binary,) = broken.glob("Versions/Base*/SC2_x64")
    binary.chmod(0o644)
    with pytest.raises(MissingExtraError, match=r"chmod \+x"):
        make_env("smacv2/3m")
    monkeypatch.setenv("SC2PATH", str(root))
    problem = get_family("smacv2").problem
    assert problem is not None and problem() == ""


def test_pictures_show_sides_life_and_their_origin() -> None:
    blank = draw([], "")
    picture = draw([(1, 3, 8.0, 24.0, 1.0, 0.5, 0.0)], "")
    changed = np.argwhere((picture != blank).any(-1))
    # x to the right, y upwards: 8 cells of 32 from the left, 8 from the top
    assert changed.mean(0) == pytest.approx([8 / 32 * 480, 8 / 32 * 480], abs=8)
    assert picture[120, 120, 2] > picture[120, 120, 0], "agents are blue"
    assert (draw([], "simulated") != blank).any()


# ---------------------------------------------------------------------- battles
@plays
@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "agents", "actions"),
    [("terran_5_vs_5", 5, 11), ("protoss_10_vs_11", 10, 17), ("zerg_5_vs_5", 5, 11),
     ("2s3z", 5, 11), ("mmm", 10, 16), ("1c3s5z", 9, 15), ("bane_vs_bane", 24, 30)],
)  # fmt: skip
def test_the_contract_holds(make: Any, task: str, agents: int, actions: int) -> None:
    env = make(task, num_envs=2, seed=1)
    spec = check_team_env(env, steps=50, thorough=False)
    assert spec.num_agents == agents and spec.agents[0].action.choices == (actions,)
    assert spec.groups == {"agents": tuple(range(agents))}
    assert env.simulated and "simulated" in env.notes["game"]
    seen, _ = play(env, 60)
    # the dead do nothing and see nothing
    dead = ~seen["agents", "alive"].squeeze(-1)
    assert dead.any() and not dead[:, 0].any()
    assert seen["agents", "action_mask"][dead].sum(-1).eq(1).all()
    assert seen["agents", "action_mask"][dead][:, 0].all()
    assert seen["agents", "observation"][dead].eq(0).all()
    assert seen["agents", "observation"][~dead].ne(0).any(-1).all()
    assert seen["next", "info", "simulated"].eq(1).all()
    assert env.render(1).shape == (480, 480, 3)


@plays
@pytest.mark.slow
def test_same_seed_same_battles(make: Any) -> None:
    first, again = (make("zerg_5_vs_5", num_envs=2, seed=5) for _ in range(2))
    a, _ = play(first, 60)
    b, _ = play(again, 60)
    assert a["next", "done"].any(), "episodes after the first are seeded too"
    for key in (("agents", "observation"), "state", ("next", "reward")):
        assert torch.equal(a[key], b[key])
    assert not torch.equal(a["state"][0, 0], a["state"][1, 0]), "the games of a batch differ"
    begins = a["state"][0][
        torch.cat([torch.ones(1, 1), a["next", "done"][0, :-1]]).bool().squeeze(-1)
    ]
    assert not torch.equal(begins[0], begins[1]), "and so do the episodes of a game"
    first.set_seed(6)
    other, _ = play(first, 1)
    assert not torch.equal(other["state"], a["state"][:, :1])


@plays
@pytest.mark.slow
def test_a_won_battle_returns_twenty(make: Any) -> None:
    """The reward is scaled by what can be had of the episode at hand, whatever came before.

    Marines and marauders regain nothing, so that a victory collects all of it.
    """
    team = {"dist_type": "weighted_teams", "unit_types": ["marine", "marauder"],
            "weights": [0.5, 0.5], "observe": True}  # fmt: skip
    env = make("terran_5_vs_5", num_envs=4, heuristic_ai=True, capabilities={"team_gen": team})
    for _ in range(3):
        env.reset()  # upstream these would each add the enemies' life to the scale
    data = env.reset()
    total, won, lost = torch.zeros(4, 1), [], []
    for _ in range(200):
        data["agents", "action"] = data["agents", "action_mask"].int().argmax(-1)
        stepped, data = env.step_and_maybe_reset(data)
        total += stepped["next", "reward"]
        done, info = stepped["next", "done"], stepped["next", "info"]
        for row in done.squeeze(-1).nonzero().squeeze(-1).tolist():
            (won if info["battle_won"][row] else lost).append(float(total[row]))
            assert float(info["dead_enemies"][row]) == 1.0 or not info["battle_won"][row]
        total[done] = 0.0
    assert len(won) > 3
    assert won == pytest.approx([20.0] * len(won), abs=1e-3)
    assert all(value < 20.0 for value in lost)
    assert not data["terminated"].any()


@plays
@pytest.mark.slow
def test_sparse_rewards_are_one_for_a_victory(make: Any) -> None:
    for heuristic in (True, False):
        seen, _ = play(make("3m", num_envs=4, reward_sparse=True, heuristic_ai=heuristic), 60)
        reward, done = seen["next", "reward"], seen["next", "terminated"]
        assert done.any() and not reward[~done].any()
        assert torch.equal(reward[done], 2 * seen["next", "info", "battle_won"][done] - 1)


@plays
@pytest.mark.slow
def test_the_time_limit_is_truncation_and_the_end_of_a_battle_is_not(make: Any) -> None:
    env = make("2s_vs_1sc")  # who does not go near the spine crawler is left alone
    data = env.reset()
    for step in range(300):
        data["agents", "action"] = torch.ones(1, 2, dtype=torch.long)
        assert data["agents", "action_mask"][..., 1].all()
        stepped = env.step(data)["next"]
        assert bool(stepped["truncated"]) == bool(stepped["done"]) == (step == 299)
        assert not stepped["terminated"]
        data = env.step_mdp(data)
    with_end, _ = play(make("terran_5_vs_5"), 60)  # of 200, and nobody gets away
    assert with_end["next", "terminated"].any() and not with_end["next", "truncated"].any()


@plays
@pytest.mark.slow
def test_the_clients_heuristic_is_ahead_of_random(make: Any) -> None:
    def returns(**options: Any) -> tuple[float, float]:
        env = make("terran_5_vs_5", num_envs=4, seed=3, **options)
        seen, _ = play(env, 120)
        ended = int(seen["next", "done"].sum())
        won = float((seen["next", "info", "battle_won"] * seen["next", "done"]).sum())
        env.close()
        return float(seen["next", "reward"].sum()) / ended, won / ended

    (random_return, random_wins), (own_return, own_wins) = returns(), returns(heuristic_ai=True)
    assert own_return > random_return + 5.0
    assert own_wins > random_wins + 0.2


@plays
@pytest.mark.slow
def test_values_drawn_per_agent_work(make: Any) -> None:
    """With NumPy 2.4 the package itself fails here."""
    drawn = {"dist_type": "per_agent_uniform", "observe": True}
    attack = {"attack": {**drawn, "lower_bound": [0.7], "upper_bound": [1.0]}}
    health = {"health": {**drawn, "lower_bound": [0.0], "upper_bound": [0.3]}}
    for capabilities in (attack, health):
        first, again = (
            play(make("protoss_5_vs_5", seed=2, capabilities=capabilities), 60)[0] for _ in range(2)
        )
        assert torch.equal(first["state"], again["state"])
        assert torch.equal(first["next", "reward"], again["next", "reward"])


@plays
@pytest.mark.parametrize("chance", [1.0, 0.0])
def test_enemies_in_sight_are_seen_whoever_else_is_not(simulator: Path, chance: float) -> None:
    from hetmarl_envs.smacv2.worker import Worker

    worker, draws = Worker(), np.random.default_rng(0)
    worker.launch(game_arguments("terran_5_vs_5", {"prob_obs_enemy": chance}, None))
    game, seen_by_two, hidden = worker._game, 0, 0
    start, (count, width) = game.get_obs_move_feats_size(), game.get_obs_enemy_feats_size()
    try:
        for seed in range(3):
            outcome = worker.begin(seed, [])
            while not (outcome["terminated"] or outcome["truncated"]):
                enemies = outcome["observation"][:, start : start + count * width]
                seen = enemies.reshape(-1, count, width).any(-1)
                near = np.zeros_like(seen)
                for a, agent in game.agents.items():
                    for e, enemy in game.enemies.items():
                        places = (agent.pos.x, agent.pos.y, enemy.pos.x, enemy.pos.y)
                        within = game.distance(*places) < game.unit_sight_range(a)
                        near[a, e] = within and agent.health > 0 and enemy.health > 0
                assert not (seen & ~near).any()
                hidden += (near & ~seen).sum()
                seen_by_two += (seen.sum(0) > 1).sum()
                actions = [int(draws.choice(np.flatnonzero(row))) for row in outcome["mask"]]
                outcome = worker.step(actions)
    finally:
        worker.close()
    if chance == 1.0:
        assert hidden == 0 and seen_by_two > 100
    else:  # whoever saw an enemy first sees it alone
        assert hidden > 100 and seen_by_two == 0


@plays
@pytest.mark.parametrize("task", ["terran_5_vs_5", "protoss_5_vs_5"])
def test_entities_are_the_units_of_the_state(make: Any, task: str) -> None:
    env = make(task, num_envs=4, seed=2)
    spec, (seen, _) = TeamSpec.from_env(env), play(env, 60)
    friends, foes = (block.rows(seen["state"]) for block in spec.state_entities)
    assert [block.name for block in spec.state_entities] == [*spec.groups, "enemies"]
    assert spec.state_entities[1].choices == spec.agents[0].entities[0].choices
    healed_by = (*range(6, 11),) if "terran" in task else ()
    assert spec.state_entities[0].choices == healed_by
    medivac, healed = friends[..., -1].bool(), 0
    for i, agent in enumerate(spec.agents):
        others = [j for j in range(spec.num_agents) if j != i]
        enemies, allies = agent.entities
        observation, legal = spec.observation(seen, i), spec.action_mask(seen, i)
        assert legal is not None
        for block, units in ((allies, friends[..., others, :]), (enemies, foes)):
            own = block.rows(observation)
            there = own.any(-1)
            assert there.any() and not there.all()
            assert torch.equal(own[there][:, 4], units[there][:, 0])  # life
            assert torch.equal(own[there][:, -3:], units[there][:, -3:])  # type
        fights = ~medivac[..., i] if "terran" in task else torch.ones_like(medivac[..., i])
        targets = legal[..., list(enemies.choices)] & fights.unsqueeze(-1)
        assert enemies.rows(observation).any(-1)[targets].all() and targets.any()
        assert bool(allies.choices) == ("terran" in task)
        if allies.choices:
            heals = legal[..., list(allies.choices)] & ~fights.unsqueeze(-1)
            assert allies.rows(observation)[heals][:, 0].all()  # in sight
            healed += int(heals.sum())
    assert (healed > 0) == ("terran" in task)


@plays
@pytest.mark.slow
def test_an_action_that_is_not_legal_is_named(make: Any) -> None:
    env = make("3m", num_envs=2)
    data = env.reset()
    legal = data.clone().set(("agents", "action"), torch.ones(2, 3, dtype=torch.long))
    data["agents", "action"] = torch.tensor([[1, 1, 1], [0, 1, 1]])
    with pytest.raises(ContractError, match=r"agent_0 of row 1 cannot do 0 now, legal.*mask"):
        env.step(data)
    env.step(legal)  # nothing was played


@plays
@pytest.mark.slow
def test_a_failed_assertion_is_not_called_an_illegal_action(make: Any) -> None:
    """Whatever the client stumbles over costs the episode, and is told as it is."""
    env = make("3m")
    data = env.reset()
    env._games.mask[:, :, 0] = True
    data["agents", "action"] = torch.zeros(1, 3, dtype=torch.long)
    ended = env.step(data)["next"]
    assert ended["truncated"].all() and ended["info", "game_lost"].all()


@plays
@pytest.mark.slow
def test_options_reach_the_game(make: Any) -> None:
    plain, rich = make("3m"), make("3m", obs_last_action=True, obs_timestep_number=True)
    sizes = [TeamSpec.from_env(env).agents[0].observation_shape[0] for env in (plain, rich)]
    assert sizes[1] - sizes[0] == 2 * 9 + 1
    with pytest.raises(ConfigError, match="timeout=0"):
        make("3m", timeout=0)


# ---------------------------------------------------------------------- repairs of the package
def drawing_game() -> Any:
    """A game that is not started."""
    from hetmarl_envs.smacv2.game import Game

    return Game(**game_arguments("terran_5_vs_5", {}, None))


@plays
def test_the_configuration_given_is_left_as_it_was() -> None:
    from hetmarl_envs.smacv2.game import Game

    attack = {"dist_type": "per_agent_uniform", "lower_bound": [0.7], "upper_bound": [1.0],
              "observe": True}  # fmt: skip
    given = game_arguments("terran_5_vs_5", {}, {"attack": attack})["capability_config"]
    before = deepcopy(given)
    game = Game(map_name="10gen_terran", capability_config=given)
    assert given == before, "upstream adds env_key and the teams' sizes"
    given["team_gen"]["unit_types"].clear()
    game.capability_config["team_gen"]["weights"].clear()
    assert before["team_gen"]["weights"] == given["team_gen"]["weights"]
    assert game.capability_config["team_gen"]["unit_types"] == before["team_gen"]["unit_types"]


@plays
@pytest.mark.slow
def test_an_episode_whose_units_do_not_appear_is_drawn_anew(
    simulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream ``reset`` returns None then."""
    from smacv2.env.starcraft2.starcraft2 import CannotResetException, StarCraft2Env

    game, reset = drawing_game(), StarCraft2Env.reset
    drawn: list[Any] = []

    def fail_twice(self: Any, config: Any) -> Any:
        drawn.append(config["ally_start_positions"]["item"])
        if len(drawn) < 3:
            raise CannotResetException("no units")
        return reset(self, config)

    monkeypatch.setattr(StarCraft2Env, "reset", fail_twice)
    try:
        game.launch()
        game.begin(3)
        first, size = np.asarray(game.get_obs()), game.get_obs_size()
        assert first.shape == (5, size) and len(game.agents) == len(game.enemies) == 5
        assert not any(np.array_equal(a, b) for a, b in itertools.combinations(drawn, 2))
        drawn.clear()
        game.begin(3)
        assert np.array_equal(game.get_obs(), first), "and it is still a function of the seed"
    finally:
        game.close()


@plays
def test_an_episode_whose_units_never_appear_is_a_lost_game(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from smacv2.env.starcraft2.starcraft2 import CannotResetException, StarCraft2Env

    from hetmarl_envs.smacv2.game import ATTEMPTS, GameLostError

    tries = []

    def fail(self: Any, config: Any) -> None:
        tries.append(config)
        raise CannotResetException("no units")

    monkeypatch.setattr(StarCraft2Env, "reset", fail)
    with pytest.raises(GameLostError, match=f"no units appeared in {ATTEMPTS} attempts"):
        drawing_game().begin(3)
    assert len(tries) == ATTEMPTS


# ---------------------------------------------------------------------- what may go wrong
@plays
@pytest.mark.slow
@pytest.mark.parametrize("how", ["game killed", "worker killed", "hangs"])
def test_a_lost_game_costs_its_episode_only(
    make: Any, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    env = make("3m", num_envs=2, seed=4, timeout=3.0)
    undisturbed = make("3m", num_envs=2, seed=4)
    _, data = play(env, 5)
    _, other = play(undisturbed, 5)
    worker = env.pids[0]
    (game,) = set(group_of(worker)) - {worker}
    pid, sign = {
        "game killed": (game, signal.SIGKILL),
        "worker killed": (worker, signal.SIGKILL),
        "hangs": (game, signal.SIGSTOP),
    }[how]
    os.kill(pid, sign)
    with caplog.at_level(logging.WARNING):
        seen, _ = play(env, 40, seed=1, data=data)
    expected, _ = play(undisturbed, 40, seed=1, data=other)
    lost = seen["next", "info", "game_lost"].squeeze(-1)
    assert lost[0, 0] == 1 and lost.sum() == 1
    assert seen["next", "truncated"][0, 0] and not seen["next", "terminated"][0, 0]
    assert seen["next", "reward"][0, 0] == 0
    assert torch.equal(seen["next", "state"][0, 0], seen["state"][0, 0]), "as it was last seen"
    assert "game 0 is lost" in caplog.text
    assert torch.equal(seen["state"][1, :2], expected["state"][1, :2]), "the other one goes on"
    assert seen["next", "done"][0, 1:].any(), "and so does this one"
    assert not group_of(worker), "nothing is left of the lost game"


@plays
@pytest.mark.slow
def test_a_game_lost_in_a_picture_costs_its_episode_only(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    env = make("3m", num_envs=2, seed=4)
    _, data = play(env, 5)
    worker = env.pids[0]
    os.kill(worker, signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        pictures = [env.render(0) for _ in range(2)]
    assert caplog.text.count("game 0 is lost") == 1
    assert np.array_equal(*pictures), "of an empty battlefield"
    seen, _ = play(env, 40, seed=1, data=data)
    lost = seen["next", "info", "game_lost"].squeeze(-1)
    assert lost[0, 0] == 1 and lost.sum() == 1
    assert seen["next", "truncated"][0, 0] and not seen["next", "done"][1, 0]
    assert torch.equal(seen["next", "state"][0, 0], data["state"][0]), "as it was last seen"
    assert seen["next", "done"][0, 1:].any(), "the row goes on with another game"
    assert not group_of(worker), "nothing is left of the lost one"


@plays
@pytest.mark.slow
def test_pictures_say_which_game_they_are_of(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    captions: list[str] = []

    def drawn(units: Any, caption: str) -> Any:
        captions.append(caption)
        return draw(units, caption)

    monkeypatch.setattr("hetmarl_envs.smacv2.env.draw", drawn)
    env = make("3m", num_envs=2)
    env.reset()
    env.render([0, 1])
    assert len(captions) == 2
    assert all("smacv2/3m" in c and env.notes["game"] in c for c in captions)
    assert "simulated" in env.notes["game"]


@plays
@pytest.mark.slow
def test_signals_to_a_whole_job_are_for_the_environment_to_follow(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on to the end of its iteration after them, and needs its games for that."""
    env = make("3m", seed=4)
    _, data = play(env, 5)
    (worker,) = env.pids
    for number in (signal.SIGTERM, signal.SIGINT):
        os.killpg(worker, number)
    seen, _ = play(env, 20, data=data)
    assert not seen["next", "info", "game_lost"].any() and env.pids == [worker]
    os.kill(worker, signal.SIGSTOP)  # who does not end when asked to is killed
    monkeypatch.setattr("hetmarl_envs.smacv2.games.CLOSING", 0.2)
    env.close()
    assert not group_of(worker)


@plays
@pytest.mark.slow
def test_ctrl_c_while_games_are_waited_for_costs_their_episodes_only(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody has read must not be taken for that to the next request."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    env = make("3m", num_envs=2, seed=4)
    _, data = play(env, 5)
    workers = env.pids
    data["agents", "action"] = data["agents", "action_mask"].int().argmax(-1)
    with monkeypatch.context() as patch:
        patch.setattr(GameProcess, "answer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            env.step(data)
    ended = env.step(data)["next"]
    assert ended["truncated"].all() and not ended["info", "game_lost"].any()
    assert ended["info", "episode_cut"].all()
    assert torch.equal(ended["state"], data["state"]), "as it was last seen"
    env.set_seed(6)
    assert torch.equal(env.reset()["state"], make("3m", num_envs=2, seed=6).reset()["state"])
    assert not any(group_of(worker) for worker in workers), "nothing is left of the old games"


def test_games_that_start_at_once_listen_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below what the system gives to connections, and from a place of each process' own."""
    pytest.importorskip("smacv2", reason="smacv2 is not installed: hetmarl doctor smacv2")
    from hetmarl_envs.smacv2.game import PORTS, own_port

    found = []
    for process in (70_000, 70_001, 70_002):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        found.append(own_port())
    assert len(set(found)) == 3
    assert set(found) <= set(PORTS)
    with socket.socket() as taken:
        taken.bind(("", found[-1]))
        assert own_port() not in found


@plays
@pytest.mark.slow
def test_a_game_that_cannot_start_is_an_error_with_its_words(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = install(tmp_path / "game")
    (binary,) = broken.glob("Versions/Base*/SC2_x64")
    binary.write_text("#!/bin/sh\necho a library is missing >&2\nexit 1\n")
    monkeypatch.setenv("SC2PATH", str(broken))
    with pytest.raises(Exception, match="a library is missing"):
        make("3m")


@plays
@pytest.mark.slow
def test_runs_are_resumed_bit_exactly(make: Any, tmp_path: Path) -> None:
    env = make("terran_5_vs_5", num_envs=2, seed=7)
    _, data = play(env, 70)
    torch.save(env.runtime_state(), tmp_path / "state.pt")
    carrier = data.clone()
    expected, _ = play(env, 60, seed=2, data=data)
    other = make("terran_5_vs_5", num_envs=2, seed=99)
    other.load_runtime_state(torch.load(tmp_path / "state.pt", weights_only=True))
    seen, _ = play(other, 60, seed=2, data=carrier)
    for key in (("agents", "observation"), ("agents", "action"), "state", ("next", "reward"),
                ("next", "done")):  # fmt: skip
        assert torch.equal(seen[key], expected[key])
    assert seen["next", "done"].any()
    with pytest.raises(ConfigError, match="saved state holds"):
        make("terran_5_vs_5", num_envs=1).load_runtime_state(env.runtime_state())


@plays
@pytest.mark.slow
def test_a_game_that_does_not_repeat_itself_costs_the_running_episode_only(make: Any) -> None:
    """As StarCraft II, played again with another seed: there the saved actions are not legal."""
    env = make("terran_5_vs_5", num_envs=2, seed=7)
    _, data = play(env, 25)
    state = env.runtime_state()
    state["games"]["seed"] += 1
    carrier = data.clone()
    other = make("terran_5_vs_5", num_envs=2, seed=99)
    other.load_runtime_state(state)
    seen, _ = play(other, 40, seed=2, data=carrier)
    assert torch.equal(seen["state"][:, 0], data["state"]), "as it was last seen"
    ended = seen["next", "truncated"].squeeze(-1)
    assert ended[:, 0].all() and not ended[:, 1:].any()
    assert torch.equal(seen["next", "info", "episode_cut"].squeeze(-1), ended.float())
    assert not seen["next", "info", "game_lost"].any(), "no game broke"
    assert seen["next", "terminated"][:, 1:].any(1).all(), "the next episodes are whole"


@plays
@pytest.mark.slow
def test_a_state_of_another_task_is_named(make: Any) -> None:
    state = make("terran_5_vs_5").runtime_state()
    with pytest.raises(ConfigError, match=r"of smacv2/terran_5_vs_5, the environment is .*/zerg"):
        make("Zerg_5_vs_5").load_runtime_state(state)


@plays
@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "forgotten", "at exit", "SIGTERM", "SIGKILL"])
def test_nothing_is_left_behind(simulator: Path, tmp_path: Path, how: str) -> None:
    """Neither processes nor files, however the process that made the environment ends."""
    code = (
        "import hetmarl_envs, signal, sys; env = hetmarl_envs.make_env('smacv2/3m', num_envs=2)\n"
        "env.reset(); print(*env.pids, flush=True); how = input()\n"
        "if how == 'closed': env.close()\n"
        "if how == 'forgotten': del env; import gc; gc.collect()\n"
        "if how != 'at exit': print(flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert all(len(group_of(pid)) == 2 for pid in pids), "a worker and its game, no more"
        assert len(list(tmp_path.iterdir())) == 2
        print(how, file=process.stdin, flush=True)
        process.stdout.readline()  # empty where it has ended
        if how.startswith("SIG"):
            process.send_signal(signal.Signals[how])
            process.wait()
        deadline = time.monotonic() + 15
        while any(map(group_of, pids)) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = [*filter(None, map(group_of, pids))], list(tmp_path.iterdir())
        process.kill()
    assert left == ([], [])
