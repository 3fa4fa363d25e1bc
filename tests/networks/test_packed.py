"""The packed policy is the plain one: equal actions, masks, memories, with weights as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.envs import ExplorationType, set_exploration_type

from hetmarl.data import TeamCollector, evaluate
from hetmarl.networks import (
    DeterministicNetworkConfig,
    NetworkConfig,
    OnPolicyNetworkConfig,
    TeamPolicy,
)
from hetmarl.networks.packed import MOST_ENVS, PackedPolicy, for_acting
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec
from hetmarl_envs.entities import Entities
from tests.networks.toys import KindsEnv
from tests.teams import UNEQUAL

NARROW = ActionSpace("continuous", (-1.0, 0.0), (1.0, 0.2))
FREE = ActionSpace("continuous", (-float("inf"), -2.0), (float("inf"), 5.0))
ONE = ActionSpace("discrete", choices=(4,))
HOT = ActionSpace("discrete", choices=(4,), one_hot=True)
TWO = ActionSpace("multi_discrete", choices=(2, 3))

ON, OFF = OnPolicyNetworkConfig, NetworkConfig


def team(*spaces: ActionSpace, sizes: tuple[int, ...] = (3, 5)) -> TeamSpec:
    """Two agents of each space in a group, observing ``sizes`` numbers by turns of the group."""
    agents = []
    for g, space in enumerate(spaces):
        size = sizes[g % len(sizes)]
        agents += [AgentSpec(f"{g}{i}", f"g{g}", i, (size,), space) for i in (0, 1)]
    # an order of the team that is not the groups'
    return TeamSpec(tuple(agents[::2] + agents[1::2]), None)


def listing(*spaces: ActionSpace) -> TeamSpec:
    """A team whose observations of three numbers begin with two things, one choice each.

    The second agents' choices are about the other thing each.
    """
    agents = [
        replace(a, entities=(Entities("things", 0, 2, 1, (1, 3) if a.index == 0 else (3, 1)),))
        for a in team(*spaces, sizes=(3,)).agents
    ]
    return TeamSpec(tuple(agents), None)


def policy(spec: TeamSpec, config: Any, dtype: torch.dtype = torch.float32) -> TeamPolicy:
    """Every parameter is random: norms' weights and deviations too."""
    torch.manual_seed(0)
    made = TeamPolicy(spec, config).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return made


def seen(spec: TeamSpec, size: int = 7, masked: tuple[str, ...] = ()) -> TensorDict:
    data: dict[str, Any] = {}
    for group, members in spec.groups.items():
        agent = spec.agents[members[0]]
        shape = (size, len(members))
        data[group] = {"observation": torch.randn(*shape, *agent.observation_shape)}
        if group in masked:
            legal = torch.rand(*shape, agent.action.width) < 0.4
            legal[..., torch.tensor([0, *agent.action.choices]).cumsum(0)[:-1]] = True
            data[group]["action_mask"] = legal
    return TensorDict(data, [size])


def noise(like: Tensor) -> Tensor:
    """The same for every agent, in a pack or alone."""
    drawn = torch.randn(like.shape[-2:], generator=torch.Generator().manual_seed(1))
    return drawn.to(like).expand_as(like)


TEAMS: dict[str, tuple[TeamSpec, Any]] = {
    "Gaussian": (team(NARROW, FREE), ON([8, 8])),
    "Gaussian, no norms": (team(NARROW, FREE), ON([8], activation="elu", layer_norm=False)),
    "Gaussian, three layers": (team(NARROW), ON([8, 6, 4], actor_last_activation="tanh")),
    "choices": (team(ONE, HOT), ON([8, 8])),
    "several choices": (team(TWO, TWO), ON([8])),
    "squashed": (team(NARROW, NARROW), OFF([8, 6], "silu")),
    "off-policy choices": (team(TWO, TWO), OFF([8, 6])),
    "deterministic": (team(NARROW, NARROW), DeterministicNetworkConfig([8])),
    "deterministic choices": (team(ONE, TWO, TWO), DeterministicNetworkConfig([8])),
    "of all kinds": (team(NARROW, TWO, FREE, ONE, TWO, HOT), ON([8])),
    "Gaussian, shared": (team(NARROW, FREE), ON([8, 8], sharing="full")),
    "choices, shared": (team(ONE, HOT), ON([8], sharing=[["00", "10", "11"], ["01"]])),
    "squashed, shared": (team(NARROW, NARROW), OFF([8, 6], sharing="full", agent_id=False)),
    "off-policy choices, shared": (team(TWO, TWO), OFF([8], sharing=[["00", "10"], ["01", "11"]])),
    "choices among entities, shared": (
        listing(ONE, HOT),
        ON([8, 6], entities=True, sharing="full"),
    ),
    "choices among entities, by sets": (
        listing(ONE, ONE),
        ON([8], entities=True, sharing=[["00", "01"], ["10", "11"]], agent_id=False),
    ),
    "off-policy choices among entities, shared": (
        listing(ONE, HOT),
        OFF([8, 6], entities=True, sharing="full"),
    ),
    "deterministic, shared": (
        team(NARROW, NARROW),
        DeterministicNetworkConfig([8], sharing="full"),
    ),
}


@pytest.mark.parametrize("kind", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", TEAMS)
def test_acts_as_the_team_policy(
    name: str, dtype: torch.dtype, error: float, kind: ExplorationType
) -> None:
    spec, config = TEAMS[name]
    plain, data = policy(spec, config, dtype), seen(spec)
    if dtype == torch.float64:  # compared in full
        data = data.double()
    elif "shared" in name:  # their inputs are longer
        error *= 10
    plain.noise = noise
    packed = PackedPolicy(plain)
    assert packed.alone == []
    with set_exploration_type(kind):
        expected, found = plain(data.clone()), packed(data.clone())
    assert set(found.keys(True, True)) == set(expected.keys(True, True))
    for key, value in expected.items(True, True):
        assert found[key].dtype == value.dtype
        torch.testing.assert_close(found[key], value, rtol=error, atol=error)


@pytest.mark.parametrize("config", [ON([8], sharing="full"), OFF([8], sharing="full")])
def test_who_leaves_outputs_of_a_shared_network_to_others_is_in_no_pack_with_them(
    config: Any,
) -> None:
    """Those of a group go through it in one pass."""
    spec = team(NARROW, TWO, ONE, TWO)
    plain, data = policy(spec, config), seen(spec)
    plain.noise, packed = noise, PackedPolicy(plain)
    assert len(packed.packs) == 3
    wide = [i for i, a in enumerate(spec.agents) if a.action.width == 5]
    assert sorted(packed.packs[0].members) == wide
    expected, found = plain(data.clone()), packed(data.clone())
    for key, value in expected.items(True, True):
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6)


def test_a_network_that_several_share_is_copied_once_and_as_it_was() -> None:
    spec, config = TEAMS["choices among entities, shared"]
    plain, data = policy(spec, config), seen(spec)
    plain.noise, packed = noise, PackedPolicy(plain)
    before = packed(data.clone())
    assert [pack.members for pack in packed.packs] == [[0, 2], [1, 3]]  # by group
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.normal_()
    after = packed(data.clone())
    assert all(torch.equal(after[g, "action"], before[g, "action"]) for g in spec.groups)
    alone = policy(spec, replace(config, sharing="none"))
    assert PackedPolicy(alone).packs == []


def test_agents_that_observe_unequally_are_one_pack() -> None:
    spec, config = TEAMS["Gaussian"]
    (pack,) = PackedPolicy(policy(spec, config)).packs
    assert [same for same, _ in pack.first] == [[0, 2], [1, 3]]  # by size of observation
    assert pack.members == [0, 2, 1, 3]


@pytest.mark.parametrize("config", [ON([8]), OFF([8])], ids=["on", "off"])
@pytest.mark.parametrize("masked", [("g0",), ("g1",), ("g0", "g1")])
def test_masks(config: Any, masked: tuple[str, ...]) -> None:
    """Also where those of a pack stand in groups with and without."""
    spec = team(TWO, TWO)
    plain, data = policy(spec, config), seen(spec, 200, masked)
    plain.noise, packed = noise, PackedPolicy(plain)
    assert len(packed.packs) == 1
    expected, found = plain(data.clone()), packed(data.clone())
    for group in ("g0", "g1"):
        assert torch.equal(found[group, "action"], expected[group, "action"])
    for i, agent in enumerate(spec.agents):
        chosen = agent.action.encode(spec.action(found, i)).bool()
        if agent.group in masked:
            assert spec.action_mask(data, i)[chosen].all()  # type: ignore[index]
        else:
            assert chosen.any(0).all()  # everything is chosen now and then


def test_noise_is_drawn_once_for_a_pack() -> None:
    spec, config = TEAMS["Gaussian"]
    plain, data = policy(spec, config), seen(spec)
    drawn = []
    plain.noise = lambda like: drawn.append(tuple(like.shape)) or torch.randn_like(like)  # type: ignore[func-returns-value]
    found = PackedPolicy(plain)(data)
    assert drawn == [(4, 7, 2)]
    samples = torch.cat([found[group, "sample"] for group in spec.groups], 1)
    assert len(samples.flatten().unique()) == samples.numel()  # nobody has another's


def test_mixed_with_agents_that_act_alone() -> None:
    """One with a memory, one with other sizes, one with modules of its own, and a pair."""
    spec = team(ONE, ONE, ONE, sizes=(3,))
    agents = {"00": {"memory": "gru", "memory_size": 4}, "20": {"hidden_sizes": [5]}}
    plain = policy(spec, ON([8], agents=agents))

    class Own(type(plain.actors[1])):  # type: ignore[misc]
        pass

    plain.actors[1].__class__ = Own
    packed, data = PackedPolicy(plain), seen(spec)
    assert (packed.packs[0].members, packed.alone) == ([3, 4, 5], [0, 1, 2])
    plain.noise = noise
    expected = plain(data.clone())
    found = packed(data)
    assert set(found.keys(True, True)) == set(expected.keys(True, True))
    assert ("next", "hidden", "00") in found.keys(True, True)
    for key, value in expected.items(True, True):
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "packs"),
    [
        ({}, [[0, 1, 2, 3]]),
        ({"sharing": "full"}, [[0, 1, 2, 3]]),
        ({"sharing": [["a", "b"], ["c"], ["d"]]}, [[0, 1, 2, 3]]),
        ({"memory": "lstm"}, []),
        ({"agents": {"a": {"std_scale": 1.0}}}, [[1, 2, 3]]),
        ({"agents": {"a": {"activation": "tanh"}}}, [[1, 2, 3]]),
        ({"agents": {"a": {"layer_norm": False}}}, [[1, 2, 3]]),
    ],
)
def test_who_is_packed(network: dict[str, Any], packs: list[list[int]]) -> None:
    plain = policy(TeamSpec.from_env(KindsEnv()), ON([8], **network))
    packed = PackedPolicy(plain)
    assert [sorted(pack.members) for pack in packed.packs] == packs
    assert (for_acting(plain, 1) is plain) == (not packs)


def test_one_dtype_per_pack() -> None:
    plain = policy(UNEQUAL, OFF([8]))
    assert len(PackedPolicy(plain).packs) == 1
    plain.actors[0].double()
    assert PackedPolicy(plain).packs == []


def test_layers_that_a_pack_does_not_know() -> None:
    plain = policy(team(NARROW), ON([8]))
    for actor in plain.actors:
        actor.net.body.layers.append(torch.nn.Dropout())  # type: ignore[union-attr,operator]
    assert PackedPolicy(plain).packs == []


def test_only_for_few_environments_and_the_policy_as_it_is() -> None:
    plain = policy(team(NARROW), ON([8]))
    assert isinstance(for_acting(plain, MOST_ENVS), PackedPolicy)
    assert for_acting(plain, MOST_ENVS + 1) is plain

    class Other(TeamPolicy):
        pass

    other = Other(plain.team, actors=plain.actors)
    assert for_acting(other, 1) is other


def test_collects_with_the_weights_as_they_are() -> None:
    """Never with those of the rollout before."""
    env = KindsEnv(num_envs=3)
    plain = policy(TeamSpec.from_env(env), ON([8]))
    collector = TeamCollector(env, plain, seed=0)
    for iteration in range(3):
        plain.actors[iteration].std.data.fill_(-200.0)  # σ = 0 to 87 digits: samples are means
        plain.actors[iteration].net.head.bias.data.add_(0.3)  # type: ignore[union-attr,operator]
        chunk, _ = collector.collect(2, iteration)
        first = chunk[:, 0]
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            expected = plain(first.clone())
        for i in range(4):
            found = plain.team.action(first, i, "sample")
            mean = plain.team.action(expected, i, "sample")
            assert torch.allclose(found, mean, rtol=1e-6, atol=1e-6) == (i <= iteration)


def test_evaluates_as_the_team_policy_would(monkeypatch: pytest.MonkeyPatch) -> None:
    env = KindsEnv(num_envs=3)
    plain = policy(TeamSpec.from_env(env), ON([8]))
    results = []
    for act in (plain, lambda data: plain(data)):
        env.set_seed(0)
        results.append(evaluate(act, env))
    packed, alone = (torch.tensor(result["returns"]) for result in results)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(PackedPolicy, "__call__", None)
    with pytest.raises(TypeError):  # so it was packed
        evaluate(plain, env)
