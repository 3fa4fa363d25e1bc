"""MPE: the numbers of ``mpe2``, its scenarios' teams and groups, exact resume, pictures."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from hetmarl.data.collector import can_save
from hetmarl_envs import TeamSpec, check_team_env, list_tasks, make_env, registry
from hetmarl_envs.errors import ConfigError, ContractError, MissingExtraError, UnknownNameError
from hetmarl_envs.mpe import SCENARIOS, MPEEnv, scenario_options

mpe2 = pytest.importorskip("mpe2")

OPPOSED = ("simple_adversary", "simple_crypto", "simple_push", "simple_tag", "simple_world_comm")
COOPERATIVE = tuple(name for name in SCENARIOS if name not in OPPOSED)
every_scenario = pytest.mark.parametrize("name", SCENARIOS)
both_actions = pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])


def make(name: str, num_envs: int = 2, **options: Any) -> MPEEnv:
    if name in OPPOSED and "team" not in options:
        options.setdefault("team_reward", "sum")
    env = make_env(f"mpe/{name}", num_envs=num_envs, **options)
    assert isinstance(env, MPEEnv)
    return env


def bare(name: str, **options: Any) -> Any:
    """``mpe2``'s own parallel environment."""
    return __import__(f"mpe2.{SCENARIOS[name]}", fromlist=["parallel_env"]).parallel_env(**options)


# ---------------------------------------------------------------------- the same numbers
@both_actions
@every_scenario
def test_equals_mpe2(name: str, continuous: bool) -> None:
    """Observations, rewards, states and ends of two rows, through their second episodes."""
    env = make(name, continuous_actions=continuous, max_cycles=9, seed=3)
    rows = [bare(name, continuous_actions=continuous, max_cycles=9) for _ in range(2)]
    places = [
        (position, agent, next((g, m.index(agent)) for g, m in env.group_map.items() if agent in m))
        for position, agent in enumerate(env.agent_names)
    ]

    def same(data: Any, row: int, seen: dict[str, Any]) -> None:
        for _, agent, (group, index) in places:
            found = data[group, "observation"][row, index].numpy()
            assert np.array_equal(found, seen[agent])
        assert np.array_equal(data["state"][row].numpy(), rows[row].state())

    seeds = list(env._rows._seeds)
    data = env.reset()
    for row, reference in enumerate(rows):
        same(data, row, reference.reset(seed=seeds[row])[0])
    for step in range(1, 24):
        stepped, data = env.step_and_maybe_reset(env.rand_action(data))
        for row, reference in enumerate(rows):
            actions = {}
            for _, agent, (group, index) in places:
                action = stepped[group, "action"][row, index]
                actions[agent] = action.numpy() if continuous else action.item()
            seen, rewards, terminations, truncations, _ = reference.step(actions)
            same(stepped["next"], row, seen)  # the true last observation, where an episode ends
            for _, agent, (group, index) in places:
                found = stepped["next", group, "reward"][row, index, 0]
                assert found == np.float32(rewards[agent])
            total = sum(np.float32(reward) for reward in rewards.values())
            assert stepped["next", "reward"][row, 0] == pytest.approx(float(total), rel=1e-5)
            assert bool(stepped["next", "truncated"][row]) == any(truncations.values())
            assert bool(stepped["next", "terminated"][row]) == any(terminations.values())
            assert bool(stepped["next", "done"][row]) == (step % 9 == 0)
            if not reference.agents:
                same(data, row, reference.reset()[0])


def test_success_terminates_where_it_is_asked_for() -> None:
    env = make("simple_spread", N=1, terminate_on_success=True, max_cycles=3)
    data = env.reset()
    world: Any = env._rows.envs[0].raw.world  # type: ignore[attr-defined]
    world.agents[0].state.p_pos = world.landmarks[0].state.p_pos.copy()
    stepped = env.step(data.update(env.full_action_spec.zero()))["next"]
    assert stepped["terminated"][:, 0].tolist() == [True, False]
    assert not stepped["truncated"].any()
    assert stepped["agents", "observation"][0].abs().sum() > 0


# ---------------------------------------------------------------------- names and options
def test_every_scenario_of_mpe2_is_a_task() -> None:
    files = Path(mpe2.__file__).parent.glob("*_v*.py")
    assert sorted(file.stem for file in files) == sorted(SCENARIOS.values())
    assert list_tasks("mpe") == [f"mpe/{name}" for name in sorted(SCENARIOS)]


def test_without_mpe2_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_installed", lambda name: name != "mpe2")
    pip = 'needs mpe2, not installed here: pip install "hetmarl[mpe]"'
    with pytest.raises(MissingExtraError, match=re.escape(pip)):
        make_env("mpe/simple")
    assert list_tasks("mpe"), "names need no package"


@every_scenario
def test_options_are_the_scenarios_own(name: str) -> None:
    options = scenario_options(name)
    assert options["max_cycles"] == 25 and options["continuous_actions"] is False
    assert "render_mode" not in options
    make(name, num_envs=1, **options)


def test_options_reach_the_scenario() -> None:
    env = make("simple_spread", N=5, local_ratio=1.0, max_cycles=7)
    assert len(env.agent_names) == 5 and env.max_steps == 7
    data = env.rollout(7)["next"]
    assert data["truncated"][:, 6].all()
    assert (data["agents", "reward"] % 1 == 0).all(), "local rewards count collisions"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("simple_spread", {"n": 4}, r"no option 'n'. Did you mean 'N'\?"),
        ("simple_spread", {"team_rewards": "sum"}, r"Did you mean 'team_reward'"),
        ("simple_spread", {"render_mode": "human"}, "no option 'render_mode'"),
        ("simple_spread", {"max_cycles": 0}, "max_cycles=0, expected a whole number of at least 1"),
        ("simple_spread", {"N": 2.5}, "N=2.5, expected a whole number"),
        ("simple_spread", {"continuous_actions": "yes"}, "='yes', expected true or false"),
        ("simple_spread", {"local_ratio": 1.5}, "cannot be built .*'local_ratio': 1.5.*proportion"),
        ("simple_spread", {"team": "good"}, "has one team; leave team='good' out"),
        ("simple_tag", {"team": "goood"}, "no team 'goood'. Did you mean 'good'"),
        ("simple_spread", {"team_reward": "max"}, r"team_reward='max', expected one of"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_env(f"mpe/{name}", **options)


def test_an_unknown_scenario() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no scenario 'spread'. Did you mean 'simple_spread'"
    ):
        make_env("mpe/spread")


# ---------------------------------------------------------------------- groups and teams
@both_actions
@every_scenario
def test_contract(name: str, continuous: bool) -> None:
    env = make(name, 3, continuous_actions=continuous, max_cycles=4)
    check_env_specs(env)
    spec = check_team_env(env, steps=6, thorough=False)
    assert spec.names == tuple(env.agent_names)
    assert ("agents", "alive") not in env.reset().keys(True)
    assert {a.action.kind for a in spec.agents} == {"continuous" if continuous else "discrete"}
    assert spec.state_dim == sum(agent.observation_shape[0] for agent in spec.agents)


@pytest.mark.parametrize(
    ("name", "options", "groups"),
    [
        ("simple_speaker_listener", {}, {"speaker": ["speaker_0"], "listener": ["listener_0"]}),
        ("simple_crypto", {}, {"eve": ["eve_0"], "bob": ["bob_0"], "alice": ["alice_0"]}),
        ("simple_crypto", {"team": "good"}, {"bob": ["bob_0"], "alice": ["alice_0"]}),
        # equal in size there, unequal in body and goal
        (
            "simple_tag",
            {"num_agent_neighbors": 2, "num_adversaries": 2},
            {"adversary": ["adversary_0", "adversary_1"], "agent": ["agent_0"]},
        ),
        (
            "simple_world_comm",
            {"team": "adversaries", "num_adversaries": 3},
            {"leadadversary": ["leadadversary_0"], "adversary": ["adversary_0", "adversary_1"]},
        ),
    ],
)
def test_groups(name: str, options: dict[str, Any], groups: dict[str, list[str]]) -> None:
    assert make(name, **options).group_map == groups


def test_unequal_spaces() -> None:
    env = make("simple_speaker_listener", continuous_actions=True)
    speaker, listener = TeamSpec.from_env(env).agents
    assert (speaker.observation_shape, speaker.action.low) == ((3,), (0, 0, 0))
    assert (listener.observation_shape, listener.action.high) == ((11,), (1, 1, 1, 1, 1))


@pytest.mark.parametrize("name", COOPERATIVE)
def test_team_reward_is_the_sum_or_the_mean(name: str) -> None:
    for how in ("sum", "mean", None):
        env = make(name, team_reward=how, seed=1)
        data = env.rollout(4)["next"]
        rewards = torch.cat([data[group, "reward"] for group in env.group_map], dim=2)
        expected = rewards.mean(2) if how == "mean" else rewards.sum(2)
        torch.testing.assert_close(data["reward"], expected)


@pytest.mark.parametrize("name", OPPOSED)
def test_opposed_teams_need_a_choice(name: str) -> None:
    with pytest.raises(ContractError, match=r"opposes teams.*Pass team='adversaries'.*team_reward"):
        make_env(f"mpe/{name}")
    sides = [make(name, team=team).agent_names for team in ("adversaries", "good")]
    assert sides[0] + sides[1] == make(name, team_reward="mean").agent_names


@both_actions
def test_opponents(continuous: bool) -> None:
    for opponents in ("still", "random"):
        env = make("simple_tag", team="good", opponents=opponents, continuous_actions=continuous)
        check_env_specs(env)
        data, forces = env.reset(), []
        state = torch.get_rng_state()
        for _ in range(4):
            env.step(data.update(env.full_action_spec.zero()))
            world: Any = env._rows.envs[1].raw.world  # type: ignore[attr-defined]
            forces += [agent.action.u.copy() for agent in world.agents[:3]]
        assert torch.equal(state, torch.get_rng_state())
        assert bool(np.any(forces)) == (opponents == "random")
        assert (env.reset()["state"].shape[-1], env.agent_names) == (62, ["agent_0"])


def test_the_page_shows_the_scenarios_as_they_are() -> None:
    from hetmarl_envs.mpe.__main__ import scenario_table

    page = Path(__file__).parents[2] / "docs" / "environments" / "mpe.md"
    assert scenario_table() in page.read_text(), "put `python -m hetmarl_envs.mpe` into the page"


# ---------------------------------------------------------------------- streams and resume
def test_seeds_and_streams_of_its_own() -> None:
    def play(env: MPEEnv) -> torch.Tensor:
        torch.manual_seed(1)
        return env.rollout(9, break_when_any_done=False)["next", "state"]

    options: dict[str, Any] = {"num_envs": 3, "max_cycles": 4, "team": "good"}
    first = play(make("simple_tag", seed=7, **options))
    assert len(first[:, 4].unique(dim=0)) == 3, "sub-environments start differently"
    other = make("simple_tag", seed=8, **options)
    np.random.seed(0)
    env = make("simple_tag", seed=7, **options)
    play(other)
    assert torch.equal(play(env), first)
    assert not torch.equal(play(other), first)
    assert np.random.get_state()[1][0] == np.random.RandomState(0).get_state()[1][0]  # type: ignore[index]
    other.set_seed(7)
    assert torch.equal(play(other), first)


@pytest.mark.slow
@both_actions
@every_scenario
def test_exact_resume(name: str, continuous: bool) -> None:
    """From the middle of an episode, through a file, through resets; the opponents' moves too."""
    options: dict[str, Any] = {"continuous_actions": continuous, "max_cycles": 6}
    if name in OPPOSED:
        options["team"] = "good"
    env, other = make(name, seed=1, **options), make(name, seed=2, **options)
    data = env.maybe_reset(env.step_mdp(env.rollout(10, break_when_any_done=False)[:, -1]))
    other.rollout(5)
    file = io.BytesIO()
    torch.save(env.runtime_state(), file)
    file.seek(0)
    other.load_runtime_state(torch.load(file, weights_only=True))
    assert np.array_equal(env.render(1), other.render(1))
    results = []
    for one in (env, other):
        torch.manual_seed(0)
        now, steps = data.clone(), []
        for _ in range(20):
            step, now = one.step_and_maybe_reset(one.rand_action(now))
            steps.append(step)
        results.append(torch.stack(steps))
    assert (results[0] == results[1]).all()
    assert can_save(env)


def test_a_finished_row_is_saved_as_finished() -> None:
    env, other = make("simple", max_cycles=3), make("simple", max_cycles=3)
    last = env.rollout(3)[:, -1]["next"]
    other.reset()
    other.load_runtime_state(env.runtime_state())
    again = other.rand_step(last.exclude("reward", ("agents", "reward")))["next"]
    assert again["truncated"].all() and (again["reward"] == 0).all()
    assert torch.equal(again["agents", "observation"], last["agents", "observation"])
    # a seed that was set but not yet used is saved too
    env.set_seed(5)
    other.load_runtime_state(env.runtime_state())
    assert torch.equal(env.reset()["state"], other.reset()["state"])


def test_a_state_of_another_environment_is_refused() -> None:
    state = make("simple_spread").runtime_state()
    with pytest.raises(ConfigError, match="the saved state holds"):
        make("simple_spread", num_envs=3).load_runtime_state(state)
    with pytest.raises(ConfigError, match="the saved state holds"):
        make("simple_line").load_runtime_state(state)


# ---------------------------------------------------------------------- pictures
def test_pictures_change_nothing_and_survive_others() -> None:
    env, other = make("simple_reference", seed=1), make("simple_reference", seed=1)
    data, same = env.reset(), other.reset()
    picture = env.render(1)
    assert picture.shape == (700, 700, 3) and picture.dtype == np.uint8
    assert not np.array_equal(picture, env.render(0))
    bare("simple").close()  # shuts pygame down for the whole process
    assert np.array_equal(picture, env.render(1))
    assert np.array_equal(env.render([1, 0]), np.hstack([picture, env.render(0)]))
    zero = env.full_action_spec.zero()
    after, expected = env.step(data.update(zero))["next"], other.step(same.update(zero))["next"]
    assert torch.equal(after["state"], expected["state"])
    env.close()
    assert other.render().max() == 255
    with pytest.raises(ConfigError, match="index=2, expected 0 to 1"):
        other.render(2)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux does")
def test_environments_hold_no_files_open() -> None:
    make("simple")
    before = len(os.listdir("/proc/self/fd"))
    env = make("simple", num_envs=50)
    env.render(3)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_in_workers() -> None:
    alone = make_env("mpe/simple_tag", num_envs=3, seed=2, team="good")
    settings: Any = {"num_workers": 2, "start_method": "fork", "timeout": 60}
    shared = make_env("mpe/simple_tag", num_envs=3, seed=2, team="good", **settings)
    torch.manual_seed(1)
    data, twin = alone.reset(), shared.reset()
    for _ in range(3):
        twin["agents", "action"] = alone.rand_action(data)["agents", "action"].clone()
        stepped, data = alone.step_and_maybe_reset(data)
        other, twin = shared.step_and_maybe_reset(twin)
        assert (stepped == other).all()
    shared.close()
