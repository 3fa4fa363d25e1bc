"""Games as environments: contract, payoffs, ends, seeds, exact state, closed forms."""

from __future__ import annotations

import inspect
import io
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs.utils import check_env_specs

from hetmarl_envs import TeamSpec, check_team_env, list_tasks, make_env
from hetmarl_envs.errors import ConfigError, ContractError, UnknownNameError
from hetmarl_envs.games import TASKS
from hetmarl_envs.games.base import GameEnv
from hetmarl_envs.games.roles import RolesEnv
from hetmarl_envs.games.table_env import TableEnv, _thresholds
from hetmarl_envs.games.tasks import MAKERS

LONG_ROLES = {"num_agents": 3, "heterogeneity": 0.5, "repeats": 4, "death_step": 2}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("product", {}),
    ("climbing", {}),
    ("climbing", {"repeats": 3}),
    ("penalty", {"k": -10}),
    ("xor", {"repeats": 2}),
    ("trap", {}),
    ("sharing", {"num_agents": 6}),
    ("matrix", {"matrix": [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, -12]]], "repeats": 2}),
    ("markov", {"max_steps": 5}),
    ("markov", {"states": 6, "actions": [2, 3, 2], "density": 0.3, "termination": 0.3}),
    ("recall", {}),
    ("recall", {"num_agents": 3, "cues": 4, "delay": 0}),
    ("roles", {}),
    ("roles", {"actions": "continuous", "heterogeneity": 0.3}),
    ("roles", {**LONG_ROLES, "bonus": True}),
    ("mixed", {}),
    ("mixed", {**LONG_ROLES, "actions": ["discrete", "continuous", "discrete"], "bonus": True}),
]
every_variant = pytest.mark.parametrize(
    ("task", "options"),
    VARIANTS,
    ids=["-".join([t, *(f"{k}={v}" for k, v in o.items() if k != "matrix")]) for t, o in VARIANTS],
)


def make(task: str, num_envs: int = 4, seed: int = 0, **options: Any) -> GameEnv:
    env = make_env(f"games/{task}", num_envs=num_envs, seed=seed, **options)
    assert isinstance(env, GameEnv)
    return env


def joint(env: GameEnv, *actions: float) -> TensorDict:
    """The same joint action, in the team's order, for every sub-environment."""
    data = TensorDict({}, env.batch_size)
    for group, names in env.group_map.items():
        chosen = torch.tensor([actions[env.agent_names.index(name)] for name in names])
        chosen = chosen.expand(env.num_envs, -1)
        if env.full_action_spec[group, "action"].dtype.is_floating_point:
            chosen = chosen.float().unsqueeze(-1)
        data[group, "action"] = chosen
    return data


def step(env: GameEnv, *actions: float) -> TensorDictBase:
    return env.step(joint(env, *actions))["next"]


def legal_actions(env: GameEnv, data: TensorDictBase, seed: int) -> TensorDictBase:
    """Random legal actions of a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    for group, names in env.group_map.items():
        spec = env.full_action_spec[group, "action"]
        if spec.dtype.is_floating_point:
            data[group, "action"] = torch.randn(spec.shape, generator=generator)
            continue
        mask = torch.ones(env.num_envs, len(names), spec.space.n)
        if (group, "action_mask") in data.keys(True):
            mask = data[group, "action_mask"].float()
        drawn = torch.multinomial(mask.flatten(0, 1), 1, generator=generator)
        data[group, "action"] = drawn.reshape(spec.shape)
    return data


def play(env: GameEnv, data: TensorDictBase, steps: int, seed: int = 0) -> list[TensorDictBase]:
    """Steps with resets, each as the whole of what the environment returned."""
    seen = []
    for t in range(steps):
        data = env.step(legal_actions(env, data, seed * 1000 + t))
        seen.append(data.clone())
        data = env.step_mdp(data)
        if bool(data["done"].any()):
            data = env.reset(data.set("_reset", data["done"]))
            data.exclude("_reset", inplace=True)
    return seen


def assert_equal(left: list[TensorDictBase], right: list[TensorDictBase]) -> None:
    for a, b in zip(left, right, strict=True):
        assert set(a.keys(True, True)) == set(b.keys(True, True))
        for key in a.keys(True, True):
            assert torch.equal(a[key], b[key]), key


# ---------------------------------------------------------------------- the family
@pytest.mark.slow
def test_tasks_are_listed_without_making_any() -> None:
    assert list_tasks("games") == [f"games/{name}" for name in sorted(TASKS)]
    assert sorted(MAKERS) == sorted(TASKS)
    code = (
        "import sys, hetmarl_envs; assert len(hetmarl_envs.list_tasks('games')) == 11; "
        "print([m for m in sys.modules if m.startswith('hetmarl_envs.games.')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@every_variant
def test_contract(task: str, options: dict[str, Any]) -> None:
    env = make(task, **options)
    assert env.batch_size == (4,) and env.where == f"games/{task}"
    check_team_env(env, steps=12)
    check_env_specs(env)
    seen = play(env, env.reset(), 12)
    for data in seen:
        following = data["next"]
        assert torch.equal(following["done"], following["terminated"] | following["truncated"])
        assert following["reward"].shape == (4, 1) and following["reward"].dtype == torch.float32
        for key in env.observation_spec.keys(True, True):
            assert env.observation_spec[key].is_in(following[key]), key
            assert following[key].dtype == env.observation_spec[key].dtype


@every_variant
def test_what_is_returned_is_not_touched_later(task: str, options: dict[str, Any]) -> None:
    env = make(task, **options)
    data = env.step(legal_actions(env, env.reset(), 0))
    copy = data.clone()
    play(env, env.reset(), 3)
    assert_equal([data], [copy])


def test_groups_follow_the_action_spaces() -> None:
    assert make("climbing").group_map == {"agents": ["agent_0", "agent_1"]}
    markov = make("markov", actions=[2, 3, 2])
    assert markov.group_map == {"agents_0": ["agent_0", "agent_2"], "agents_1": ["agent_1"]}
    assert TeamSpec.from_env(markov).names == ("agent_0", "agent_1", "agent_2")
    mixed = TeamSpec.from_env(make("mixed", actions=["discrete", "continuous", "discrete"]))
    assert [agent.action.kind for agent in mixed.agents] == ["discrete", "continuous", "discrete"]
    assert [agent.group for agent in mixed.agents] == ["agents_0", "agents_1", "agents_0"]


# ---------------------------------------------------------------------- rewards and ends
@pytest.mark.parametrize(
    ("task", "options", "payoff"),
    [
        ("climbing", {}, [[11, -30, 0], [-30, 7, 6], [0, 0, 5]]),
        ("penalty", {}, [[10, 0, -100], [0, 2, 0], [-100, 0, 10]]),
        ("penalty", {"k": -3.5}, [[10, 0, -3.5], [0, 2, 0], [-3.5, 0, 10]]),
        ("xor", {}, [[0, 1], [1, 0]]),
        ("trap", {}, [[0, 2], [2, -1]]),
        (
            "matrix",
            {"matrix": torch.arange(12).reshape(2, 3, 2)},
            torch.arange(12).reshape(2, 3, 2),
        ),
        ("matrix", {"matrix": [1.5, -2]}, [1.5, -2]),
    ],
)
def test_payoffs(task: str, options: dict[str, Any], payoff: Any) -> None:
    env, payoff = make(task, **options), torch.as_tensor(payoff).float()
    for actions in itertools.product(*(range(k) for k in payoff.shape)):
        env.reset()
        assert (step(env, *actions)["reward"] == payoff[actions]).all()
    assert env.optimal_return == payoff.max()
    assert isinstance(env, TableEnv) and env.game.actions == payoff.shape


def test_sharing_pays_for_two_halves() -> None:
    env = make("sharing")
    for actions in itertools.product((0, 1), repeat=4):
        env.reset()
        right = actions in ((0, 0, 1, 1), (1, 1, 0, 0))
        assert (step(env, *actions)["reward"] == float(right)).all()


@pytest.mark.parametrize("n", [2, 4, 6])
def test_the_cost_of_sharing(n: int) -> None:
    env = make("sharing", num_agents=n)
    assert isinstance(env, TableEnv)
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    shared = max(env.game.expected_return([torch.stack([p, 1 - p])[None]] * n, 0.0) for p in grid)
    assert env.shared_return == pytest.approx(shared) == pytest.approx(2 / 2**n)
    assert env.optimal_return == 1
    assert make("sharing", num_agents=n, repeats=5).shared_return == pytest.approx(10 / 2**n)


def test_a_game_is_played_once_or_repeated() -> None:
    once = make("climbing")
    data = once.reset()
    assert (data["state"] == 1).all()
    data = step(once, 1, 1)
    assert data["terminated"].all() and not data["truncated"].any()
    assert (data["state"] == 0).all() and (data["agents", "observation"] == 0).all()
    repeated = make("climbing", repeats=3)
    repeated.reset()
    for late in (False, False, True):
        data = step(repeated, 0, 0)
        assert (data["truncated"] == late).all() and not data["terminated"].any()
        assert (data["state"] == 1).all()
    assert repeated.optimal_return == 33


def test_product() -> None:
    env = make("product")
    env.reset()
    data = step(env, -3.0, 2.5)
    assert (data["reward"] == -7.5).all() and data["terminated"].all()
    env.reset()
    assert (step(env, 40.0, 2.0)["reward"] == 80).all()  # beyond the bounds: taken as it is
    assert make("product", bound=3).optimal_return == 9
    action = TeamSpec.from_env(make("product", bound=3)).agents[1].action
    assert (action.low, action.high) == ((-3.0,), (3.0,))


def test_markov_plays_its_tables() -> None:
    """Frequencies of successors, first states and ends; rewards exactly."""
    n = 20_000
    env = make("markov", num_envs=n, states=3, termination=0.2, density=0.7, game_seed=3)
    assert isinstance(env, TableEnv)
    game, data = env.game, env.reset()
    first = data["state"].double().mean(0)
    torch.testing.assert_close(first, game.initial, atol=0.02, rtol=0)
    for a in ((0, 2), (1, 0)):
        data = env.reset()
        state = data["state"].argmax(-1)
        after = step(env, *a)
        assert torch.equal(after["reward"][:, 0], game.reward[:, *a][state].float())
        for s in range(3):
            expected = game.transition[(s, *a)]
            found = after["state"][state == s].double().mean(0)
            torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
            assert (found[expected == 0] == 0).all()
        assert torch.equal(after["terminated"][:, 0], after["state"].sum(-1) == 0)


def test_a_markov_game_without_termination_goes_on_to_its_limit() -> None:
    env = make("markov", num_envs=50, states=7, density=0.3, max_steps=100)
    data = env.rollout(250, break_when_any_done=False)
    assert not data["next", "terminated"].any() and (data["state"].sum(-1) == 1).all()
    assert data["next", "truncated"].sum() == 100
    assert data["next", "truncated"][:, [99, 199]].all()


def test_rounding_ends_no_game() -> None:
    """Ten tenths add up to less than 1; what is impossible stays so behind the last possible."""
    tenths = torch.full((10,), 0.1, dtype=torch.float64)
    assert float(tenths.cumsum(0)[-1]) < 1
    assert _thresholds(tenths)[-1] == torch.inf
    halves = torch.tensor([0.0, 0.5, 0.5, 0.0], dtype=torch.float64)
    assert _thresholds(halves).tolist() == [0.0, 0.5, torch.inf, torch.inf]
    assert _thresholds(halves / 2).tolist() == [0.0, 0.25, 0.5, 0.5]


def test_the_games_seed_is_not_the_episodes() -> None:
    first, same, other = (make("markov", seed=s, game_seed=g) for s, g in ((0, 1), (5, 1), (0, 2)))
    assert isinstance(first, TableEnv) and isinstance(same, TableEnv)
    assert isinstance(other, TableEnv)
    assert torch.equal(first.game.transition, same.game.transition)
    assert not torch.equal(first.game.transition, other.game.transition)


def test_a_game_of_ones_own_and_its_optimum() -> None:
    """Played by its optimal policy the returns average to what was computed."""
    source = make("markov", states=3, termination=0.3, max_steps=200)
    assert isinstance(source, TableEnv)
    env = TableEnv(source.game, num_envs=4000, seed=1)
    assert env.max_steps is None
    _, best = source.game.optimum(1.0)
    data, total, running = env.reset(), torch.zeros(4000), torch.ones(4000, dtype=torch.bool)
    while bool(running.any()):
        chosen = best[data["state"].argmax(-1)]
        for i, group in enumerate(env.group_map):
            data[group, "action"] = chosen[:, i : i + 1]
        following = env.step(data)["next"]
        total += following["reward"][:, 0] * running
        running &= ~following["done"][:, 0]
        data = following
    assert env.optimal_return == pytest.approx(source.game.optimal_return(1.0))
    error = float(total.std()) / 4000**0.5
    assert abs(float(total.mean()) - env.optimal_return) < 4 * error


# ---------------------------------------------------------------------- roles
def roles_reward(env: RolesEnv, roles: bool, actions: tuple[float, ...], alive: int) -> float:
    """The docstring's table, by hand."""
    n = len(actions)
    targets = [-0.5 + i / (n - 1) for i in range(n)]
    scale = sum(t * t for t in targets) / n
    total = 0.0
    for i, a in enumerate(actions[:alive]):
        if env.spaces[i].kind == "discrete":
            total += 2.0 if a == n else float(a == (i if roles else 0))
        else:
            total += 1 - (a - (targets[i] if roles else 0)) ** 2 / scale
    return total / n


@pytest.mark.parametrize(
    "actions",
    ["discrete", "continuous", ["continuous", "discrete", "discrete"]],
    ids=["discrete", "continuous", "mixed"],
)
def test_rewards_of_roles(actions: Any) -> None:
    env = make("roles", num_envs=40, heterogeneity=0.5, actions=actions, repeats=2, death_step=1)
    assert isinstance(env, RolesEnv)
    choices: list[Any] = [
        (0, 1, 2) if space.kind == "discrete" else (-0.5, 0.0, 0.25) for space in env.spaces
    ]
    for team in itertools.product(*choices):
        data = env.reset()
        for alive in (3, 2):
            roles = data["state"][:, 1] == 1
            assert roles.any() and not roles.all()
            data = step(env, *team)
            expected = [roles_reward(env, bool(r), team, alive) for r in roles]
            torch.testing.assert_close(data["reward"][:, 0], torch.tensor(expected))


def expected_return(env: RolesEnv, policy: Any) -> float:
    """Of deterministic policies ``policy(agent, roles) -> action``, bonus where legal, by hand."""
    total = 0.0
    h, n = env.heterogeneity, len(env.spaces)
    for t in range(env.steps_per_episode):
        alive = n - (env.death_step is not None and t >= env.death_step)
        for roles, weight in ((False, 1 - h), (True, h)):
            team = tuple(policy(i, roles) for i in range(n))
            plain = roles_reward(env, roles, team, alive)
            wins = sum(env.bonus and env.spaces[i].kind == "discrete" for i in range(alive))
            kept = sum(
                roles_reward(env, roles, team, i + 1) - roles_reward(env, roles, team, i)
                for i in range(alive)
                if env.bonus and env.spaces[i].kind == "discrete"
            )
            total += weight * (plain - kept / 2 + wins * 2 / n / 2)
    return total


@pytest.mark.parametrize("h", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("longer", [{}, {"repeats": 5, "death_step": 2}], ids=["once", "death"])
@pytest.mark.parametrize(
    ("n", "actions", "bonus"),
    [
        (2, "discrete", False),
        (4, "discrete", True),
        (2, "continuous", False),
        (3, "continuous", False),
        (4, ["discrete", "continuous", "continuous", "discrete"], True),
        (4, ["discrete", "continuous", "continuous", "continuous"], False),
    ],
)
def test_optimal_and_shared_return(
    h: float, longer: dict[str, Any], n: int, actions: Any, bonus: bool
) -> None:
    """The closed forms are the best over a grid that holds the optima."""
    env = make("roles", num_agents=n, heterogeneity=h, actions=actions, bonus=bonus, **longer)
    assert isinstance(env, RolesEnv)
    kinds = [space.kind for space in env.spaces]
    targets = env.targets

    def own(i: int, roles: bool) -> float:
        if kinds[i] == "discrete":
            return i if roles else 0
        return targets[i] if roles else 0.0

    assert env.optimal_return == pytest.approx(expected_return(env, own))

    def shared(role: int, a: float) -> float:
        def policy(i: int, roles: bool) -> float:
            return 0.0 if not roles else role if kinds[i] == "discrete" else a

        return expected_return(env, policy)

    # the return is a part of the discrete agents plus a part of the continuous ones
    role = max(range(n), key=lambda k: shared(k, 0.0))
    best = max(shared(role, a) for a in torch.linspace(-0.5, 0.5, 1001).tolist())
    assert env.shared_return == pytest.approx(best, abs=1e-5)
    if h == 0:
        assert env.shared_return == pytest.approx(env.optimal_return)


def test_heterogeneity_is_a_number_from_0_to_1() -> None:
    for h in (0.0, 0.25, 1.0):
        discrete, continuous = (
            make("roles", heterogeneity=h, num_agents=4, actions=a, num_envs=2000)
            for a in ("discrete", "continuous")
        )
        assert isinstance(discrete, RolesEnv) and isinstance(continuous, RolesEnv)
        assert discrete.optimal_return == continuous.optimal_return == 1
        assert discrete.shared_return == pytest.approx(1 - 0.75 * h)
        assert continuous.shared_return == pytest.approx(1 - h)
        share = float(discrete.reset()["state"][:, 1].mean())
        assert abs(share - h) < (0.04 if 0 < h < 1 else 1e-9)


def test_recall_shows_once_and_asks_at_the_end() -> None:
    env = make("recall", num_envs=200, cues=3, delay=2)
    data = env.reset()
    shown = data["agents", "observation"][..., :3].argmax(-1)
    assert data["agents", "observation"].sum(-1).eq(1).all()  # a signal, and not yet the question
    assert data["state"][:, :6].view(200, 2, 3).argmax(-1).equal(shown)
    assert shown.flatten().bincount().min() > 100 and not shown[:, 0].equal(shown[:, 1])
    for t in range(3):
        data = env.step(data.set(("agents", "action"), shown.clone()))["next"]
        blank = data["agents", "observation"]
        assert (blank[..., :3] == 0).all() and (blank[..., 3] == (t == 2)).all()
        assert (data["reward"] == 0).all() and not data["done"].any()
        assert data["state"][:, :6].view(200, 2, 3).argmax(-1).equal(shown)
    answer = shown.clone()
    answer[:100, 0] = (answer[:100, 0] + 1) % 3
    data = env.step(data.set(("agents", "action"), answer))["next"]
    assert (data["reward"][:100] == 0.5).all() and (data["reward"][100:] == 1).all()
    assert data["terminated"].all() and (data["agents", "observation"] == 0).all()
    assert (env.optimal_return, env.memoryless_return) == (1.0, 1 / 3)


def test_agents_see_alike() -> None:
    env = make("mixed", num_envs=50, heterogeneity=0.5)
    for data in (env.reset(), step(env, 0.0, 0)):
        assert torch.equal(data["agents_0", "observation"], data["agents_1", "observation"])
        assert torch.equal(data["agents_0", "observation"][:, 0], data["state"])


def test_the_bonus_is_only_in_the_mask() -> None:
    env = make("roles", num_envs=200, bonus=True, repeats=3)
    data = env.reset()
    mask = data["agents", "action_mask"]
    assert mask.shape == (200, 3, 4) and mask[..., :3].all()
    assert 0.4 < float(mask[..., 3].float().mean()) < 0.6
    assert not torch.equal(mask[:, 0], mask[:, 1])  # drawn for each agent
    action = torch.where(mask[..., 3], 3, torch.arange(3))
    after = env.step(data.set(("agents", "action"), action))["next"]
    expected = torch.where(mask[..., 3], 2.0, 1.0).sum(-1, keepdim=True) / 3
    torch.testing.assert_close(after["reward"], expected)
    assert not torch.equal(after["agents", "action_mask"], mask)
    data = env.rand_action(env.reset())
    drawn, mask = data["agents", "action"], data["agents", "action_mask"]
    assert mask.gather(-1, drawn.unsqueeze(-1)).all()  # TorchRL's random policy keeps to it
    counts = torch.bincount(drawn[mask[..., 3]], minlength=4)
    assert (counts > 0.15 * counts.sum()).all()
    with pytest.raises(ContractError, match="takes action 3 where its action_mask forbids it"):
        step(env, 3, 3, 3)


def test_death() -> None:
    env = make("roles", num_envs=30, bonus=True, **LONG_ROLES)
    data = env.reset()
    for t in range(4):
        alive = data["agents", "alive"]
        assert alive[:, :2].all() and (alive[:, 2] == (t < 2)).all()
        observation = data["agents", "observation"]
        assert (observation[:, :2].sum(-1) == 1).all()
        assert (observation[:, 2].sum(-1) == float(t < 2)).all()
        action = torch.zeros(30, 3, dtype=torch.int64)
        action[:, 2] = 3 if t >= 2 else 0  # a dead agent may do anything, and it earns nothing
        roles = data["state"][:, 1:]
        data = env.step(data.set(("agents", "action"), action))["next"]
        torch.testing.assert_close(
            data["reward"], torch.where(roles == 1, 1.0, 3.0 if t < 2 else 2.0) / 3
        )
    assert data["truncated"].all() and not data["agents", "alive"][:, 2].any()
    assert env.reset()["agents", "alive"].all()


def learn(env: RolesEnv, shared: bool, steps: int = 250) -> float:
    """REINFORCE with a table per situation and a mean baseline; the mean return at the end."""
    n, groups = len(env.spaces), env.group_map
    tables: dict[str, Tensor] = {}
    for i, name in enumerate(env.agent_names):
        group = next(g for g, names in groups.items() if name in names)
        outputs = env.spaces[i].choices[0] if env.spaces[i].kind == "discrete" else 1
        key = group if shared else name
        tables.setdefault(key, torch.zeros(2, outputs, requires_grad=True))
    optimizer = torch.optim.Adam(tables.values(), lr=0.1)
    returns = []
    for t in range(steps):
        data = env.reset()
        log_prob = torch.zeros(env.num_envs)
        for group, names in groups.items():
            chosen = []
            for position, name in enumerate(names):
                table = tables[group if shared else name]
                out = data["state"] @ table
                if env.spaces[env.agent_names.index(name)].kind == "discrete":
                    mask = data.get((group, "action_mask"), None)
                    if mask is not None:
                        out = out.masked_fill(~mask[:, position], -torch.inf)
                    policy: Any = torch.distributions.Categorical(logits=out)
                else:
                    policy = torch.distributions.Normal(out, max(0.02, 0.3 - 0.3 * t / steps))
                chosen.append(policy.sample())
                log_prob = log_prob + policy.log_prob(chosen[-1]).reshape(env.num_envs, -1).sum(-1)
            data[group, "action"] = torch.stack(chosen, dim=1)
        reward = env.step(data)["next", "reward"][:, 0]
        returns.append(float(reward.mean()))
        loss = -(log_prob * (reward - reward.mean()) / (reward.std() + 1e-6)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert n == len(env.agent_names)
    return sum(returns[-20:]) / 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("roles", {"heterogeneity": 0.5}),
        ("roles", {"heterogeneity": 0.5, "actions": "continuous"}),
        ("mixed", {"actions": ["continuous", "discrete"] * 2, "bonus": True}),
    ],
    ids=["discrete", "continuous", "mixed"],
)
def test_policy_gradient_finds_the_roles_and_sharing_cannot(
    task: str, options: dict[str, Any]
) -> None:
    env = make(task, num_envs=256, **options)
    assert isinstance(env, RolesEnv)
    gap = env.optimal_return - env.shared_return
    assert gap > 0.2
    apart, together = learn(env, shared=False), learn(env, shared=True)
    assert apart > env.optimal_return - 0.15 * gap
    assert together < env.shared_return + 0.15 * gap


# ---------------------------------------------------------------------- seeds and exact state
@every_variant
def test_equal_seeds_play_alike(task: str, options: dict[str, Any]) -> None:
    first, second = make(task, seed=3, **options), make(task, seed=3, **options)
    global_state = torch.get_rng_state()
    assert_equal(play(first, first.reset(), 8), play(second, second.reset(), 8))
    assert torch.equal(global_state, torch.get_rng_state())
    first.set_seed(11)
    second.set_seed(11)
    assert_equal([first.reset()], [second.reset()])


@pytest.mark.parametrize(
    ("task", "options"), [("markov", {"states": 20}), ("roles", {"heterogeneity": 0.5})]
)
def test_sub_environments_and_seeds_start_differently(task: str, options: dict[str, Any]) -> None:
    env, other = make(task, num_envs=64, **options), make(task, num_envs=64, seed=1, **options)
    start = env.reset()["state"]
    assert len(start.unique(dim=0)) > 1
    assert not torch.equal(start, other.reset()["state"])
    assert not torch.equal(start, env.reset()["state"])


@every_variant
def test_a_loaded_environment_goes_on_exactly(task: str, options: dict[str, Any]) -> None:
    first, second = make(task, seed=1, **options), make(task, seed=2, **options)
    data = play(first, first.reset(), 7)[-1]
    play(second, second.reset(), 3)
    data = first.step_mdp(data)
    if bool(data["done"].any()):
        data = first.reset(data.set("_reset", data["done"])).exclude("_reset")
    file = io.BytesIO()
    torch.save(first.runtime_state(), file)
    file.seek(0)
    second.load_runtime_state(torch.load(file, weights_only=True))
    assert_equal(play(first, data.clone(), 12, seed=4), play(second, data.clone(), 12, seed=4))


def test_a_saved_state_stands_still_and_fits_only_its_like() -> None:
    env = make("markov", seed=1)
    data = env.reset()
    state = env.runtime_state()
    before = play(env, data.clone(), 5)
    env.load_runtime_state(state)
    assert_equal(before, play(env, data.clone(), 5))
    with pytest.raises(ConfigError, match=r"state is of games/markov with num_envs=4.*num_envs=5"):
        make("markov", num_envs=5).load_runtime_state(state)
    with pytest.raises(ConfigError, match=r"state is of games/markov.*environment is games/trap"):
        make("trap").load_runtime_state(state)


@pytest.mark.parametrize(("task", "options"), [("markov", {"states": 9}), ("roles", LONG_ROLES)])
def test_a_partial_reset_leaves_the_others_alone(task: str, options: dict[str, Any]) -> None:
    env = make(task, num_envs=8, **options)
    play(env, env.reset(), 2)
    before = env.runtime_state()
    mask = torch.zeros(8, 1, dtype=torch.bool)
    mask[[1, 4]] = True
    env.reset(TensorDict({"_reset": mask}, env.batch_size))
    after = env.runtime_state()
    rest = ~mask[:, 0]
    for key, value in before["memory"].items():
        assert torch.equal(value[rest], after["memory"][key][rest])
    assert (after["steps"][[1, 4]] == 0).all()
    assert torch.equal(before["steps"][rest], after["steps"][rest])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_variant
def test_a_gpu_plays_the_same_games(task: str, options: dict[str, Any]) -> None:
    here, there = (
        make(task, **options),
        make_env(f"games/{task}", num_envs=4, device="cuda", **options),
    )
    moved = make(task, **options).to("cuda")
    data = [env.reset() for env in (here, there, moved)]
    for t in range(6):
        actions = legal_actions(here, data[0], t).select(*here.action_keys)
        data = [
            env.step(td.update(actions.to(td.device)))["next"]
            for env, td in zip((here, there, moved), data, strict=True)
        ]
        assert_equal([data[0]], [data[1].cpu()])
        assert_equal([data[0]], [data[2].cpu()])
        if bool(data[0]["done"].any()):
            data = [env.reset() for env in (here, there, moved)]


# ---------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("penalty", {"kk": -1}, r"games/penalty has no option 'kk'. Did you mean 'k'\?"),
        ("penalty", {"k": 1}, "k=1, expected a finite number from -inf to 0"),
        ("penalty", {"k": "x"}, "k='x', expected a finite number"),
        ("penalty", {"k": float("nan")}, "k=nan, expected a finite number"),
        ("climbing", {"repeats": 0}, "repeats=0, expected a whole number of at least 1"),
        ("climbing", {"repeats": True}, "repeats=True, expected a whole number"),
        ("climbing", {"repeats": 2.0}, r"repeats=2\.0, expected a whole number"),
        ("sharing", {"num_agents": 3}, "num_agents=3, expected an even number up to 16"),
        ("sharing", {"num_agents": 18}, "num_agents=18, expected an even number up to 16"),
        ("matrix", {}, r"games/matrix needs its payoff: matrix=\[\[1, 0\]"),
        ("matrix", {"matrix": [[1, 2], [3]]}, "is no table of numbers"),
        ("matrix", {"matrix": "climbing"}, "is no table of numbers"),
        ("matrix", {"matrix": [[1, float("inf")]]}, "expected finite numbers, one axis per agent"),
        ("matrix", {"matrix": 3}, "expected finite numbers, one axis per agent"),
        ("matrix", {"matrix": [[]]}, "at least one action"),
        ("product", {"bound": 0}, "bound=0, expected a finite number from 0.001"),
        ("product", {"repeats": 2}, r"games/product has no option 'repeats'"),
        ("markov", {"states": 0}, "states=0, expected a whole number of at least 1"),
        ("markov", {"actions": []}, r"actions=\[\], expected each agent's number of actions"),
        ("markov", {"actions": 3}, "actions=3, expected each agent's number of actions"),
        ("markov", {"actions": [2, 0]}, "actions=0, expected a whole number"),
        ("markov", {"actions": [100, 100], "states": 200}, "make a table of 400000000 numbers"),
        ("markov", {"density": 0}, "density=0, expected more than 0"),
        ("markov", {"termination": 1.5}, r"termination=1\.5, expected a finite number from 0 to 1"),
        ("markov", {"game_seed": -1}, "game_seed=-1"),
        ("markov", {"max_steps": None}, "max_steps=None"),
        ("recall", {"cues": 1}, "cues=1, expected a whole number of at least 2"),
        ("recall", {"delay": -1}, "delay=-1, expected a whole number of at least 0"),
        ("recall", {"num_agents": 1}, "num_agents=1, expected a whole number of at least 2"),
        ("roles", {"heterogeneity": 1.1}, r"heterogeneity=1\.1, expected a finite number from 0"),
        ("roles", {"num_agents": 1}, "num_agents=1, expected a whole number of at least 2"),
        ("roles", {"actions": "contin"}, r"actions='contin'.*Did you mean 'continuous'\?"),
        ("roles", {"actions": ["discrete", "discreet"]}, "'discreet'.*Did you mean 'discrete'"),
        ("roles", {"actions": ["discrete"] * 2, "num_agents": 3}, "one of them for each"),
        ("roles", {"actions": ["discrete"]}, "one of them for each of at least 2 agents"),
        ("roles", {"bonus": 1}, "bonus=1, expected true or false"),
        ("roles", {"bonus": True, "actions": "continuous"}, "bonus=true needs discrete agents"),
        ("roles", {"death_step": 1}, "death_step=1, expected fewer than the 1 steps"),
        ("roles", {"death_step": 0, "repeats": 3}, "death_step=0, expected a whole number"),
        ("roles", {"repeats": 0}, "repeats=0"),
        ("mixed", {"where": 3}, "has no option 'where'"),
        ("trap", {"seed": -1}, "seed=-1, expected a whole number of at least 0"),
    ],
)
def test_wrong_options_are_refused(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_env(f"games/{task}", **options)


def test_wrong_actions_and_names_are_refused() -> None:
    env = make("climbing")
    env.reset()
    for wrong in (3, -1):
        with pytest.raises(ContractError, match="expected whole numbers from 0 to 2"):
            step(env, 0, wrong)
    with pytest.raises(ContractError, match="expected finite numbers"):
        step(make("product"), 0.0, float("nan"))
    with pytest.raises(UnknownNameError, match=r"no game 'climbin'. Did you mean 'climbing'\?"):
        make_env("games/climbin")


def test_the_page_names_every_task_and_option() -> None:
    page = Path(__file__).parents[2] / "docs" / "environments" / "games.md"
    text = page.read_text(encoding="utf-8")
    assert sorted(MAKERS) == sorted(TASKS) == [n.partition("/")[2] for n in list_tasks("games")]
    for task, maker in MAKERS.items():
        assert f"games/{task}`" in text
        function = maker.__init__ if isinstance(maker, type) else maker
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind == parameter.KEYWORD_ONLY and parameter.name != "device":
                assert f"`{parameter.name}`" in text, parameter.name
