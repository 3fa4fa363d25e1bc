"""Settings of networks: of the team, of single agents, of the critic."""

from __future__ import annotations

from typing import Any

import pytest

from hetmarl.networks import OnPolicyNetworkConfig, SePSConfig, TeamPolicy
from hetmarl_envs.errors import HetmarlError
from tests.teams import UNEQUAL


def test_one_agents_settings_and_the_critics() -> None:
    config = OnPolicyNetworkConfig(
        hidden_sizes=[8],
        agents={"body": {"memory": "gru", "memory_size": 5}},
        critic={"hidden_sizes": [9.0], "memory": "lstm"},
    )
    own, others, critic = config.for_agent("body"), config.for_agent("left"), config.for_critic()
    assert (own.memory, own.memory_size, own.hidden_sizes) == ("gru", 5, [8])
    assert (others.memory, others.hidden_sizes) == ("none", [8])
    assert (critic.memory, critic.hidden_sizes) == ("lstm", [9])
    policy = TeamPolicy(UNEQUAL, config)
    assert policy.recurrent == [1]
    assert [actor.hidden_size for actor in policy.actors] == [0, 5, 0]


def test_comes_back_from_a_checkpoints_plain_values() -> None:
    config = OnPolicyNetworkConfig(
        sharing=[["left", "right"], ["body"]],
        seps=SePSConfig(clusters=2, sets=[["left"], ["body", "right"]]),
        agents={"body": {"memory": "gru"}},
        critic={"layer_norm": False},
    )
    assert OnPolicyNetworkConfig(**config.to_dict()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": "gruu"}, "network.memory='gruu' is unknown. Did you mean 'gru'?"),
        ({"memory_size": 0}, "network.memory_size=0: expected more than 0"),
        ({"channels": []}, "network.channels=[]: expected sizes of 1 or more"),
        ({"sharing": "ful"}, "network.sharing='ful' is unknown. Did you mean 'full'?"),
        ({"sharing": ["left", "right"]}, "expected none, full, seps or a list of sets"),
        ({"sharing": [["left"], []]}, "expected none, full, seps or a list of sets"),
        ({"agents": {"body": {"memry": "gru"}}}, "'network.agents.body.memry'. Did you mean 'me"),
        ({"agents": {"body": {"memory": "grru"}}}, "network.agents.body.memory='grru' is unknown"),
        ({"agents": {"body": {"memory_size": 0}}}, "network.agents.body.memory_size=0: expected"),
        ({"agents": {"body": {"hidden_sizes": 8}}}, "network.agents.body.hidden_sizes=8: expected"),
        ({"agents": {"body": {"layer_norm": "yes"}}}, "layer_norm='yes': expected true or false"),
        ({"agents": {"body": {"sharing": "full"}}}, "unknown key 'network.agents.body.sharing'"),
        ({"agents": {"body": {"agent_id": True}}}, "unknown key 'network.agents.body.agent_id'"),
        ({"critic": {"hiden_sizes": [8]}}, "'network.critic.hiden_sizes'. Did you mean 'hidden_s"),
        ({"critic": {"actor_gain": 1.0}}, "unknown key 'network.critic.actor_gain'"),
        ({"critic": {"std_init": 1.0}}, "unknown key 'network.critic.std_init'"),
        ({"critic": {"memory": "GRU"}}, "network.critic.memory='GRU' is unknown"),
        ({"seps": {"clusters": 0}}, "network.seps.clusters=0: expected more than 0"),
        ({"seps": {"clsters": 2}}, "'network.seps.clsters'. Did you mean 'network.seps.clusters'?"),
        ({"seps": {"kl_coef": -1.0}}, "network.seps.kl_coef=-1.0: expected 0 or more"),
        ({"seps": {"hidden_sizes": []}}, "network.seps.hidden_sizes=[]: expected sizes"),
    ],
)
def test_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(HetmarlError) as caught:
        OnPolicyNetworkConfig(**settings)
    assert message in str(caught.value)
