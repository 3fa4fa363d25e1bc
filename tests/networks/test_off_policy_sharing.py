"""Off-policy actors that share parameters: what each reads, and what it takes."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hetmarl.algorithms import MASAC
from hetmarl.networks import (
    DeterministicNetworkConfig,
    GreedyNetworkConfig,
    JointQ,
    NetworkConfig,
    TeamPolicy,
)
from hetmarl.networks.body import Memory
from hetmarl.objectives import HAD3QNLoss
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError, HetmarlError
from tests.networks.toys import MIXED
from tests.teams import UNEQUAL, batch

CHOOSING = TeamSpec(MIXED.agents[1:3], None)
KINDS = [
    pytest.param(NetworkConfig, MIXED, id="random"),
    pytest.param(DeterministicNetworkConfig, MIXED, id="deterministic"),
    pytest.param(GreedyNetworkConfig, CHOOSING, id="greedy"),
]


def policy_of(kind: type[NetworkConfig], spec: TeamSpec, **settings: Any) -> TeamPolicy:
    return TeamPolicy(spec, kind(**({"hidden_sizes": [8, 6], "memory_size": 4} | settings)))


def observed(spec: TeamSpec, size: int = 6) -> list[Tensor]:
    return [torch.randn(size, *agent.observation_shape) for agent in spec.agents]


def outputs(policy: TeamPolicy, observations: list[Tensor]) -> list[Tensor]:
    found = []
    for actor, seen in zip(policy.actors, observations, strict=True):
        output = actor(seen)
        found.append(torch.cat(output, -1) if isinstance(output, tuple) else output)
    return found


@pytest.mark.parametrize(("kind", "spec"), KINDS)
@pytest.mark.parametrize("memory", ["none", "gru", "lstm"])
def test_an_output_depends_on_its_own_agent_alone(
    kind: type[NetworkConfig], spec: TeamSpec, memory: str
) -> None:
    policy, seen = policy_of(kind, spec, sharing="full", memory=memory), observed(spec)
    count = spec.num_agents
    assert policy.units == [list(range(count))]
    before = outputs(policy, seen)
    alone = outputs(policy_of(kind, spec, memory=memory), seen)
    assert [x.shape for x in before] == [x.shape for x in alone]
    for moved in range(count):
        after = outputs(policy, [x + (i == moved) for i, x in enumerate(seen)])
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [i != moved for i in range(count)]


def test_zeros_and_the_agents_number_fill_up_the_input() -> None:
    """One network for the longest observation; of its outputs each takes its own."""
    policy, seen = policy_of(NetworkConfig, MIXED, sharing="full"), observed(MIXED)
    arm, switch, panel, leg = policy.actors
    rows = [
        torch.cat([F.pad(x, (0, 5 - x.shape[-1])), torch.eye(4)[i].expand(6, 4)], -1)
        for i, x in enumerate(seen)
    ]
    net = arm.net
    assert net[0].in_features == 9 and net[-1].out_features == 5  # the panel has 3 + 2 choices
    torch.testing.assert_close(switch(seen[1]), net(rows[1])[:, :4])
    torch.testing.assert_close(panel(seen[2]), net(rows[2]))
    # of five numbers the first three are means: the arm's two and the leg's one begin them
    both = net(rows[0])
    torch.testing.assert_close(arm(seen[0]), (both[:, :2], both[:, 3:5].clamp(-20, 2)))
    one = net(rows[3])
    torch.testing.assert_close(leg(seen[3]), (one[:, :1], one[:, 3:4].clamp(-20, 2)))


def test_greedy_agents_share_both_streams() -> None:
    policy = policy_of(GreedyNetworkConfig, CHOOSING, sharing="full")
    switch, panel = policy.actors
    assert {id(p) for p in switch.parameters()} == {id(p) for p in panel.parameters()}
    seen = observed(CHOOSING)
    row = torch.cat([seen[0], torch.tensor([1.0, 0.0]).expand(6, 2)], -1)
    features = switch.net(row)
    advantage = switch.advantage(features)
    assert advantage.shape[-1] == 6  # the panel's combinations
    mine = advantage[:, :4]
    expected = switch.value(features) + mine - mine.mean(-1, keepdim=True)
    torch.testing.assert_close(switch(seen[0]), expected)


@pytest.mark.parametrize("agent_id", [True, False])
@pytest.mark.parametrize("kind", [NetworkConfig, DeterministicNetworkConfig])
def test_equal_agents_with_and_without_their_number(
    kind: type[NetworkConfig], agent_id: bool
) -> None:
    """Without it twins that see the same do the same; with it they need not."""
    policy = policy_of(kind, UNEQUAL, sharing=[["left", "right"], ["body"]], agent_id=agent_id)
    assert policy.units == [[0, 2], [1]]
    seen = torch.randn(6, 3)
    left, right = (policy.actors[i].act(seen, None)[0] for i in (0, 2))
    assert torch.equal(left, right) == (not agent_id)


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_memories_step_by_step_and_through_time(memory: str) -> None:
    """A shared recurrent network reads the agent's number at every step."""
    policy = policy_of(NetworkConfig, MIXED, sharing="full", memory=memory)
    leg, seen = policy.actors[3], torch.randn(6, 5, 1)
    is_init = torch.zeros(6, 5, 1, dtype=torch.bool)
    hidden = torch.zeros(6, leg.hidden_size)
    states = leg.states(seen, Memory(hidden, is_init))
    for t in range(5):
        _, hidden = leg.output(seen[:, t], Memory(hidden, is_init[:, t]))
        torch.testing.assert_close(states[:, t], hidden)


def test_sets_of_one_are_no_sharing() -> None:
    torch.manual_seed(0)
    alone = TeamPolicy(MIXED, NetworkConfig([8])).state_dict()
    torch.manual_seed(0)
    sets = [[name] for name in MIXED.names]
    same = TeamPolicy(MIXED, NetworkConfig([8], sharing=sets)).state_dict()
    assert all(torch.equal(alone[key], same[key]) for key in alone) and len(alone) == len(same)


@pytest.mark.parametrize(("kind", "spec"), KINDS)
def test_copies_load_and_share_as_the_original_does(
    kind: type[NetworkConfig], spec: TeamSpec
) -> None:
    policy, seen = policy_of(kind, spec, sharing="full"), observed(spec)
    expected, buffer = outputs(policy, seen), io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    buffer.seek(0)
    loaded = policy_of(kind, spec, sharing="full")
    assert not torch.equal(outputs(loaded, seen)[0], expected[0])
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for twin in (loaded, copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert twin.units == policy.units
        for a, b in zip(outputs(twin, seen), expected, strict=True):
            assert torch.equal(a, b)
        with torch.no_grad():
            for parameter in twin.actors[0].parameters():
                parameter += 1
        assert not torch.equal(outputs(twin, seen)[-1], expected[-1])
        assert torch.equal(outputs(policy, seen)[-1], expected[-1])


def test_refusals_name_agents() -> None:
    with pytest.raises(HetmarlError, match="no agent 'leg'"):
        TeamPolicy(UNEQUAL, NetworkConfig([8], sharing=[["leg", "right"], ["body"]]))
    with pytest.raises(ConfigError, match="every agent in exactly one set"):
        TeamPolicy(UNEQUAL, NetworkConfig([8], sharing=[["left", "right"]]))
    with pytest.raises(ConfigError, match="'ful' is unknown"):
        NetworkConfig(sharing="ful")


# ---------------------------------------------------------------------- the critic's candidates
@pytest.mark.parametrize("hidden", [[7], [7, 6], [7, 6, 5]])
@pytest.mark.parametrize("agent", [1, 2])
def test_candidates_are_the_values_of_each_choice(hidden: list[int], agent: int) -> None:
    critic = JointQ(MIXED, NetworkConfig(hidden)).double()
    state = torch.randn(2, 3, MIXED.critic_dim).double()
    actions = [torch.randn(2, 3, a.action.width).double() for a in MIXED.agents]
    choices = torch.eye(MIXED.agents[agent].action.width)
    found = critic.candidates(state, actions, agent, choices)
    for c, choice in enumerate(choices.double()):
        actions[agent] = choice.expand(2, 3, -1)
        for all_of_them, value in zip(found, critic(state, actions), strict=True):
            torch.testing.assert_close(all_of_them[..., c : c + 1], value)
    actions[agent] = torch.full_like(actions[agent], torch.nan)  # its own does not count
    assert torch.equal(critic.candidates(state, actions, agent, choices)[0], found[0])


def test_a_critic_of_ones_own_is_asked_for_every_choice() -> None:
    """Its forward alone says what it thinks of them."""

    class Tenfold(JointQ):
        def forward(self, *args: Any) -> tuple[Tensor, ...]:
            return tuple(10 * value for value in super().forward(*args))

    config = GreedyNetworkConfig([8])
    critic = JointQ(CHOOSING, config, 1)
    own = Tenfold(CHOOSING, config, 1)
    own.load_state_dict(critic.state_dict())
    data = batch(CHOOSING, 5)
    actions = [torch.randn(5, a.action.width) for a in CHOOSING.agents]
    plain, tenfold = (
        HAD3QNLoss(TeamPolicy(CHOOSING, config), q).candidates(data, 1, actions, torch.eye(5))
        for q in (critic, own)
    )
    torch.testing.assert_close(tenfold, 10 * plain)


def test_actors_that_share_nothing_are_not_taken_for_shared_ones() -> None:
    class Own(NetworkConfig):
        def make_actors(self, spec: TeamSpec) -> list[nn.Module]:
            return [self.make_actor(agent) for agent in spec.agents]

    class WithOwn(MASAC):
        network_type = Own

    WithOwn(UNEQUAL, network=Own([8]))
    with pytest.raises(ConfigError, match="share nothing"):
        WithOwn(UNEQUAL, network=Own([8], sharing="full"))
