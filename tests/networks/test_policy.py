"""Team policy, joint critic, and the configuration of networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchrl.envs import ExplorationType, set_exploration_type

from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy, mlp
from hetmarl_envs.errors import ConfigError
from tests.teams import STATELESS, UNEQUAL, batch

SMALL = NetworkConfig([8, 6])


def test_writes_every_agents_action_at_its_place() -> None:
    policy, data = TeamPolicy(UNEQUAL, SMALL), batch(UNEQUAL, 5)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        acted = policy(data.clone())
    assert acted["legs", "action"].shape == (5, 2, 2)
    assert acted["body", "action"].shape == (5, 1, 1)
    for i, (group, index) in enumerate([("legs", 0), ("body", 0), ("legs", 1)]):
        own = policy.actors[i].act(data[group, "observation"][:, index], None)[0]
        assert torch.equal(acted[group, "action"][:, index], own)


@pytest.mark.parametrize("shape", [[], [3], [3, 4]])
def test_any_batch_axes(shape: list[int]) -> None:
    policy = TeamPolicy(UNEQUAL, SMALL)
    data = batch(UNEQUAL, 12)[0] if not shape else batch(UNEQUAL, 12)[: 3 if shape == [3] else 12]
    data = data.reshape(*shape) if len(shape) == 2 else data
    assert policy(data)["legs", "action"].shape == (*shape, 2, 2)


def test_one_agents_observation_moves_its_action_alone() -> None:
    policy, data = TeamPolicy(UNEQUAL, SMALL), batch(UNEQUAL)
    other = data.clone()
    other["legs", "observation"][:, 1] += 1
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        a, b = policy(data), policy(other)
    assert torch.equal(a["body", "action"], b["body", "action"])
    assert torch.equal(a["legs", "action"][:, 0], b["legs", "action"][:, 0])
    assert (a["legs", "action"][:, 1] != b["legs", "action"][:, 1]).all()


def test_explores_by_torchrls_exploration_type() -> None:
    policy, data = TeamPolicy(UNEQUAL, SMALL), batch(UNEQUAL)
    for kind in (ExplorationType.RANDOM, None):
        with set_exploration_type(kind):
            first = policy(data)["legs", "action"].clone()
            assert not torch.equal(first, policy(data)["legs", "action"])
    for kind in (ExplorationType.MODE, ExplorationType.MEAN, ExplorationType.DETERMINISTIC):
        with set_exploration_type(kind):
            first = policy(data)["legs", "action"].clone()
            assert torch.equal(first, policy(data)["legs", "action"])


def test_noise_is_what_it_is_given() -> None:
    policy, data = TeamPolicy(UNEQUAL, SMALL), batch(UNEQUAL)
    policy.noise = torch.zeros_like
    with set_exploration_type(ExplorationType.RANDOM):
        drawn = policy(data.clone())
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(drawn["legs", "action"], policy(data.clone())["legs", "action"])


def test_equal_agents_have_networks_of_their_own() -> None:
    policy = TeamPolicy(UNEQUAL, SMALL)
    left, right = policy.actors[0], policy.actors[2]
    shared = {p.data_ptr() for p in left.parameters()} & {p.data_ptr() for p in right.parameters()}
    assert not shared
    assert not torch.equal(left.net[0].weight, right.net[0].weight)


def test_a_double_policy_acts_in_the_environments_float() -> None:
    policy = TeamPolicy(UNEQUAL, SMALL).double()
    assert policy(batch(UNEQUAL))["legs", "action"].dtype == torch.float32


def test_critic_takes_doubles_and_floats_alike() -> None:
    critic, data = JointQ(UNEQUAL, SMALL).double(), batch(UNEQUAL)
    q1, q2 = critic(UNEQUAL.critic_input(data), UNEQUAL.joint_action(data))
    assert q1.dtype == q2.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        q1, _ = critic.float()(UNEQUAL.critic_input(data), UNEQUAL.joint_action(data))
    assert q1.dtype == torch.float32


@pytest.mark.parametrize("spec", [UNEQUAL, STATELESS])
def test_critic_sees_the_state_and_everybodys_action(spec) -> None:  # type: ignore[no-untyped-def]
    critic, data = JointQ(spec, SMALL), batch(spec)
    state = spec.critic_input(data).requires_grad_()
    actions = [a.clone().requires_grad_() for a in spec.joint_action(data)]
    q1, q2 = critic(state, actions)
    assert q1.shape == q2.shape == (8, 1)
    assert not torch.equal(q1, q2)
    for gradient in torch.autograd.grad(torch.minimum(q1, q2).sum(), [state, *actions]):
        assert (gradient != 0).any(-1).all()


def test_critics_input_without_state_is_every_observation() -> None:
    data = batch(STATELESS)
    seen = STATELESS.critic_input(data)
    expected = [data["legs", "observation"].flatten(1), data["body", "observation"].flatten(1)]
    assert torch.equal(seen, torch.cat(expected, -1))
    assert STATELESS.critic_dim == seen.shape[-1] == 10


def test_policy_copies_and_loads() -> None:
    policy, data = TeamPolicy(UNEQUAL, SMALL), batch(UNEQUAL)
    other = TeamPolicy(UNEQUAL, SMALL)
    other.load_state_dict(policy.state_dict())
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        expected = policy(data.clone())["body", "action"]
        for twin in (other, copy.deepcopy(policy)):
            assert torch.equal(twin(data.clone())["body", "action"], expected)


def test_mlp_has_the_reference_architecture() -> None:
    net = mlp(3, 2, [8, 6], "relu", "tanh")
    kinds = [type(layer).__name__ for layer in net]
    assert kinds == ["Linear", "ReLU", "Linear", "Tanh", "Linear"]
    assert [m.out_features for m in net if isinstance(m, nn.Linear)] == [8, 6, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_sizes": []}, r"network.hidden_sizes=\[\]: expected at least one size"),
        ({"hidden_sizes": [8, 0]}, r"network.hidden_sizes=\[8, 0\]"),
        ({"activation": "rellu"}, r"network.activation='rellu' is unknown. Did you mean 'relu'\?"),
        ({"actor_last_activation": "x"}, "Choose one of relu, tanh"),
    ],
)
def test_bad_network_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NetworkConfig(**settings)
