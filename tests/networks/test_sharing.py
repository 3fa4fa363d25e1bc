"""Agents that share parameters, and those who do not."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from hetmarl.networks import (
    LocalValues,
    OnPolicyNetworkConfig,
    SePSConfig,
    StateValue,
    TeamPolicy,
)
from hetmarl.networks.sharing import sharing_sets
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec
from hetmarl_envs.errors import ConfigError, HetmarlError
from tests.networks.toys import MIXED, ImageEnv
from tests.teams import UNEQUAL, batch


def config(**settings: Any) -> OnPolicyNetworkConfig:
    small = {"hidden_sizes": [8], "memory_size": 4, "actor_gain": 1.0, "channels": [2]}
    return OnPolicyNetworkConfig(**small | settings)


def observed(spec: TeamSpec, size: int = 6) -> list[Tensor]:
    return [torch.randn(size, *agent.observation_shape) for agent in spec.agents]


def outputs(policy: TeamPolicy, observations: list[Tensor]) -> list[Tensor]:
    pairs = zip(policy.actors, observations, strict=True)
    return [actor(observation)[0] for actor, observation in pairs]


@pytest.mark.parametrize(
    ("sharing", "sets"),
    [
        ("none", [[0], [1], [2], [3]]),
        ("full", [[0, 1, 2, 3]]),
        ([["arm", "leg"], ["panel", "switch"]], [[0, 3], [2, 1]]),
        ([["leg"], ["switch", "arm"], ["panel"]], [[3], [1, 0], [2]]),
    ],
)
def test_sets(sharing: Any, sets: list[list[int]]) -> None:
    assert sharing_sets(MIXED, config(sharing=sharing)) == sets
    expected = sorted(sorted(members) for members in sets)
    assert TeamPolicy(MIXED, config(sharing=sharing)).units == expected
    found = [list(names) for names in ([MIXED.names[i] for i in members] for members in sets)]
    assert sharing_sets(MIXED, config(sharing="seps", seps=SePSConfig(sets=found))) == sets


def test_shared_weights_are_the_same_and_the_others_are_not() -> None:
    policy = TeamPolicy(MIXED, config(sharing=[["arm", "leg", "switch"], ["panel"]]))
    arm, switch, panel, leg = ({id(p) for p in actor.parameters()} for actor in policy.actors)
    assert arm == leg
    assert arm > switch  # which has no σ
    assert not arm & panel


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_an_output_depends_on_its_own_agent_alone(memory: str) -> None:
    """Neither other agents' observations nor the outputs that only they have move it."""
    policy, seen = TeamPolicy(MIXED, config(sharing="full", memory=memory)), observed(MIXED)
    before = outputs(policy, seen)
    widths = [2 * 2, 4, 5, 2 * 1]  # Gaussians: means and σ's
    assert [x.shape[-1] for x in before] == widths
    for moved in range(4):
        after = outputs(policy, [x + (i == moved) for i, x in enumerate(seen)])
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [i != moved for i in range(4)]
    with torch.no_grad():
        policy.actors[0].net.head.weight[4:] += 1.0  # the panel's fifth output
        policy.actors[0].std[1:] += 1.0  # the arm's second number
    after = outputs(policy, seen)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [0, 1, 0, 1]
    assert torch.equal(after[2][:, :4], before[2][:, :4])
    assert torch.equal(after[0][:, :3], before[0][:, :3])


def test_zeros_and_the_agents_number_fill_up_the_input() -> None:
    """A shared network is that of the longest observation, fed with a row of zeros and the id."""
    policy, seen = TeamPolicy(MIXED, config(sharing="full")), observed(MIXED)
    for i, actor in enumerate(policy.actors):
        padded = torch.nn.functional.pad(seen[i], (0, 5 - seen[i].shape[-1]))
        row = torch.cat([padded, torch.eye(4)[i].expand(6, 4)], -1)
        output = actor.net.head(actor.net.body.layers(row))
        torch.testing.assert_close(actor.net(seen[i])[0], output[:, : actor.net.outputs])


@pytest.mark.parametrize("agent_id", [True, False])
def test_equal_agents_with_and_without_their_number(agent_id: bool) -> None:
    """Without it twins that see the same do the same; with it they need not."""
    policy = TeamPolicy(UNEQUAL, config(sharing="full", agent_id=agent_id))
    seen = torch.randn(6, 3)
    left, right = (policy.actors[i](seen)[0] for i in (0, 2))
    assert torch.equal(left, right) == (not agent_id)


def test_images_are_shared_with_the_agents_number() -> None:
    spec = TeamSpec.from_env(ImageEnv())
    policy = TeamPolicy(spec, config(sharing=[["eye_0", "eye_1"], ["knob"]]))
    image = torch.rand(2, 1, 8, 8)
    one, other = (policy.actors[i](image)[0] for i in (0, 1))
    assert one.shape == (2, 2)
    assert not torch.equal(one, other)
    assert policy.units == [[0, 1], [2]]


# ---------------------------------------------------------------------- critics
def test_local_critics_follow_the_sharing() -> None:
    data, team = batch(UNEQUAL, 6), OnPolicyNetworkConfig(hidden_sizes=[8], sharing="full")
    critic = LocalValues(UNEQUAL, team)
    assert critic(data).shape == (6, 3)
    assert len({id(net.head.weight) for net in critic.networks}) == 1
    separate = LocalValues(UNEQUAL, OnPolicyNetworkConfig(hidden_sizes=[8]))
    assert len({id(net.head.weight) for net in separate.networks}) == 3
    for net in (critic, separate):
        before = net(data)
        moved = data.clone()
        moved["body", "observation"] += 1
        assert (net(moved) == before).all(0).tolist() == [True, False, True]


@pytest.mark.parametrize("memory", ["none", "gru", "lstm"])
@pytest.mark.parametrize("make", [StateValue, LocalValues])
def test_critics_shapes_with_images(make: Any, memory: str) -> None:
    env = ImageEnv(num_envs=4)
    spec, data = TeamSpec.from_env(env), env.reset()
    critic = make(spec, config(critic={"memory": memory, "hidden_sizes": [9]}))
    width = 1 if make is StateValue else 3
    assert critic(data).shape == (4, width)
    assert critic.recurrent == (memory != "none")
    if not critic.recurrent:
        assert critic(torch.stack([data, data], 1)).shape == (4, 2, width)
        return
    critic.start(data)
    critic.remember(data)
    for key in data["hidden"].keys():
        assert data["hidden", key].shape == data["next", "hidden", key].shape
        assert not torch.equal(data["hidden", key], data["next", "hidden", key])


def test_the_central_critic_sees_every_image_and_vector() -> None:
    env = ImageEnv(num_envs=4)
    spec, data = TeamSpec.from_env(env), env.reset()
    critic = StateValue(spec, config(layer_norm=False, activation="tanh"))
    for group, count in (("eye", 2), ("knob", 1)):
        for index in range(count):
            moved = data.clone()
            moved[group, "observation"][:, index] += 0.5
            assert (critic(moved) != critic(data)).all()


# ---------------------------------------------------------------------- copies
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_copies_load_and_share_as_the_original_does(memory: str) -> None:
    settings = config(sharing=[["arm", "leg", "switch"], ["panel"]], memory=memory)
    policy, seen = TeamPolicy(MIXED, settings), observed(MIXED)
    expected = outputs(policy, seen)
    buffer = io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    buffer.seek(0)
    loaded = TeamPolicy(MIXED, settings)
    assert not torch.equal(outputs(loaded, seen)[0], expected[0])
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for twin in (loaded, copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        for a, b in zip(outputs(twin, seen), expected, strict=True):
            assert torch.equal(a, b)
        assert twin.units == policy.units == [[0, 1, 3], [2]]
        with torch.no_grad():
            twin.actors[0].net.head.bias += 1
        assert not torch.equal(outputs(twin, seen)[3], expected[3])
        assert torch.equal(outputs(policy, seen)[3], expected[3])


def test_shared_modules_keep_sharing_in_another_dtype() -> None:
    policy = TeamPolicy(MIXED, config(sharing="full")).double()
    assert policy.units == [[0, 1, 2, 3]]
    assert {x.dtype for x in outputs(policy, observed(MIXED))} == {torch.float64}


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sharing": [["arm", "leg"], ["pannel", "switch"]]}, "no agent 'pannel'. Did you mean"),
        ({"sharing": [["arm", "leg"], ["panel"]]}, "expected every agent in exactly one set"),
        ({"sharing": [["arm", "arm"], ["leg", "panel", "switch"]]}, "in exactly one set"),
        ({"agents": {"amr": {"memory": "gru"}}}, "network.agents: the team has no agent 'amr'"),
        (
            {"sharing": "full", "agents": {"leg": {"memory": "gru"}}},
            "network.agents.leg: it shares its parameters with arm, switch, panel",
        ),
        ({"sharing": "seps"}, "hetmarl.data.selective_sharing"),
        (
            {"sharing": "seps", "seps": SePSConfig(sets=[["arm"]])},
            "network.seps.sets=[['arm']]: expected every agent in exactly one set",
        ),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(HetmarlError) as caught:
        TeamPolicy(MIXED, config(**settings))
    assert message in str(caught.value)


def test_an_agent_outside_of_the_set_may_differ() -> None:
    sharing = [["arm", "leg"], ["panel"], ["switch"]]
    policy = TeamPolicy(MIXED, config(sharing=sharing, agents={"panel": {"memory": "gru"}}))
    assert [actor.hidden_size for actor in policy.actors] == [0, 0, 4, 0]


def test_images_and_vectors_do_not_go_together() -> None:
    spec = TeamSpec.from_env(ImageEnv())
    with pytest.raises(ConfigError, match=r"observe \[1, 8, 8\], \[3\]. Expected equal shapes"):
        TeamPolicy(spec, config(sharing="full"))


def test_empty_bounds() -> None:
    spec = TeamSpec((AgentSpec("a", "g", 0, (2,), ActionSpace("continuous", (1.0,), (1.0,))),))
    with pytest.raises(ConfigError, match="agent 'a': expected action bounds with low < high"):
        TeamPolicy(spec, config())
