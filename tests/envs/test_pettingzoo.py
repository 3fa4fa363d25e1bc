"""PettingZoo's environments through ours: groups, deaths, ends, masks, rewards, seeds, resume."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pettingzoo
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text
from pettingzoo.test import parallel_api_test
from tensordict import TensorDictBase
from torchrl.envs.utils import check_env_specs

from hetmarl.data.collector import can_save
from hetmarl_envs import TeamSpec, check_team_env, make_env
from hetmarl_envs.errors import ConfigError, ContractError, UnknownNameError
from hetmarl_envs.grouping import group_agents
from hetmarl_envs.pettingzoo import PettingZooEnv
from tests.envs.toys import Masked, Resumable, Scripted


def play(env: PettingZooEnv, steps: int) -> TensorDictBase:
    """``steps`` steps with resets, ``[num_envs, steps]``."""
    return env.rollout(steps, break_when_any_done=False)


def scripted(*ends: tuple[int, str], **settings: Any) -> PettingZooEnv:
    """Agents ``a_0``, ``a_1``, ... that leave like this."""
    names = {f"a_{i}": end for i, end in enumerate(ends)}
    settings = {"team_reward": "sum", "num_envs": 2} | settings
    return PettingZooEnv(lambda: Scripted(names), **settings)


# ---------------------------------------------------------------------- the contract
@pytest.mark.filterwarnings("ignore")  # the API test's hints
def test_the_toys_are_pettingzoo_environments() -> None:
    parallel_api_test(Scripted({"a": (2, "terminated"), "b": (5, "truncated")}))
    parallel_api_test(Resumable())


@pytest.mark.parametrize("num_envs", [1, 3])
def test_contract(num_envs: int) -> None:
    env = scripted((2, "terminated"), (4, "truncated"), num_envs=num_envs)
    check_env_specs(env)
    spec = check_team_env(env, steps=12)
    assert spec.names == ("a_0", "a_1") and spec.state_dim is None
    assert (spec.agents[0].action.low, spec.agents[0].action.high) == ((-1.0,), (2.0,))
    assert play(env, 9)["agents", "observation"].dtype == torch.float32


class Telling(Scripted):
    """One agent's info tells how long the episode is."""

    def infos(self, agents: list[str]) -> dict[str, Any]:
        return {agent: {"length": self.count} if agent == "a_1" else {} for agent in agents}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_infos_that_tell_of_the_episode(num_workers: int) -> None:
    settings: dict[str, Any] = {"num_workers": num_workers, "start_method": "fork"}
    env = PettingZooEnv(Telling, num_envs=2, team_reward="sum", info=["length"], **settings)
    check_team_env(env, steps=5)
    data = play(env, 5)
    assert data["next", "info", "length"][..., 0].tolist() == [[1, 2, 3, 1, 2]] * 2
    assert data["info", "length"][..., 0].tolist() == [[0, 1, 2, 0, 1]] * 2
    env.close()


def test_an_info_that_is_not_there() -> None:
    env = PettingZooEnv(Telling, team_reward="sum", info=["lenght"])
    with pytest.raises(ContractError, match="no agent's info has 'lenght'"):
        env.reset()


class Reporting(Scripted):
    """What agents' infos tell is given, a function of the step and the agent."""

    def __init__(self, tell: Callable[[int, str], Any], **settings: Any) -> None:
        super().__init__({"a_0": (2, "terminated"), "a_1": (4, "truncated")}, **settings)
        self.tell = tell

    def infos(self, agents: list[str]) -> dict[str, Any]:
        return {agent: self.tell(self.count, agent) for agent in agents}


def reported(tell: Callable[[int, str], Any], **settings: Any) -> list[float]:
    env = PettingZooEnv(lambda: Reporting(tell), team_reward="sum", info=["score"], **settings)
    return play(env, 4)["next", "info", "score"][0, :, 0].tolist()


def test_one_agents_info_may_be_none() -> None:
    assert reported(lambda step, a: {"score": step} if a == "a_1" else None) == [1, 2, 3, 4]


def test_a_number_of_the_episode_is_the_same_from_all_who_tell_it() -> None:
    assert reported(lambda step, a: {"score": step}) == [1, 2, 3, 4], "whoever dies"
    with pytest.raises(ContractError, match=r"'score' = \[1, 2\], expected one number, of the"):
        reported(lambda step, a: {"score": step + int(a == "a_1") * (step > 0)})
    with pytest.raises(ContractError, match=r"'score' = \[None, None\], expected one number"):
        reported(lambda step, a: {"score": None})


def test_what_the_team_tells_comes_before_what_others_tell() -> None:
    assert reported(lambda step, a: {"score": int(a[-1])}, team=["a_1"]) == [1, 1, 1, 1]
    others = reported(lambda step, a: {"score": 5} if a == "a_1" else {}, team=["a_0"])
    assert others == [5, 5, 5, 5]


def test_agents_whose_names_are_numbers() -> None:
    assert group_agents(["17", "4", "east_2"], [1, 1, 2]) == {"agents_0": [0, 1], "agents_1": [2]}


# ---------------------------------------------------------------------- who is there, how it ends
def test_who_leaves_is_not_alive_and_sees_nothing() -> None:
    data = play(scripted((2, "terminated"), (4, "truncated"), num_envs=1), 5)[0]
    alive = data["agents", "alive"][..., 0]
    assert alive.tolist() == [[1, 1], [1, 1], [0, 1], [0, 1], [1, 1]]
    seen = data["next", "agents", "observation"]
    assert seen[:, 0, 0].tolist() == [1, 2, 0, 0, 1], "its last observation, then nothing"
    assert seen[2:4, 0].abs().sum() == 0 and seen[1, 0, 1] > 0
    assert seen[:, 1, 0].tolist() == [1, 2, 3, 4, 1]
    rewards = data["next", "agents", "reward"][..., 0]
    assert (rewards[2:4, 0] == 0).all(), "no reward after the end, whatever it did"
    expected = data["agents", "action"][..., 0] + torch.tensor([0.0, 1.0])
    torch.testing.assert_close(rewards[:, 1], expected[:, 1])
    torch.testing.assert_close(data["next", "reward"][:, 0], rewards.sum(-1))
    assert data["next", "truncated"][:, 0].tolist() == [0, 0, 0, 1, 0]
    assert data["next", "agents", "alive"][3, :, 0].tolist() == [False, True], "cut off, not dead"


@pytest.mark.parametrize(
    ("ends", "terminated", "alive"),
    [
        ([(3, "terminated"), (3, "terminated")], True, [False, False]),
        ([(3, "truncated"), (3, "truncated")], False, [True, True]),
        ([(3, "terminated"), (3, "truncated")], False, [False, True]),
        ([(2, "terminated"), (3, "truncated")], False, [False, True]),
        ([(2, "truncated"), (3, "terminated")], True, [False, False]),  # long gone: no value beyond
        ([(2, "truncated"), (3, "truncated")], False, [False, True]),
        ([(3, "silently"), (3, "silently")], True, [False, False]),
        ([(1, "silently"), (3, "truncated")], False, [False, True]),
    ],
)
def test_terminated_or_truncated(
    ends: list[tuple[int, str]], terminated: bool, alive: list[bool]
) -> None:
    data = play(scripted(*ends), 4)["next"]
    assert data["done"][..., 0].tolist() == [[False, False, True, False]] * 2
    assert data["terminated"][:, 2, 0].tolist() == [terminated] * 2
    assert data["truncated"][:, 2, 0].tolist() == [not terminated] * 2
    assert data["agents", "alive"][0, 2, :, 0].tolist() == alive
    last = data["agents", "observation"][:, 2, :, 0]
    expected = [3.0 if end[0] == 3 else 0.0 for end in ends]
    assert last.tolist() == [expected] * 2, "the true last observation"


def test_both_flags_at_once_is_an_end() -> None:
    class Both(Scripted):
        def step(self, actions: dict[str, Any]) -> Any:
            seen, rewards, _, truncated, infos = super().step(actions)
            return seen, rewards, truncated, truncated, infos

    data = play(PettingZooEnv(Both, team_reward="sum"), 3)["next"]
    assert data["terminated"][0, 2] and not data["truncated"].any()


class Lingering(Scripted):
    """It never shortens ``agents``, and reports rewards and observations of everybody.

    Ends are told once, at their step, or from there on; ``cut`` is everybody's time limit.
    """

    def __init__(self, *ends: int, again: bool, cut: int = 99) -> None:
        super().__init__({f"a_{i}": (end, "terminated") for i, end in enumerate(ends)})
        self.again, self.cut = again, cut

    def step(self, actions: dict[str, Any]) -> Any:
        everyone = list(self.possible_agents)
        super().step(actions)
        self.agents = everyone
        gone = {
            a: self.ends[a][0] == self.count or (self.again and self.ends[a][0] < self.count)
            for a in everyone
        }
        ones, limit = dict.fromkeys(everyone, 1.0), dict.fromkeys(everyone, self.count >= self.cut)
        return self.look(everyone), ones, gone, limit, {}


@pytest.mark.parametrize("again", [True, False])
def test_one_that_keeps_listing_who_is_gone(again: bool) -> None:
    env = PettingZooEnv(lambda: Lingering(2, 4, again=again), num_envs=1, team_reward="sum")
    data = play(env, 5)[0]
    assert data["agents", "alive"][:, 0, 0].tolist() == [True, True, False, False, True]
    assert data["next", "agents", "observation"][:, 0, 0].tolist() == [1, 2, 0, 0, 1]
    assert data["next", "reward"][:, 0].tolist() == [2, 2, 1, 1, 2]
    assert data["next", "terminated"][:, 0].tolist() == [False, False, False, True, False]
    toy: Any = env._rows.envs[0]
    assert toy.given[3]["a_0"] == 0, "something harmless"


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize(("end", "alive"), [(4, [False, False]), (9, [False, True])])
def test_the_time_limit_of_everybody_is_none_for_the_dead(
    again: bool, end: int, alive: list[bool]
) -> None:
    """``a_0`` died at step 2; at step 4 ``a_1`` dies or is cut off, and "truncated" says all."""
    env = PettingZooEnv(lambda: Lingering(2, end, again=again, cut=4), team_reward="sum")
    last = play(env, 4)[0]["next"][3]
    assert last["truncated"].item() == any(alive) and last["terminated"].item() != any(alive)
    assert last["agents", "alive"][:, 0].tolist() == alive
    assert last["agents", "observation"][0].abs().sum() == 0


def test_no_last_observation_of_one_long_dead_is_missed() -> None:
    class Silent(Lingering):
        def look(self, agents: list[str]) -> dict[str, Any]:
            return {a: v for a, v in super().look(agents).items() if self.ends[a][0] >= self.count}

    env = PettingZooEnv(lambda: Silent(2, 9, again=False, cut=4), team_reward="sum")
    assert play(env, 4)["next", "truncated"][0, 3]


def test_who_has_left_stays_gone_after_a_resume() -> None:
    class Saved(Resumable):
        def step(self, actions: dict[str, Any]) -> Any:
            seen, rewards, ends, *rest = super().step(actions)
            self.agents = list(self.possible_agents)
            return seen, rewards, ends if self.count == 2 else dict.fromkeys(ends, False), *rest

    def make() -> PettingZooEnv:
        ends = {"a_0": (2, "terminated"), "a_1": (9, "truncated")}
        return PettingZooEnv(lambda: Saved(ends), team_reward="sum")

    env, other = make(), make()
    data = play(env, 3)[:, -1]
    other.load_runtime_state(env.runtime_state())
    for one in (env, other):
        later = one.rand_step(one.step_mdp(data.clone()))["next"]
        assert later["agents", "alive"][0, :, 0].tolist() == [False, True]


def test_an_agent_that_is_not_there_from_the_start() -> None:
    data = play(scripted((3, "terminated"), (0, "terminated")), 4)
    assert not data["agents", "alive"][:, :, 1].any()
    assert (data["agents", "observation"][:, :, 1] == 0).all()


def test_an_agent_that_joins_later() -> None:
    class Joining(Scripted):
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed, options)
            self.agents = ["a_0"]
            return self.look(self.agents), {}

        def step(self, actions: dict[str, Any]) -> Any:
            _, rewards, *ends, _ = super().step(actions)
            if self.count == 1:
                self.agents = ["a_0", "a_1"]
            return self.look(self.agents or list(actions)), rewards, *ends, {}

    data = play(PettingZooEnv(Joining, team_reward="sum"), 4)[0]
    assert data["agents", "alive"][..., 1, 0].tolist() == [False, True, True, False]
    assert data["agents", "observation"][:, 1, 0].tolist() == [0, 1, 2, 0]
    assert data["next", "truncated"][:, 0].tolist() == [False, False, True, False]


class LateMasks(Masked):
    """``late`` joins after the first step, and sees more than the others where ``unlike``."""

    def __init__(self, place: str = "info", *, unlike: bool = False, masked: bool = True) -> None:
        ends = dict.fromkeys(("a_0", "late"), (4, "truncated"))
        super().__init__(place, Discrete(3), ends=ends)
        self.unlike, self.masked = unlike, masked

    def observation_space(self, agent: str) -> Any:
        return Box(-9, 9, (3,)) if self.unlike and agent == "late" else self.sight

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed, options)
        self.agents = ["a_0"]
        return self.look(self.agents), self.infos(self.agents)

    def infos(self, agents: list[str]) -> dict[str, Any]:
        told = super().infos(agents)
        return told if self.masked else {a: told[a] for a in agents if a != "late"}

    def step(self, actions: dict[str, Any]) -> Any:
        if not self.masked:
            actions = {a: self.legal(a)[0] if a == "late" else c for a, c in actions.items()}
        _, rewards, *ends, _ = super().step(actions)
        if self.count == 1:
            self.agents = ["a_0", "late"]
        here = self.agents or list(actions)
        return self.look(here), rewards, *ends, self.infos(here)


@pytest.mark.parametrize("unlike", [False, True])
@pytest.mark.parametrize("place", ["info", "observation"])
def test_one_that_joins_later_may_have_a_mask(unlike: bool, place: str) -> None:
    unlike = unlike and place == "info"
    env = PettingZooEnv(lambda: LateMasks(place, unlike=unlike), team_reward="sum")
    data = play(env, 4)[0]  # Masked asserts that every action is legal
    group, index = ("late", 0) if unlike else (next(iter(env.group_map)), 1)
    assert data[group, "action_mask"][:, index].sum(-1).tolist() == [3, 1, 1, 1]


def test_one_that_joins_later_may_have_none() -> None:
    env = PettingZooEnv(lambda: LateMasks(unlike=True, masked=False), team_reward="sum")
    assert play(env, 4)["late", "action_mask"].all()


def test_rows_end_each_for_itself_and_are_reset_alone() -> None:
    makers = iter([(2, "terminated"), (3, "truncated"), (9, "truncated")])

    def make() -> Scripted:
        return Scripted({"a": next(makers)})

    data = play(PettingZooEnv(make, num_envs=3), 7)
    ends = data["next", "done"][..., 0].int()
    assert ends.tolist() == [[0, 1, 0, 1, 0, 1, 0], [0, 0, 1, 0, 0, 1, 0], [0] * 7]
    assert data["agents", "observation"][..., 0, 0].tolist() == [
        [0, 1, 0, 1, 0, 1, 0],
        [0, 1, 2, 0, 1, 2, 0],
        [0, 1, 2, 3, 4, 5, 6],
    ]
    assert data["next", "agents", "observation"][0, 1, 0, 0] == 2


def test_a_row_that_is_over_waits_for_its_reset() -> None:
    env = scripted((2, "terminated"), num_envs=1)
    data = env.rand_step(env.step_mdp(env.rand_step(env.reset())))["next"]
    again = env.rand_step(data.exclude("reward"))["next"]
    assert again["terminated"].all() and again["reward"] == 0
    assert torch.equal(again["agents", "observation"], data["agents", "observation"])


def test_leaving_false_has_no_alive_and_refuses_who_leaves() -> None:
    env = scripted((2, "terminated"), (2, "terminated"), leaving=False)
    check_env_specs(env)
    assert ("agents", "alive") not in play(env, 5).keys(True)
    with pytest.raises(ContractError, match=r"a_1 left before the others. Pass leaving=True"):
        play(scripted((3, "terminated"), (2, "terminated"), leaving=False), 5)


# ---------------------------------------------------------------------- spaces
class Zoo(Scripted):
    """Every kind of space."""

    SPACES = {  # noqa: RUF012
        "walker_0": (Box(-1, 1, (4,)), Box(-1, 1, (2, 3))),
        "walker_1": (Box(-1, 1, (4,)), Box(-1, 1, (2, 3))),
        "eye_0": (Box(0, 255, (5, 6, 3), np.uint8), Discrete(3, start=2)),
        "slow_0": (Box(-1, 1, (4,)), Box(-0.5, 0.5, (2, 3))),
        "teller_0": (Discrete(4), MultiDiscrete([2, 5], start=[1, 0])),
        "parts_0": (Dict({"x": Box(-1, 1, (2, 2)), "n": Discrete(3)}), Discrete(2)),
    }

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(self.SPACES, (4, "truncated")))

    def observation_space(self, agent: str) -> Any:
        return self.SPACES[agent][0]

    def action_space(self, agent: str) -> Any:
        return self.SPACES[agent][1]

    def look(self, agents: list[str]) -> dict[str, Any]:
        self.seen = {}
        for agent in agents:
            space = self.observation_space(agent)
            space.seed(int(self.random.integers(2**31)))
            self.seen[agent] = space.sample()
        return self.seen

    def step(self, actions: dict[str, Any]) -> Any:
        for agent, action in actions.items():
            assert self.action_space(agent).contains(action), (agent, action)
        return super().step(actions)


def test_unequal_spaces_are_in_groups_of_their_own() -> None:
    env = PettingZooEnv(Zoo, num_envs=2, team_reward="sum")
    check_env_specs(env)
    assert env.group_map == {
        "walker": ["walker_0", "walker_1"],
        "eye": ["eye_0"],
        "slow": ["slow_0"],
        "teller": ["teller_0"],
        "parts": ["parts_0"],
    }
    spec = check_team_env(env)
    shapes = [agent.observation_shape for agent in spec.agents]
    assert shapes == [(4,), (4,), (5, 6, 3), (4,), (4,), (7,)]
    kinds = [(agent.action.kind, agent.action.dim) for agent in spec.agents]
    assert kinds[0] == ("continuous", 6) and kinds[2] == ("discrete", 1)
    assert spec.agents[4].action.choices == (2, 5)
    data = play(env, 6)  # Zoo asserts that every action is in its space
    toy: Any = env._rows.envs[1]
    last = data["next"][1, -1]
    assert torch.equal(last["eye", "observation"][0], torch.tensor(toy.seen["eye_0"]).float())
    assert last["teller", "observation"][0].argmax() == toy.seen["teller_0"]
    given = toy.given[-1]
    chosen = data["walker", "action"][1, -1]
    assert np.array_equal(given["walker_1"].ravel(), chosen[1].numpy())
    assert given["eye_0"] == data["eye", "action"][1, -1, 0] + 2
    assert (
        given["teller_0"].tolist()
        == (data["teller", "action"][1, -1, 0] + torch.tensor([1, 0])).tolist()
    )


def test_kinds_split_a_group() -> None:
    env = scripted((3, "truncated"), (3, "truncated"), (3, "truncated"), kinds={"a_1": "archer"})
    assert env.group_map == {"agents_0": ["a_0", "a_2"], "agents_1": ["a_1"]}
    with pytest.raises(ConfigError, match=r"no agent 'a_7', named in kinds"):
        scripted((3, "truncated"), kinds={"a_7": 1})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Box(-np.inf, np.inf, (2,)), "which has no bounds. Give the Box a finite low and high"),
        (Box(0, 9, (2,), np.int32), "Expected a Box of floating-point numbers"),
        (Text(3), "Expected a Box of floating-point numbers, a Discrete, or"),
    ],
)
def test_actions_that_are_not_supported(space: Any, message: str) -> None:
    with pytest.raises(ContractError, match=re.escape(message)):
        PettingZooEnv(lambda: Scripted(action=space))


def test_observations_without_a_size_are_refused() -> None:
    class Reading(Scripted):
        def observation_space(self, agent: str) -> Any:
            from gymnasium.spaces import Sequence

            return Sequence(Discrete(2))

    with pytest.raises(ContractError, match=r"agent a_0 observes .* has no fixed size"):
        PettingZooEnv(Reading)


def test_real_actions_are_clipped_and_nan_is_refused() -> None:
    env = scripted((9, "truncated"), num_envs=1)
    data = env.reset()
    data["agents", "action"] = torch.tensor([[[2.0 + 1e-6]]])
    env.step(data)
    toy: Any = env._rows.envs[0]
    assert toy.given[-1]["a_0"].tolist() == [2.0]
    data["agents", "action"] = torch.tensor([[[float("nan")]]])
    with pytest.raises(ContractError, match="agent a_0: the action holds NaN"):
        env.step(data)
    choosing = PettingZooEnv(lambda: Scripted(action=Discrete(2)), team_reward="sum")
    data = choosing.reset()
    data["agents", "action"] = torch.tensor([[0, 2]])
    with pytest.raises(ContractError, match=r"is no choice of Discrete\(2\)"):
        choosing.step(data)


def test_the_action_of_one_that_is_gone_may_be_anything() -> None:
    env = scripted((1, "terminated"), (3, "truncated"), num_envs=1)
    data = env.step_mdp(env.rand_step(env.reset()))
    data["agents", "action"] = torch.tensor([[[float("nan")], [0.5]]])
    assert env.step(data)["next", "reward"] == 1.5


def test_an_observation_of_another_shape_is_refused() -> None:
    class Odd(Scripted):
        def look(self, agents: list[str]) -> dict[str, Any]:
            return {agent: np.zeros(1) for agent in agents}

    with pytest.raises(ContractError, match=r"the observation has shape \[1\], its space is Box"):
        PettingZooEnv(Odd).reset()


# ---------------------------------------------------------------------- masks
@pytest.mark.parametrize("place", ["observation", "info"])
@pytest.mark.parametrize("action", [Discrete(4), Discrete(4, start=1), MultiDiscrete([2, 3])])
def test_masks(place: str, action: Any) -> None:
    ends = {"a_0": (2, "terminated"), "a_1": (4, "truncated")}
    env = PettingZooEnv(lambda: Masked(place, action, ends=ends), num_envs=2, team_reward="sum")
    check_env_specs(env)
    data = play(env, 6)  # Masked asserts that every action is legal
    mask = data["agents", "action_mask"]
    sizes = [4] if isinstance(action, Discrete) else [2, 3]
    assert mask.shape == (2, 6, 2, sum(sizes)) and mask.dtype == torch.bool
    assert TeamSpec.from_env(env).agents[0].action.choices == tuple(sizes)
    for time, step in enumerate([0, 1, 2, 3, 0, 1]):
        for part, size in zip(mask[0, time, 1].split(sizes), sizes, strict=True):
            assert part.int().tolist() == [int(i == (1 + step) % size) for i in range(size)]
    assert mask[:, 3, 0].all(), "all choices for one that is not there"
    assert data["agents", "observation"].shape[-1] == 3
    last = data["next", "agents", "action_mask"][0, 3, 1].split(sizes)
    assert [int(part.int().argmax()) for part in last] == [5 % size for size in sizes]


def test_wrong_masks() -> None:
    class Wrong(Masked):
        value: Any = None

        def mask(self, agent: str) -> Any:
            return self.value if self.count == self.when else np.ones(3)

        def step(self, actions: dict[str, Any]) -> Any:
            return Scripted.step(self, actions)

    def wrong(value: Any, when: int) -> PettingZooEnv:
        def make() -> Wrong:
            toy = Wrong("info", Discrete(3))
            toy.value, toy.when = value, when  # type: ignore[attr-defined]
            return toy

        return PettingZooEnv(make, team_reward="sum")

    for value, message in [
        (np.zeros(3), "leaves nothing to choose"),
        (np.ones(2), "has 2 entries, expected 3"),
        (None, "has 0 entries, expected 3"),
    ]:
        with pytest.raises(ContractError, match=message):
            play(wrong(value, 1), 3)
    assert play(wrong(np.zeros(3), 3), 3)["next", "agents", "action_mask"].all(), "at the end only"


def test_masks_of_real_actions_are_refused() -> None:
    class Real(Scripted):
        def infos(self, agents: list[str]) -> dict[str, Any]:
            return {agent: {"action_mask": np.ones(1)} for agent in agents}

    with pytest.raises(ContractError, match="Masks belong to choices"):
        PettingZooEnv(Real)


def test_a_mask_that_appears_late_is_refused() -> None:
    class Late(Scripted):
        def infos(self, agents: list[str]) -> dict[str, Any]:
            return {a: {"action_mask": np.ones(2)} if self.count else {} for a in agents}

    with pytest.raises(ContractError, match=r"Return it from reset\(\) too"):
        play(PettingZooEnv(lambda: Late(action=Discrete(2)), team_reward="sum"), 2)


# ---------------------------------------------------------------------- rewards, state, teams
class Shared(Scripted):
    def reward(self, agent: str, action: Any) -> float:
        return 1.5


def test_the_teams_reward() -> None:
    ends = {"a_0": (1, "terminated"), "a_1": (2, "truncated")}
    both = partial(Shared, ends)
    assert play(PettingZooEnv(both), 2)["next", "reward"].flatten().tolist() == [1.5, 1.5]
    total = PettingZooEnv(both, team_reward="sum")
    assert play(total, 2)["next", "reward"].flatten().tolist() == [3.0, 1.5]
    mean = PettingZooEnv(both, team_reward="mean")
    assert play(mean, 2)["next", "reward"].flatten().tolist() == [1.5, 0.75]
    with pytest.raises(
        ContractError, match=r"different rewards \[.*Pass team_reward='sum' or 'mean"
    ):
        play(PettingZooEnv(Scripted), 2)
    data = play(PettingZooEnv(Scripted, team=["a_1"]), 2)["next"]
    assert torch.equal(data["reward"], data["agents", "reward"][..., 0]), "nothing to choose"


def test_state() -> None:
    class WithState(Scripted):
        def state(self) -> Any:
            return np.array([[self.count, self.start]])

    env = PettingZooEnv(WithState, num_envs=2, team_reward="sum")
    check_env_specs(env)
    assert check_team_env(env).state_dim == 2
    data = play(env, 5)
    assert data["state"][0, :, 0].tolist() == [0, 1, 2, 0, 1]
    assert data["next", "state"][0, :, 0].tolist() == [1, 2, 3, 1, 2], "the true last one"
    without = PettingZooEnv(WithState, team_reward="sum", state=False)
    assert check_team_env(without).state_dim is None

    class Shrinking(WithState):
        def state(self) -> Any:
            return np.zeros(len(self.agents) + 1)

    ends = {"a_0": (1, "terminated"), "a_1": (2, "truncated")}
    with pytest.raises(ContractError, match=r"state\(\) gave 2 numbers, 3 after the first reset"):
        play(PettingZooEnv(lambda: Shrinking(ends), team_reward="sum"), 2)


@pytest.mark.parametrize(
    "action", [Box(0.5, 2.0, (2,)), Discrete(3, start=4), MultiDiscrete([2, 3])]
)
def test_opponents(action: Any) -> None:
    ends = {"a_0": (3, "truncated"), "b_0": (5, "truncated"), "a_1": (3, "truncated")}
    for opponents in ("still", "random"):
        env = PettingZooEnv(
            lambda: Scripted(ends, action=action),
            num_envs=2,
            team=["a_1", "a_0"],
            opponents=opponents,  # type: ignore[arg-type]
            team_reward="sum",
        )
        assert env.agent_names == ["a_0", "a_1"]
        state = torch.get_rng_state()
        actions = env.full_action_spec.zero()
        data = env.reset()
        for _ in range(8):
            _, data = env.step_and_maybe_reset(data.update(actions))
        assert torch.equal(state, torch.get_rng_state())
        given = [step["b_0"] for toy in env._rows.envs for step in toy.given]  # type: ignore[attr-defined]
        assert all(action.contains(chosen) for chosen in given)
        assert len(given) == 16, "the team is gone after 3 steps, and with it the episode"
        different = {np.asarray(chosen).tobytes() for chosen in given}
        assert (len(different) > 1) == (opponents == "random")
        expected = np.clip(0, action.low, action.high) if isinstance(action, Box) else 0
        if opponents == "still":
            start = getattr(action, "start", 0)
            assert (given[0] == np.zeros(action.shape) + start + expected).all()


def test_opponents_act_within_their_masks() -> None:
    ends = {"a_0": (9, "truncated"), "b_0": (6, "terminated")}
    for opponents in ("still", "random"):
        env = PettingZooEnv(
            lambda: Masked("info", MultiDiscrete([4, 3]), ends=ends),
            team=["a_0"],
            opponents=opponents,  # type: ignore[arg-type]
        )
        play(env, 12)  # Masked asserts


# ---------------------------------------------------------------------- seeds, resume, pictures
def test_seeds() -> None:
    def starts(env: PettingZooEnv) -> torch.Tensor:
        return play(env, 7)["agents", "observation"][..., 0, 1]

    ends = (3, "truncated")
    first = starts(scripted(ends, num_envs=4, seed=5))
    assert len(first[:, [0, 3, 6]].unique()) == 12, "every episode starts elsewhere"
    assert torch.equal(first, starts(scripted(ends, num_envs=4, seed=5)))
    assert not torch.isin(first, starts(scripted(ends, num_envs=4, seed=6))).any()
    env = scripted(ends, num_envs=4, seed=1)
    starts(env)
    env.set_seed(5)
    assert torch.equal(first, starts(env))


def test_resume_where_the_environment_can() -> None:
    ends = {"a_0": (2, "terminated"), "a_1": (5, "truncated"), "b_0": (9, "truncated")}

    def make() -> PettingZooEnv:
        return PettingZooEnv(
            lambda: Resumable(ends), num_envs=2, seed=3, team_reward="sum", team=["a_0", "a_1"]
        )

    env, other = make(), make()
    assert can_save(env)
    data = env.maybe_reset(env.step_mdp(play(env, 8)[:, -1]))
    other.rollout(3)
    file = io.BytesIO()
    torch.save(env.runtime_state(), file)
    file.seek(0)
    other.load_runtime_state(torch.load(file, weights_only=True))
    results = []
    for one in (env, other):
        torch.manual_seed(0)
        now = data.clone()
        steps = []
        for _ in range(15):
            step, now = one.step_and_maybe_reset(one.rand_action(now))
            steps.append(step)
        results.append(torch.stack(steps))
    assert (results[0] == results[1]).all()
    with pytest.raises(ConfigError, match="the saved state holds"):
        PettingZooEnv(lambda: Resumable(ends), num_envs=3).load_runtime_state(env.runtime_state())


def test_no_resume_where_it_cannot() -> None:
    assert not can_save(scripted((3, "truncated")))


def test_render() -> None:
    env = PettingZooEnv(lambda: Scripted(render_mode="rgb_array"), team_reward="sum")
    play(env, 2)
    assert env.render(0).shape == (4, 6, 3) and env.render(0).max() == 2
    with pytest.raises(ConfigError, match="index=1, expected 0 to 0"):
        env.render(1)
    with pytest.raises(ConfigError, match="with render_mode='rgb_array'"):
        scripted((3, "truncated")).render()


# ---------------------------------------------------------------------- what is wrong is said
@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (Scripted(), {}, "make is a Scripted, expected a function"),
        (Scripted, {"num_envs": 0}, "num_envs=0, expected"),
        (Scripted, {"team_reward": "summ"}, r"team_reward='summ'.*Did you mean 'sum'"),
        (Scripted, {"opponents": "rand"}, r"opponents='rand'.*Did you mean 'random'"),
        (Scripted, {"team": ["a_2"]}, r"no agent 'a_2' to be in the team.*Agents: a_0, a_1"),
        (Scripted, {"team": []}, r"team=\[\] is empty"),
    ],
)
def test_wrong_settings(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PettingZooEnv(make, **settings)


def test_one_environment_for_all_rows_is_refused() -> None:
    from pettingzoo.utils.wrappers import BaseParallelWrapper

    toy = Scripted()
    for make in (lambda: toy, lambda: BaseParallelWrapper(toy)):
        with pytest.raises(ConfigError, match="must make a new environment at every call"):
            PettingZooEnv(make, num_envs=2)


def test_what_is_no_parallel_environment() -> None:
    from pettingzoo.utils.conversions import parallel_to_aec

    with pytest.raises(ContractError, match=r"turn-by-turn.*aec_to_parallel"):
        PettingZooEnv(lambda: parallel_to_aec(Scripted(render_mode="rgb_array")))
    with pytest.raises(ContractError, match=r"is a dict without reset\(\)"):
        PettingZooEnv(dict)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda seen, *rest: ({}, *rest), "is in env.agents, but there is no observation"),
        (
            lambda seen, rewards, end, cut, infos: (
                {} if any(cut.values()) else seen,
                rewards,
                end,
                cut,
                infos,
            ),
            "was truncated, but there is no last observation",
        ),
    ],
)
def test_missing_observations(broken: Callable[..., Any], message: str) -> None:
    class Broken(Scripted):
        def step(self, actions: dict[str, Any]) -> Any:
            return broken(*super().step(actions))

    with pytest.raises(ContractError, match=message):
        play(PettingZooEnv(Broken, team_reward="sum"), 4)


def test_an_unknown_agent_is_refused() -> None:
    class Growing(Scripted):
        def step(self, actions: dict[str, Any]) -> Any:
            result = super().step(actions)
            self.agents = [*self.agents, "new"]
            return result

    with pytest.raises(ContractError, match="agent new appeared, which was not in possible_agents"):
        play(PettingZooEnv(Growing, team_reward="sum"), 4)


def test_nobody_after_a_reset_is_refused() -> None:
    with pytest.raises(ContractError, match="without any agent of the team"):
        scripted((0, "terminated")).reset()


# ---------------------------------------------------------------------- by name
def test_by_module_and_function(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_game.py").write_text(
        "from tests.envs.toys import Scripted\n"
        "def parallel_env(length=3, **kw): return Scripted({'a': (length, 'truncated')}, **kw)\n"
        "def other(): return Scripted()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = make_env("pettingzoo/my_game", num_envs=2, length=5, team_reward="sum")
    assert play(env, 10)["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [4, 9]
    assert make_env("pettingzoo/my_game:other").agent_names == ["a_0", "a_1"]
    name = "games/mine-v1"
    spec = pettingzoo.EnvSpec(id=name, entry_point="my_game:parallel_env", kwargs={"length": 2})
    monkeypatch.setitem(pettingzoo.parallel_registry, name, spec)
    env = make_env("pettingzoo/games/mine-v1")
    assert play(env, 2)["next", "truncated"][0, :, 0].tolist() == [False, True]
    for name, message in [
        ("my_gam", "No module named 'my_gam'. Expected 'pettingzoo/<module>'"),
        ("games/mine-v2", "Did you mean 'games/mine-v1'"),
        ("my_game:nothing", "no attribute 'nothing'"),
    ]:
        with pytest.raises(UnknownNameError, match=message):
            make_env(f"pettingzoo/{name}")
