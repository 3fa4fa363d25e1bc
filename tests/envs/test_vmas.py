"""VMAS environments: what a user meets. Resets, streams and state: ``test_vmas_state.py``."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from hetmarl_envs import TeamSpec, check_team_env, list_tasks, make_env
from hetmarl_envs.errors import (
    ConfigError,
    ContractError,
    MissingExtraError,
    UnknownNameError,
)
from hetmarl_envs.vmas import VMASEnv, load_scenario, scenario_names, scenario_options
from hetmarl_envs.vmas.options import check_scenario_options

vmas = pytest.importorskip("vmas")

OPPOSED = ("simple_adversary", "simple_crypto", "simple_push", "simple_tag", "simple_world_comm")
SMALLER: dict[str, dict[str, Any]] = {
    "pollock": {"n_agents": 3, "n_lines": 3, "n_boxes": 3},
    "road_traffic": {"n_agents": 4},
}


def make(name: str, num_envs: int = 3, **options: Any) -> VMASEnv:
    if name in OPPOSED and "team" not in options:
        options.setdefault("team_reward", "mean")
    env = make_env(f"vmas/{name}", num_envs=num_envs, **{**SMALLER.get(name, {}), **options})
    assert isinstance(env, VMASEnv)
    return env


FAST = "balance navigation football het_mass simple_reference simple_speaker_listener".split()
every_scenario = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in scenario_names()
    ],
)


# ---------------------------------------------------------------------- names and options
def test_all_scenarios_are_listed() -> None:
    every = vmas.scenarios + vmas.mpe_scenarios + vmas.debug_scenarios
    assert sorted(every) == scenario_names()
    assert list_tasks("vmas") == [f"vmas/{name}" for name in sorted(every)]


@pytest.mark.slow
def test_listing_imports_neither_vmas_nor_gym() -> None:
    code = (
        "import sys, hetmarl_envs; assert len(hetmarl_envs.list_tasks('vmas')) > 40; "
        "assert not {'vmas', 'gym', 'pyglet'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=None)


@pytest.mark.slow
@every_scenario
def test_every_option_is_known_to_its_scenario(name: str) -> None:
    """Passing an option's own default changes nothing and is not refused by the scenario."""
    source = Path(sys.modules[load_scenario(name).__module__].__file__ or "").read_text()
    source = re.sub(r"^\s*#.*$", "", source, flags=re.MULTILINE)
    found = scenario_options(name)
    assert set(re.findall(r'kwargs\.(?:pop|get)\(\s*"(\w+)"', source)) == set(found)
    plain = {}
    for option, default in found.items():
        try:
            plain[option] = eval(default, {"torch": torch})
        except (NameError, SyntaxError):
            continue  # computed from other options
    plain = {k: v for k, v in plain.items() if v is not None and k != "parameters"}
    make(name, num_envs=1, **{**plain, **SMALLER.get(name, {})})


def test_options_reach_the_scenario() -> None:
    assert len(make("balance", n_agents=5).agent_names) == 5
    assert make("het_mass", green_mass=9, mass_noise=0)._team.agents[0].mass == 9


def test_unknown_names_say_what_was_meant() -> None:
    with pytest.raises(UnknownNameError, match=r"no scenario 'balence'. Did you mean 'balance'"):
        make_env("vmas/balence")
    with pytest.raises(ConfigError, match=r"no option 'n_agent'. Did you mean 'n_agents'"):
        make_env("vmas/balance", n_agent=3)
    with pytest.raises(ConfigError, match=r"no option 'max_step'. Did you mean 'max_steps'"):
        make_env("vmas/simple_spread", max_step=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps=0, expected"),
        ({"max_steps": True}, "max_steps=True, expected a whole number"),
        ({"actions": "discreet"}, "actions='discreet'.*Did you mean 'discrete'"),
        ({"team_reward": "summ"}, "team_reward='summ'.*Did you mean 'sum'"),
        ({"opponents": "rand"}, "opponents='rand'.*Did you mean 'random'"),
        ({"team": "good"}, "has one team"),
        (
            {"n_agents": "four"},
            "n_agents='four', expected a whole number of at least 1; the scenario's",
        ),
        ({"random_package_pos_on_line": 1}, "=1, expected true or false; the scenario's def"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_env("vmas/balance", **options)


@pytest.mark.parametrize("name", scenario_names())
def test_options_are_of_the_type_of_their_default(name: str) -> None:
    cls, options = load_scenario(name), scenario_options(name)
    for option, default in options.items():
        for value in plain_default(default):
            check_scenario_options(cls, {option: value}, (), name)
        if option not in ("parameters", "dense_reward_ratio"):  # an object; one that VMAS refuses
            for value in wrong_values(option, default):
                message = re.escape(f"{option}={value!r}, expected ") + ".*; the scenario's default"
                with pytest.raises(ConfigError, match=message):
                    check_scenario_options(cls, {option: value}, (), name)


def plain_default(default: str) -> list[Any]:
    """The default's value, unless it is computed from other options."""
    try:
        return [eval(default, {"torch": torch})]
    except (NameError, SyntaxError):
        return []


def wrong_values(option: str, default: str) -> list[Any]:
    wrong: list[Any] = [object()]
    if default in ("True", "False"):
        return [*wrong, 1, "yes", None]
    wrong += [True, [1]]
    if not default.startswith("'") and option != "map_file_path":
        wrong += ["three", float("nan")]
    if option.startswith(("n_", "num_")):
        wrong += [3.5, -1]
    return wrong


@pytest.mark.parametrize(
    ("name", "option", "good", "wrong"),
    [
        ("balance", "n_agents", [1, 4], [0, 3.0]),
        ("balance", "package_mass", [5, 4.5], [-1, "5"]),
        ("wind_flocking", "wind", [0, 2.5, -1], [None]),
        ("flocking", "n_obstacles", [0], [-1]),
        ("dispersion", "n_food", [1], [0, 1.5]),
        ("dropout", "energy_coeff", [0, 0.1], ["0.1"]),
        ("goal", "dt_delay", [0, 2], [0.5]),
        ("buzz_wire", "max_speed_1", [None, 0.05], ["fast", -1]),
        ("football", "viewer_size", [(600, 400), [600, 400]], [600, [600], "ab"]),
        ("road_traffic", "map_type", ["2"], [2]),
        ("road_traffic", "scenario_probabilities", [[0, 0.5, 0.5]], [[1.0], ["a", "b", "c"]]),
        ("road_traffic", "l_f", [0.1], [None]),
    ],
)
def test_kinds_of_options(name: str, option: str, good: list[Any], wrong: list[Any]) -> None:
    cls = load_scenario(name)
    for value in good:
        check_scenario_options(cls, {option: value}, (), name)
    for value in wrong:
        with pytest.raises(ConfigError, match=re.escape(f"{name}: {option}={value!r}, expected ")):
            check_scenario_options(cls, {option: value}, (), name)


def test_dictionary_observations_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected a vector"):
        make_env("vmas/football", dict_obs=True)


# ---------------------------------------------------------------------- the contract
@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 3])
@every_scenario
def test_contract(name: str, num_envs: int) -> None:
    env = make(name, num_envs, max_steps=4)
    check_env_specs(env)
    spec = check_team_env(env, steps=6, thorough=False)
    assert spec.names == tuple(env.agent_names)
    assert spec.state_dim is None
    data = env.rollout(10, break_when_any_done=False)
    ended_early = data["next", "terminated"][:, :4].any(1)
    assert (data["next", "truncated"][:, 3] | ended_early).all()
    assert data["next", "reward"].isfinite().all()


@pytest.mark.parametrize("actions", ["discrete", "multi_discrete"])
@pytest.mark.parametrize(
    "name", ["balance", "simple_reference", "simple_speaker_listener", "kinematic_bicycle"]
)
def test_discrete_actions(name: str, actions: str) -> None:
    env = make(name, actions=actions)
    check_env_specs(env)
    env.rollout(5)


def test_choices_of_discrete_actions() -> None:
    reference = make("simple_reference", actions="multi_discrete")
    choices = reference.full_action_spec["agents", "action"].nvec
    assert choices.shape == (3, 2, 3)
    assert choices[0, 0].tolist() == [3, 3, 10]
    spec = check_team_env(make("balance", actions="discrete"))
    assert {(agent.action.kind, agent.action.choices) for agent in spec.agents} == {
        ("discrete", (9,))
    }


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        *(
            pytest.param(name, "continuous", marks=() if name in FAST else pytest.mark.slow)
            for name in scenario_names()
        ),
        *product(("balance", "simple_crypto", "simple_reference"), ("discrete", "multi_discrete")),
    ],
)
def test_equals_vmas(name: str, actions: str) -> None:
    """Observations, rewards and dones of the simulator itself, through a second episode."""
    options = SMALLER.get(name, {})
    env = make(name, num_envs=4, seed=5, actions=actions)
    raw = vmas.make_env(
        name,
        num_envs=4,
        seed=5,
        continuous_actions=actions == "continuous",
        multidiscrete_actions=actions == "multi_discrete",
        terminated_truncated=True,
        **options,
    )
    places = [
        next((g, names.index(name)) for g, names in env.group_map.items() if name in names)
        for name in env.agent_names
    ]
    torch.manual_seed(0)
    observations, data = raw.reset(seed=5), env.reset()
    for step in range(8):
        if step == 5:
            observations, data = raw.reset(), env.reset()
        for i, (group, index) in enumerate(places):
            assert torch.equal(data[group, "observation"][:, index], observations[i])
        data = env.rand_action(data)
        # VMAS may write into the actions that it is given
        given = [action.clone() for action in env._read_actions(data)]
        observations, rewards, terminated, _, _ = raw.step(given)
        result = env.step(data)["next"]
        for i, (group, index) in enumerate(places):
            found = result[group, "reward"][:, index, 0]
            assert torch.equal(found, rewards[i].float().reshape(4))
        mean = torch.stack([r.float().reshape(4) for r in rewards]).mean(0)
        torch.testing.assert_close(result["reward"][:, 0], mean)
        assert torch.equal(result["terminated"][:, 0], terminated.bool())
        data = result


def test_time_limit_truncates_and_counts_each_row_for_itself() -> None:
    env = make("simple_spread", num_envs=3, max_steps=5)
    data = env.reset()
    for step in range(1, 12):
        data = env.rand_step(data)
        expected = [step in (5, 10), step in (2, 7), step in (5, 10)]
        if step == 2:  # reset a row in the middle of its episode
            data["next", "truncated"][1] = data["next", "done"][1] = True
        assert data["next", "truncated"][:, 0].tolist() == expected
        assert not data["next", "terminated"].any()
        data = env.maybe_reset(env.step_mdp(data))
    assert make("balance").max_steps == 100
    assert make("football").max_steps == 500


def test_final_observation_is_kept() -> None:
    env = make("navigation", max_steps=2)
    data = env.rollout(4, break_when_any_done=False)
    last, first = data["next", "agents", "observation"][:, 1], data["agents", "observation"][:, 2]
    assert not torch.equal(last, first)
    assert (first[..., 2:4] == 0).all(), "a fresh episode starts at rest"


@pytest.mark.slow
def test_scenario_done_terminates() -> None:
    env = make("balance", num_envs=50, max_steps=400)
    data = env.rollout(150, break_when_any_done=False)
    assert data["next", "terminated"].any()
    assert not data["next", "truncated"].any()


# ---------------------------------------------------------------------- groups and teams
@pytest.mark.parametrize(
    ("name", "options", "groups"),
    [
        ("balance", {}, {"agents": ["agent_0", "agent_1", "agent_2"]}),
        ("het_mass", {}, {"agents_0": ["agent_0"], "agents_1": ["agent_1"]}),
        ("het_mass", {"mass_noise": 0, "blue_mass": 4}, {"agents": ["agent_0", "agent_1"]}),
        ("wind_flocking", {}, {"agents_0": ["agent_0"], "agents_1": ["agent_1"]}),
        ("joint_passage_size", {}, {"agents_0": ["agent_0"], "agents_1": ["agent_1"]}),
        ("diff_drive", {}, {"diff_drive": ["diff_drive_0"], "holo_rot": ["holo_rot_1"]}),
        ("buzz_wire", {"max_speed_1": 0.05}, {"agents_0": ["agent_0"], "agents_1": ["agent_1"]}),
        (
            "simple_speaker_listener",
            {},
            {"speaker": ["speaker_0"], "listener": ["listener_0"]},
        ),
        (
            "simple_world_comm",
            {"team": "adversaries", "num_adversaries": 3},
            {"lead_adversary": ["lead_adversary_0"], "adversary": ["adversary_1", "adversary_2"]},
        ),
    ],
)
def test_groups(name: str, options: dict[str, Any], groups: dict[str, list[str]]) -> None:
    assert make(name, **options).group_map == groups


def test_unequal_spaces_are_not_padded() -> None:
    speaker, listener = TeamSpec.from_env(make("simple_speaker_listener")).agents
    assert (speaker.observation_shape, speaker.action.dim) == ((3,), 5)
    assert (listener.observation_shape, listener.action.dim) == ((11,), 2)
    assert speaker.action.low == (-1, -1, 0, 0, 0)


def test_physically_different_footballers_are_in_groups_of_equals() -> None:
    env = make("football", n_blue_agents=5, physically_different=True)
    for names in env.group_map.values():
        bodies = {
            (agent.shape.radius, agent.max_speed, tuple(np.ravel(agent.u_multiplier)))
            for agent in env._team.agents
            if agent.name in names
        }
        assert len(bodies) == 1
    assert 1 < len(env.group_map) < 5


def test_team_reward_is_mean_or_sum_of_the_agents() -> None:
    for how in ("mean", "sum"):
        data = make("discovery", team_reward=how).rollout(5)
        rewards = data["next", "agents", "reward"]
        torch.testing.assert_close(data["next", "reward"], getattr(rewards, how)(dim=-2))
    mean = make("discovery").rollout(5)
    torch.testing.assert_close(mean["next", "reward"], mean["next", "agents", "reward"].mean(-2))


@pytest.mark.slow
def test_the_page_shows_the_scenarios_as_they_are() -> None:
    from hetmarl_envs.vmas.__main__ import scenario_table

    page = Path(__file__).parents[2] / "docs" / "environments" / "vmas.md"
    assert scenario_table() in page.read_text(), "put `python -m hetmarl_envs.vmas` into the page"


@pytest.mark.parametrize("name", OPPOSED)
def test_opposed_teams_need_a_choice(name: str) -> None:
    with pytest.raises(ContractError, match=r"opposes teams.*Pass team='adversaries'.*team_reward"):
        make_env(f"vmas/{name}")
    with pytest.raises(ConfigError, match=r"no team 'goood'. Did you mean 'good'"):
        make_env(f"vmas/{name}", team="goood")
    assert len(make(name, team="good").agent_names) + len(
        make(name, team="adversaries").agent_names
    ) == len(make(name).agent_names)


def test_two_teams_of_football() -> None:
    with pytest.raises(ContractError, match="opposes teams"):
        make_env("vmas/football", ai_red_agents=False)
    red = make("football", ai_red_agents=False, team="red", enable_shooting=True)
    check_env_specs(red)
    assert red.agent_names == ["agent_red_0", "agent_red_1", "agent_red_2"]


@pytest.mark.parametrize("actions", ["continuous", "discrete", "multi_discrete"])
def test_opponents(actions: str) -> None:
    """Still ones do nothing, random ones act, and neither touches the global stream."""
    for opponents in ("still", "random"):
        env = make("simple_tag", team="adversaries", opponents=opponents, actions=actions)
        check_env_specs(env)
        data = env.reset()
        state = torch.get_rng_state()
        forces = []
        for _ in range(4):
            env.step(data.update(env.full_action_spec.zero()))
            forces.append(env._simulator.agents[-1].action.u.clone())
        assert torch.equal(state, torch.get_rng_state())
        assert bool(torch.stack(forces).any()) == (opponents == "random")


def test_actions_outside_the_space_are_clamped_and_nan_is_refused() -> None:
    env, bounded = make("navigation"), make("navigation")
    data, same = env.reset(), bounded.reset()
    action = torch.full_like(env.full_action_spec["agents", "action"].zero(), 1.0 + 1e-6)
    data["agents", "action"], same["agents", "action"] = action, action.clamp(-1, 1)
    found, expected = env.step(data)["next"], bounded.step(same)["next"]
    assert torch.equal(found["agents", "observation"], expected["agents", "observation"])
    data["agents", "action"] = action * float("nan")
    with pytest.raises(ContractError, match="action of agent agent_0 holds NaN"):
        env.step(data)


def test_a_scenario_of_ones_own() -> None:
    """Passed as a class; its options and its parent's are checked alike."""
    parent = load_scenario("navigation")

    class TwoSizes(parent):  # type: ignore[misc, valid-type]
        def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> Any:
            radius = kwargs.pop("second_radius", 0.2)
            world = super().make_world(batch_dim, device, **kwargs)
            world.agents[1]._shape = type(world.agents[1].shape)(radius)
            return world

    env = VMASEnv(TwoSizes, num_envs=4, n_agents=3, second_radius=0.15)
    assert env.group_map == {"agents_0": ["agent_0", "agent_2"], "agents_1": ["agent_1"]}
    check_env_specs(env)
    env.rollout(220, break_when_any_done=False)
    with pytest.raises(ConfigError, match="Did you mean 'second_radius'"):
        VMASEnv(TwoSizes, second_radiu=1)


# ---------------------------------------------------------------------- pictures, quiet
@pytest.fixture(scope="module")
def can_draw() -> None:
    try:
        make("balance").render()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("can_draw")
def test_render() -> None:
    env, other = make("balance"), make("football")
    pictures = []
    for _ in range(2):
        env.rollout(3)
        other.reset()
        pictures += [env.render(0), env.render(2), other.render(1)]
    for picture in pictures:
        assert picture.dtype == np.uint8
        assert picture.ndim == 3 and picture.shape[2] == 3
        assert picture.std() > 0
    assert (pictures[0] != pictures[1]).any()
    with pytest.raises(ConfigError, match="index=3, expected 0 to 2"):
        env.render(3)
    env.close()


@pytest.mark.usefixtures("can_draw")
def test_several_rows_in_one_picture() -> None:
    env = make("balance", num_envs=5)
    env.rollout(2)
    height, width, _ = env.render().shape
    picture = env.render([3, 0, 4, 1, 2])
    assert picture.dtype == np.uint8 and picture.shape == (2 * height, 3 * width, 3)
    tiles = [
        picture[top : top + height, left : left + width]
        for top in (0, height)
        for left in (0, width, 2 * width)
    ]
    for tile, row in zip(tiles, [3, 0, 4, 1, 2], strict=False):
        assert np.array_equal(tile, env.render(row))
    assert not tiles[-1].any(), "what is left is black"
    assert np.array_equal(env.render([2]), env.render(2))
    for wrong in ([], [0, 5], [-1]):
        message = re.escape(f"index={wrong}, expected 0 to 4, or a list of them")
        with pytest.raises(ConfigError, match=message):
            env.render(wrong)
    env.close()


@pytest.mark.usefixtures("can_draw")
def test_render_does_not_change_the_episode() -> None:
    env, blind = make("dispersion"), make("dispersion")
    data, same = env.reset(), blind.reset()
    for _ in range(5):
        data = env.rand_action(data)
        same["agents", "action"] = data["agents", "action"].clone()
        data, same = env.step(data)["next"], blind.step(same)["next"]
        env.render()
    assert torch.equal(data["agents", "observation"], same["agents", "observation"])


def test_render_without_a_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("balance")

    def fail(**_: Any) -> None:
        raise ImportError('Library "GL" not found.')

    monkeypatch.setattr(env._simulator, "render", fail)
    with pytest.raises(MissingExtraError, match="apt-get install libegl1"):
        env.render()


@pytest.mark.slow
def test_nothing_is_printed_and_no_file_written(tmp_path: Path) -> None:
    code = (
        "import hetmarl_envs\n"
        "for name in ('balance', 'vel_control', 'football'):\n"
        "    hetmarl_envs.make_env('vmas/' + name, num_envs=2, max_steps=3).rollout(\n"
        "        8, break_when_any_done=False)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout == ""
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["balance", "navigation", "football", "simple_tag"])
def test_on_a_gpu(name: str) -> None:
    env, same = (make(name, num_envs=8, device="cuda", max_steps=5, seed=1) for _ in range(2))
    check_env_specs(env)
    env.set_seed(1)
    data, again = env.reset(), same.reset()
    assert data["agents" if name != "simple_tag" else "agent", "observation"].is_cuda
    for _ in range(12):
        data = env.rand_action(data)
        again.update(data.select(*env.action_keys).clone())
        data, again = env.step_and_maybe_reset(data)[1], same.step_and_maybe_reset(again)[1]
    copy = make(name, num_envs=8, device="cuda", max_steps=5)
    copy.load_runtime_state(env.runtime_state())
    for group in env.group_map:
        assert torch.equal(data[group, "observation"], again[group, "observation"])
        assert torch.equal(copy._observation[group], env._observation[group])
