"""SMAX: the numbers of JaxMARL, ends, seeds, exact resume, memory that is shared with JAX."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from hetmarl.data.collector import can_save
from hetmarl_envs import TeamSpec, check_team_env, list_tasks, make_env, registry
from hetmarl_envs.contract import write_random_actions
from hetmarl_envs.errors import ConfigError, ContractError, MissingExtraError, UnknownNameError
from hetmarl_envs.registry import get_family
from hetmarl_envs.smacv2.games import INFO as SMACV2_INFO
from hetmarl_envs.smax import MAPS
from hetmarl_envs.smax.tasks import OPTIONS, battle_options

MISSING = get_family("smax").missing()
plays = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
# Every number of rows, and every set of options, is compiled anew: few of them are tried.
ROWS = 4
STOP, ATTACK = 4, 5
SIZES = {
    "3m": (3, 3),
    "8m": (8, 8),
    "25m": (25, 25),
    "2s3z": (5, 5),
    "3s5z": (8, 8),
    "5m_vs_6m": (5, 6),
    "10m_vs_11m": (10, 11),
    "27m_vs_30m": (27, 30),
    "3s5z_vs_3s6z": (8, 9),
    "3s_vs_5z": (3, 5),
    "6h_vs_8z": (6, 8),
    "smacv2_5_units": (5, 5),
    "smacv2_10_units": (10, 10),
    "smacv2_20_units": (20, 20),
}


def make(task: str = "3m", **options: Any) -> Any:
    return make_env(f"smax/{task}", **{"num_envs": ROWS, "seed": 1} | options)


def play(env: Any, steps: int, seed: int = 0, data: Any = None) -> tuple[Any, Any]:
    """Random legal actions; what was seen, stacked over time, and where the next step begins."""
    generator, spec = torch.Generator().manual_seed(seed), TeamSpec.from_env(env)
    data = env.reset() if data is None else data
    seen = []
    for _ in range(steps):
        stepped, data = env.step_and_maybe_reset(write_random_actions(data, spec, generator))
        seen.append(stepped)
    return torch.stack(seen, dim=1), data


# ---------------------------------------------------------------------- names and options
def test_tasks_are_listed_without_the_package() -> None:
    assert list_tasks("smax") == [f"smax/{name}" for name in sorted(SIZES)]
    assert set(MAPS) == set(SIZES)


def test_without_jaxmarl_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_installed", lambda name: name != "jaxmarl")
    pip = 'needs jaxmarl, not installed here: pip install "hetmarl[smax]"'
    with pytest.raises(MissingExtraError, match=re.escape(pip)):
        make_env("smax/3m")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_step": 3}, r"no option 'max_step'. Did you mean 'max_steps'\?"),
        ({"max_steps": 0}, "max_steps=0, expected a whole number of at least 1"),
        ({"max_steps": True}, "max_steps=True, expected a whole number"),
        ({"won_battle_bonus": float("inf")}, "expected a finite number from 0"),
        ({"walls_cause_death": 1}, "walls_cause_death=1, expected true or false"),
        ({"attack_mode": "weakest"}, "expected one of"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        battle_options("smax/3m", options)


@plays
@pytest.mark.parametrize("task", ["3m", "smacv2_5_units"])
def test_entities_are_the_units_of_the_state(task: str) -> None:
    env = make(task)
    spec, (seen, _) = TeamSpec.from_env(env), play(env, 30)
    friends, enemies = (block.rows(seen["state"]) for block in spec.state_entities)
    assert [block.name for block in spec.state_entities] == [*spec.groups, "enemies"]
    assert spec.state_entities[1].choices == spec.agents[0].entities[1].choices
    hidden = 0
    for i, agent in enumerate(spec.agents):
        others = [j for j in range(spec.num_agents) if j != i]
        observation, legal = spec.observation(seen, i), spec.action_mask(seen, i)
        assert legal is not None
        for block, units in zip(agent.entities, (friends[..., others, :], enemies), strict=True):
            own = block.rows(observation)
            there = own.any(-1)
            hidden += int((~there).sum())
            assert torch.equal(own[there][:, 0], units[there][:, 0])  # life
            assert torch.equal(own[there][:, 7:], units[there][:, 4:])  # type
        assert agent.entities[0].choices == ()
        shot_at = legal[..., list(agent.entities[1].choices)]
        assert there.any() and shot_at.any() and there[shot_at].all()
    assert hidden > 0


@plays
def test_an_unknown_map() -> None:
    with pytest.raises(UnknownNameError, match=r"no map '3s5'. Did you mean '3s5z'"):
        make("3s5")


@plays
def test_maps_and_defaults_are_those_of_jaxmarl() -> None:
    import inspect

    from hetmarl_envs.smax.library import load_smax

    smax = load_smax()
    assert set(smax.smax_env.MAP_NAME_TO_SCENARIO) == set(MAPS)
    classes = (smax.SMAX, smax.HeuristicEnemySMAX)
    known = {k: p.default for c in classes for k, p in inspect.signature(c).parameters.items()}
    assert {name: known[name] for name in OPTIONS} == dict(OPTIONS)


@plays
@pytest.mark.slow
@pytest.mark.parametrize("task", MAPS)
def test_teams_of_every_map(task: str) -> None:
    agents, enemies = SIZES[task]
    spec = TeamSpec.from_env(make(task, num_envs=1))
    assert spec.groups == {"agents": tuple(range(agents))}
    assert spec.agents[0].action.choices == (5 + enemies,)
    assert spec.agents[0].observation_shape == (13 * (agents + enemies - 1) + 10,)
    assert spec.state_dim == 12 * (agents + enemies)


@plays
def test_a_map_of_ones_own() -> None:
    import jax.numpy as jnp

    from hetmarl_envs.smax.library import load_smax

    smax = load_smax()
    smax.register_scenario(
        "1s_vs_2z", smax.Scenario(jnp.array([2, 3, 3], jnp.uint8), 1, 2, False, False)
    )
    try:
        spec = TeamSpec.from_env(make("1s_vs_2z"))
        assert spec.names == ("ally_0",)
        assert [(block.name, block.start) for block in spec.agents[0].entities] == [("enemies", 0)]
    finally:
        del smax.smax_env.MAP_NAME_TO_SCENARIO["1s_vs_2z"]


# ---------------------------------------------------------------------- battles
@plays
@pytest.mark.slow
def test_the_contract_holds() -> None:
    env = make()
    check_team_env(env, steps=130)
    check_env_specs(env)
    assert tuple(env.observation_spec["info"].keys()) == SMACV2_INFO[:3], "as SMACv2 calls them"
    seen, _ = play(env, 130)
    assert seen["next", "done"].any()
    dead = ~seen["agents", "alive"].squeeze(-1)
    assert dead.any() and not dead[:, 0].any()
    legal = seen["agents", "action_mask"][dead]
    assert legal[:, STOP].all() and legal.sum(-1).eq(1).all()
    assert seen["agents", "observation"][dead].eq(0).all()
    assert seen["agents", "observation"][~dead].ne(0).any(-1).all()
    counted = (~seen["next", "agents", "alive"]).float().mean(-2)
    assert torch.allclose(seen["next", "info", "dead_allies"], counted)


@plays
@pytest.mark.slow
def test_equals_jaxmarl() -> None:
    """Observations, masks, states and rewards of all rows, until the first battle is over."""
    import jax
    import jax.numpy as jnp

    from hetmarl_envs.smax.library import load_smax

    smax = load_smax()
    bare = smax.HeuristicEnemySMAX(scenario=smax.map_name_to_scenario("3m"))
    env = make(seed=3)
    keys = env._battles._rows.key
    advance = jax.vmap(lambda key: tuple(jax.random.split(key)))
    step, legal = jax.jit(jax.vmap(bare.step_env)), jax.jit(jax.vmap(bare.get_avail_actions))

    def same(data: Any, observations: Any, state: Any) -> None:
        masks = legal(state)
        for i, name in enumerate(bare.agents):
            close(data["agents", "observation"][:, i], observations[name])
            assert np.array_equal(data["agents", "action_mask"][:, i], masks[name].astype(bool))
        close(data["state"], observations["world_state"])

    def close(ours: torch.Tensor, theirs: Any) -> None:
        # compiled in another program: equal up to rounding
        np.testing.assert_allclose(ours.numpy(), np.asarray(theirs), rtol=1e-4, atol=1e-4)

    now, keys = advance(keys)
    observations, state = jax.jit(jax.vmap(bare.reset))(now)
    data = env.reset()
    same(data, observations, state)
    steps = 0
    while not data["done"].any():
        steps += 1
        data = env.step(env.rand_action(data))
        chosen = np.asarray(data["agents", "action"], np.int32)
        now, keys = advance(keys)
        actions = {name: jnp.asarray(chosen[:, i]) for i, name in enumerate(bare.agents)}
        observations, state, rewards, dones, _ = step(now, state, actions)
        same(data["next"], observations, state)
        close(data["next", "reward"][:, 0], rewards["ally_0"])
        assert np.array_equal(data["next", "done"][:, 0], dones["__all__"])
        data = env.step_mdp(data)
    assert 10 < steps < 100


def fight(data: Any) -> Any:
    """Everybody attacks whom he can, and else waits for them to come."""
    mask = data["agents", "action_mask"]
    can = mask[..., ATTACK:].any(-1)
    nearest = ATTACK + mask[..., ATTACK:].int().argmax(-1)
    return data.set(("agents", "action"), torch.where(can, nearest, STOP))


@plays
@pytest.mark.slow
def test_a_victory_returns_two() -> None:
    env = make(enemy_shoots=False)
    data = env.reset()
    total, ended = torch.zeros(ROWS, 1), torch.zeros(ROWS, 1, dtype=torch.bool)
    for _ in range(100):
        data = env.step(fight(data))["next"]
        total += data["reward"] * ~ended
        new = data["terminated"] & ~ended
        info = data["info"][new.squeeze(-1)]
        assert info["battle_won"].eq(1).all() and info["dead_allies"].eq(0).all()
        assert info["dead_enemies"] == pytest.approx(torch.ones(len(info), 1))
        ended |= new
    assert ended.all()
    assert total == pytest.approx(torch.full((ROWS, 1), 2.0))


@plays
@pytest.mark.slow
def test_the_time_limit_truncates_after_its_steps_and_a_defeat_terminates() -> None:
    env = make(enemy_shoots=False)
    data = env.reset()
    assert env.max_steps == 100
    for step in range(1, 101):
        data["agents", "action"] = torch.full((ROWS, 3), STOP)
        data = env.step(data)["next"]
        assert data["truncated"].eq(step == 100).all() and not data["terminated"].any()
    env = make()
    data = env.reset()
    while not data["done"].any():
        data["agents", "action"] = torch.full((ROWS, 3), STOP)
        data = env.step(data)["next"]
    over = data["done"].squeeze(-1)
    assert data["terminated"][over].all() and not data["truncated"].any()
    assert data["info", "dead_allies"][over] == pytest.approx(torch.ones(int(over.sum()), 1))
    assert data["info", "battle_won"].eq(0).all()


@plays
@pytest.mark.slow
def test_same_seed_same_battles() -> None:
    (a, _), (b, _) = play(make(seed=5), 120), play(make(seed=5), 120)
    assert a["next", "done"].any(), "episodes after the first are seeded too"
    assert (a == b).all()
    starts = a["state"][:, 0]
    assert len(starts.unique(dim=0)) == ROWS, "the rows of a batch differ"
    assert not torch.equal(make(seed=6).reset()["state"], starts)


@plays
@pytest.mark.slow
def test_runs_are_resumed_bit_exactly() -> None:
    env = make(seed=7)
    assert can_save(env)
    _, data = play(env, 60)
    file = io.BytesIO()
    torch.save(env.runtime_state(), file)
    file.seek(0)
    carrier = data.clone()
    expected, _ = play(env, 60, seed=2, data=data)
    other = make(seed=99)
    state = torch.load(file, weights_only=True)
    before = {name: value.clone() for name, value in state["battles"].items()}
    other.load_runtime_state(state)
    seen, _ = play(other, 60, seed=2, data=carrier)
    assert seen["next", "done"].any()
    assert (seen == expected).all()
    assert all(torch.equal(before[name], value) for name, value in state["battles"].items())
    before_the_first = make(seed=7).runtime_state()
    other.load_runtime_state(before_the_first)
    assert (other.reset() == make(seed=7).reset()).all()
    with pytest.raises(ConfigError, match="smax/3m: the saved state holds"):
        make(num_envs=2).load_runtime_state(state)
    with pytest.raises(ConfigError, match=r"is of smax/3m, the environment is smax/3s_vs_5z"):
        make("3s_vs_5z").load_runtime_state(state)


@plays
@pytest.mark.slow
@pytest.mark.parametrize("action", [ATTACK, 99, -1])
def test_an_action_that_is_not_legal_is_named(action: int) -> None:
    env = make()
    data = env.reset()
    data["agents", "action"] = torch.full((ROWS, 3), STOP)
    data["agents", "action"][2, 1] = action
    expected = rf"ally_1 of row 2 cannot do {action} now, legal are \[0, 1, 2, 3, 4\]"
    with pytest.raises(ContractError, match=expected):
        env.step(data)


@plays
def test_pictures_show_the_living() -> None:
    env = make()
    env.reset()
    assert len(env._battles.units(3)) == 6
    picture = env.render(3)
    assert picture.shape == (480, 480, 3)
    blue = (picture[..., 2].astype(int) - picture[..., 0] > 60).nonzero()[1].mean()
    red = (picture[..., 0].astype(int) - picture[..., 2] > 60).nonzero()[1].mean()
    assert blue < 240 < red, "we begin on the left"
    with pytest.raises(ConfigError, match="index=4, expected 0 to 3"):
        env.render(4)


# ---------------------------------------------------------------------- beside JAX
@plays
@pytest.mark.slow
def test_nothing_is_copied_and_nothing_is_compiled_twice() -> None:
    env = make("3m", max_steps=30)
    data = env.reset()
    array = env._battles._rows.seen["observation"]
    assert data["agents", "observation"].data_ptr() == array.unsafe_buffer_pointer()
    actions = torch.zeros(ROWS, 3, dtype=torch.int32)
    assert env._battles._to_jax(actions).unsafe_buffer_pointer() == actions.data_ptr()
    play(env, 70)
    env.load_runtime_state(env.runtime_state())
    play(env, 5)
    play(make("3m", max_steps=30, seed=2), 5)
    program = env._battles._program
    assert program.step._cache_size() == program.reset._cache_size() == 1


@plays
@pytest.mark.slow
def test_jax_comes_quietly_with_the_threads_of_torch() -> None:
    code = """
import os, pathlib, sys, torch
torch.set_num_threads(1)
from hetmarl_envs import make_env
streams = sys.stdout, sys.stderr
make_env("smax/3m")
assert (sys.stdout, sys.stderr) == streams and "NPROC" not in os.environ
tasks = pathlib.Path("/proc/self/task")
names = [name.read_text() for name in tasks.glob("*/comm")]
assert sum("XLAEigen" in name for name in names) <= 1, names
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
