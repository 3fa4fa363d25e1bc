"""Compiled networks: the same updates, checkpoints and errors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from hetmarl.algorithms import HAPPO, HATRPO, MAPPO
from hetmarl_envs.errors import ConfigError, UnknownNameError
from tests.on_policy import make, rollout, update, weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "network"),
    [
        (HAPPO, {"hidden_sizes": [8, 8]}),
        (HAPPO, {"hidden_sizes": [8], "memory": "gru"}),
        (
            MAPPO,
            {
                "hidden_sizes": [8],
                "sharing": [["arm_0", "arm_1"], ["panel_0", "panel_1"], ["valve"]],
            },
        ),
    ],
    ids=["mlp", "gru", "shared"],
)
def test_updates_are_the_same(algorithm: Any, network: dict[str, Any]) -> None:
    settings = {"epochs": 2, "critic_epochs": 2, "chunk_length": 4}
    plain = make(algorithm, network=network, **settings)
    compiled = make(algorithm, network=network | {"compile": True}, **settings)
    for module in (*compiled.policy.actors, compiled.critic):
        assert module._compiled_call_impl is not None
    data = rollout(plain, 8)
    for iteration in range(2):
        update(plain, data, iteration)
        update(compiled, data, iteration)
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-9, atol=1e-11)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert copy.deepcopy(compiled.policy).actors[0]._compiled_call_impl is None


def test_nothing_is_compiled_unless_asked() -> None:
    module = make(HAPPO)
    assert all(actor._compiled_call_impl is None for actor in module.policy.actors)


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"second derivatives.*network\.compile=false"):
        make(HATRPO, network={"compile": True})
    with pytest.raises(UnknownNameError, match=r"unknown key 'network.critic.compile'"):
        make(HAPPO, network={"critic": {"compile": True}})
