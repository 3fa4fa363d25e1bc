"""Networks that take things of a kind alike, wherever in the observation they stand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hetmarl.algorithms import (
    HAA2C,
    HADDPG,
    HAMDPO,
    HAPPO,
    HASAC,
    HASACKL,
    HATD3,
    HATRPO,
    IPPO,
    MAPPO,
    MASAC,
)
from hetmarl.algorithms.on_policy import OnPolicyModule
from hetmarl.networks import (
    JointQ,
    LocalValues,
    NetworkConfig,
    OnPolicyNetworkConfig,
    StateValue,
    TeamPolicy,
)
from hetmarl.networks.body import Memory
from hetmarl.networks.config import GreedyNetworkConfig
from hetmarl.networks.entity_critic import EntityJointQ, make_joint_q
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec
from hetmarl_envs.entities import Entities
from hetmarl_envs.errors import ConfigError, ContractError
from tests.algorithms.fitting import fit
from tests.on_policy import make, rollout, update, weights
from tests.teams import HybridEnv, batch

ENEMIES, ALLIES = Entities("enemies", 2, 3, 4, (2, 3, 4)), Entities("allies", 14, 2, 3)
"""Of an observation of 2 numbers, 3 enemies, 2 allies and one number more."""
SIZE, CHOICES = 21, 5


def team(heals: bool = False) -> TeamSpec:
    """Three units that look alike; with ``heals`` the choices 2 to 4 are about allies too."""
    space = ActionSpace("discrete", choices=(CHOICES,))
    units = []
    for i in range(3):
        others = (*(2 + j for j in range(3) if j != i),) if heals else ()
        own = (ENEMIES, replace(ALLIES, choices=others))
        units.append(AgentSpec(f"unit_{i}", "units", i, (SIZE,), space, own))
    healed = (2, 3, 4) if heals else ()
    state = (Entities("units", 0, 3, 2, healed), Entities("enemies", 7, 3, 3, (2, 3, 4)))
    return TeamSpec(tuple(units), 16, state)


def config(**settings: Any) -> OnPolicyNetworkConfig:
    small = {"hidden_sizes": [8, 6], "actor_gain": 1.0, "memory_size": 4, "entity_size": 4}
    small["entities"] = True
    return OnPolicyNetworkConfig(**small | settings)


def permuted(vector: Tensor, block: Entities, order: list[int]) -> Tensor:
    """``vector [*B, O]`` with the block's things in another order."""
    vector, rows = vector.clone(), block.rows(vector)
    vector[..., block.start : block.stop] = rows[..., order, :].flatten(-2)
    return vector


def off_policy(**settings: Any) -> NetworkConfig:
    small = {"hidden_sizes": [8, 6], "memory_size": 4, "entities": True, "entity_size": 4}
    return NetworkConfig(**small | settings)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_order_of_enemies_is_that_of_the_choices_about_them(layer_norm: bool) -> None:
    policy = TeamPolicy(team(), config(sharing="full", layer_norm=layer_norm)).double()
    seen, order = torch.randn(7, SIZE).double(), [2, 0, 1]
    for actor in policy.actors:
        logits = actor(seen)[0]
        again = actor(permuted(seen, ENEMIES, order))[0]
        assert logits.std(0).min() > 0.01  # every choice depends on what is seen
        torch.testing.assert_close(again[:, :2], logits[:, :2])
        torch.testing.assert_close(again[:, 2:], logits[:, 2:][:, order])
        torch.testing.assert_close(actor(permuted(seen, ALLIES, [1, 0]))[0], logits)
    assert len(policy.units) == 1


def test_a_choice_may_be_about_an_enemy_and_about_an_ally() -> None:
    spec = team(heals=True)
    policy = TeamPolicy(spec, config(sharing="full", agent_id=False)).double()
    seen = torch.randn(7, SIZE).double()
    first, middle, last = (actor(seen)[0] for actor in policy.actors)
    swapped = policy.actors[1](permuted(seen, ALLIES, [1, 0]))[0]
    torch.testing.assert_close(swapped[:, [0, 1, 3]], middle[:, [0, 1, 3]])  # 3 is oneself
    assert (swapped[:, [2, 4]] - middle[:, [2, 4]]).abs().min() > 1e-6
    # the score of an ally moves from one choice to another, that of the enemies stays
    torch.testing.assert_close((swapped - middle)[:, 2], -(swapped - middle)[:, 4])
    # the same networks: units see each ally under another number, the sum is the same
    torch.testing.assert_close(first.sum(-1), middle.sum(-1))
    torch.testing.assert_close(last.sum(-1), middle.sum(-1))
    assert (first - middle).abs().max() > 1e-3


def test_values_do_not_know_any_order() -> None:
    spec = team()
    data = batch(spec, 7, dtype=torch.float64)
    value = StateValue(spec, config()).double()
    own = LocalValues(spec, config(sharing="full")).double()
    before = value(data), own(data)
    data["state"] = permuted(data["state"], spec.state_entities[1], [1, 2, 0])
    data["state"] = permuted(data["state"], spec.state_entities[0], [2, 1, 0])
    data["units", "observation"] = permuted(data["units", "observation"], ENEMIES, [1, 2, 0])
    torch.testing.assert_close(value(data), before[0])
    torch.testing.assert_close(own(data), before[1])
    assert before[0].std() > 0.01 and before[1].std() > 0.01
    plain = StateValue(spec, config(critic={"entities": False})).double()
    assert plain.body.layers[1].in_features == spec.state_dim


def test_a_sequence_is_its_steps_one_by_one() -> None:
    actor: Any = TeamPolicy(team(heals=True), config(memory="gru")).double().actors[1]
    seen, first = torch.randn(3, 5, SIZE).double(), torch.rand(3, 5, 1) < 0.3
    hidden = torch.randn(3, actor.hidden_size).double()
    whole, after = actor(seen, None, Memory(hidden, first))
    for t in range(5):
        step, hidden = actor(seen[:, t], None, Memory(hidden, first[:, t]))
        torch.testing.assert_close(step, whole[:, t])
    torch.testing.assert_close(hidden, after)


def test_gradients_in_double() -> None:
    actor: Any = TeamPolicy(team(heals=True), config(activation="tanh")).double().actors[0]
    seen = torch.randn(2, SIZE).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: actor(x)[0], seen)
    assert torch.autograd.gradgradcheck(lambda x: actor(x)[0], seen)  # trust regions need it


def test_no_parameter_is_idle_and_all_are_saved() -> None:
    policy = TeamPolicy(team(heals=True), config(sharing="full"))
    sum(actor(torch.randn(4, SIZE))[0].square().sum() for actor in policy.actors).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())
    other = TeamPolicy(team(heals=True), config(sharing="full"))
    other.load_state_dict(copy.deepcopy(policy.state_dict()))
    seen = torch.randn(4, SIZE)
    torch.testing.assert_close(other.actors[2](seen)[0], policy.actors[2](seen)[0])


def test_off_policy_actors_choose_alike() -> None:
    policy: Any = TeamPolicy(team(heals=True), off_policy(sharing="full", agent_id=False)).double()
    seen, order = torch.randn(7, SIZE).double(), [2, 0, 1]
    first, middle, last = (actor(seen).sum(-1) for actor in policy.actors)
    torch.testing.assert_close(first, middle)
    torch.testing.assert_close(last, middle)
    plain: Any = TeamPolicy(team(), off_policy(sharing="full")).double()
    for actor in plain.actors:
        logits = actor(seen)
        again = actor(permuted(seen, ENEMIES, order))
        torch.testing.assert_close(again[:, 2:], logits[:, 2:][:, order])
        torch.testing.assert_close(again[:, :2], logits[:, :2])
        torch.testing.assert_close(actor(permuted(seen, ALLIES, [1, 0])), logits)


def test_off_policy_memories_go_on() -> None:
    actor: Any = TeamPolicy(team(heals=True), off_policy(memory="gru")).double().actors[1]
    seen, first = torch.randn(3, 5, SIZE).double(), torch.rand(3, 5, 1) < 0.3
    hidden = torch.randn(3, actor.hidden_size).double()
    whole, after = actor.output(seen, Memory(hidden, first))
    states = actor.states(seen, Memory(hidden, first))
    for t in range(5):
        step, hidden = actor.output(seen[:, t], Memory(hidden, first[:, t]))
        torch.testing.assert_close(step, whole[:, t])
        torch.testing.assert_close(hidden, states[:, t])
    torch.testing.assert_close(hidden, after)


@pytest.mark.parametrize("heals", [True, False])
def test_joint_values_know_who_attacks_whom_and_no_order(heals: bool) -> None:
    spec, order = team(heals), [2, 0, 1]
    critic = make_joint_q(spec, off_policy(), 2).double()
    assert isinstance(critic, EntityJointQ)
    units, enemies = spec.state_entities
    state = torch.randn(7, 16).double()
    chosen = torch.randint(CHOICES, (3, 7))
    chosen[:, 0] = torch.tensor([2, 3, 0])
    actions = [one_hot(c, CHOICES).double() for c in chosen]
    before = critic(state, actions)
    assert len(before) == 2 and (before[0] - before[1]).abs().min() > 1e-6
    if not heals:  # enemies in another order, and the choices with them
        renumbered = [torch.cat([a[:, :2], a[:, 2:][:, order]], -1) for a in actions]
        for a, b in zip(critic(permuted(state, enemies, order), renumbered), before, strict=True):
            torch.testing.assert_close(a, b)
        # the units in another order, each with what it does
        moved = critic(permuted(state, units, order), [actions[i] for i in order])
        for a, b in zip(moved, before, strict=True):
            torch.testing.assert_close(a, b)
    # the first two exchange their targets
    swapped = critic(state, [actions[1], actions[0], actions[2]])
    assert (swapped[0] - before[0])[0].abs() > 1e-4
    torch.testing.assert_close(critic(state, actions, 1), before[:1])
    sequences = critic(state[None].expand(2, -1, -1), [a[None].expand(2, -1, -1) for a in actions])
    torch.testing.assert_close(sequences[1][1], before[1])


def test_joint_values_have_gradients_by_every_action_and_parameter() -> None:
    spec = team(heals=True)
    critic = make_joint_q(spec, off_policy(activation="tanh"), 1).double()
    state = torch.randn(3, 16).double()
    actions = [torch.rand(3, CHOICES).double().requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *a: critic(state, a), actions)
    critic(state, actions)[0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.parameters())
    assert all((a.grad.abs() > 0).all() for a in actions if a.grad is not None)


def test_joint_values_of_agents_that_no_list_has() -> None:
    spec = TeamSpec.from_env(Playing())
    critic = make_joint_q(spec, off_policy(), 1).double()
    data = batch(spec, 7, masks=True, dtype=torch.float64)
    actions = [a.action.encode(spec.action(data, i)) for i, a in enumerate(spec.agents)]
    before = critic(data["state"], actions)[0]
    for i in range(spec.num_agents):
        other = [*actions]
        other[i] = actions[i].roll(1, -1)
        assert (critic(data["state"], other)[0] != before).any()
    assert type(make_joint_q(spec, off_policy(entities=False), 1)) is JointQ


class Playing(HybridEnv):
    """``HybridEnv`` whose valve and panels see two things, one choice each."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        things = [Entities("numbers", 0, 2, 1, (1, 3))]
        self.entities = {
            "arm": [[Entities("numbers", 0, 2, 1)]] * 2,
            "valve": [things],
            "panel": [things, [Entities("numbers", 0, 2, 1, (3, 1))]],
            "state": [Entities("valve", 0, 1, 2), Entities("numbers", 2, 2, 1, (1, 3))],
        }


@pytest.mark.parametrize("algorithm", [HASAC, HATD3, HADDPG, MASAC, HASACKL])
def test_every_off_policy_algorithm_learns_with_them(algorithm: type[Any]) -> None:
    module = fit(Playing, module=algorithm, network={"entities": True})
    assert isinstance(module.loss.critic, EntityJointQ)
    assert int(module.updates) > 0
    fresh = algorithm(module.spec, {}, {"hidden_sizes": [8], "entities": True}, 0)
    pairs = zip(fresh.loss.parameters(), module.loss.parameters(), strict=True)
    moved = [not torch.equal(a, b) for a, b in pairs if b.requires_grad]
    assert all(moved)


def test_greedy_agents_have_no_entities() -> None:
    with pytest.raises(ConfigError, match=r"network.entities=true: .* Take algo=hasac"):
        GreedyNetworkConfig(entities=True)


class Listing(HybridEnv):
    """``HybridEnv``'s valve alone, which sees its two numbers as two things, one choice each."""

    GROUPS: ClassVar = {"valve": 1}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.group_map, self.agent_names = {"valve": ["valve"]}, ["valve"]
        self.entities = {
            "valve": [[Entities("numbers", 0, 2, 1, (1, 3))]],
            "state": [Entities("numbers", 0, 3, 2)],
        }


@pytest.mark.parametrize("algorithm", [HAPPO, HATRPO, HAMDPO, HAA2C, MAPPO, IPPO])
def test_every_algorithm_learns_with_them(algorithm: type[OnPolicyModule]) -> None:
    env = Listing()
    module = make(algorithm, TeamSpec.from_env(env), {"entities": True})
    before = weights(module.policy)
    losses = update(module, rollout(module, env=env))
    assert all(bool(torch.isfinite(loss).all()) for loss in losses.values())
    assert (weights(module.policy) != before).any()


def test_the_team_is_saved_with_its_entities() -> None:
    spec = TeamSpec.from_env(Listing())
    assert spec.agents[0].entities == (Entities("numbers", 0, 2, 1, (1, 3)),)
    assert spec.state_entities == (Entities("numbers", 0, 3, 2),)
    assert TeamSpec.from_dict(spec.to_dict()) == spec
    old = spec.to_dict()  # of a checkpoint from before there were any
    del old["state_entities"], old["agents"][0]["entities"]
    assert TeamSpec.from_dict(old) == TeamSpec(
        tuple(replace(agent, entities=()) for agent in spec.agents), spec.state_dim
    )


def test_who_sees_no_entities_is_named() -> None:
    spec = TeamSpec.from_env(HybridEnv())
    with pytest.raises(
        ConfigError, match=r"network.entities=true.* arm_0: \(2, 0, \[\]\).*'entities'"
    ):
        TeamPolicy(spec, config())
    odd = team()
    agents = (*odd.agents[:2], replace(odd.agents[2], entities=(ALLIES,)))
    with pytest.raises(
        ConfigError, match=r"the same way .*unit_2: \(5, 0, \[\('allies', 14, 2, 3, False\)\]"
    ):
        TeamPolicy(TeamSpec(agents, 16), config(sharing="full"))
    TeamPolicy(TeamSpec(agents, 16), config())  # each with networks of their own


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Entities("numbers", 1, 2, 1), "within the 2 numbers"),
        (Entities("numbers", 0, 0, 1), "0 things of 1"),
        (Entities("numbers", 0, 2, 1, (1,)), r"choices \[1\], expected none or 2"),
        (Entities("numbers", 0, 2, 1, (1, 4)), "of the 4 that there are"),
    ],
)
def test_blocks_that_do_not_fit_are_named(block: Entities, message: str) -> None:
    env = Listing()
    env.entities["valve"] = [[block]]
    with pytest.raises(ContractError, match=message):
        TeamSpec.from_env(env)


def test_the_lists_of_agents_have_their_number() -> None:
    env = Playing()
    env.entities["state"] = [Entities("panel", 0, 3, 2)]
    with pytest.raises(ContractError, match="'panel' are 3, expected the 2 agents of that group"):
        TeamSpec.from_env(env)
    env.entities = {"arm": [[Entities("numbers", 0, 2, 1, (0, 1))]] * 2}  # actions of real numbers
    with pytest.raises(ContractError, match=r"choices \[0, 1\], .* of the 0 that there are"):
        TeamSpec.from_env(env)


def test_blocks_in_each_others_way_or_of_too_few_agents_are_named() -> None:
    env = Listing()
    env.entities["valve"] = [[Entities("a", 0, 2, 1), Entities("b", 1, 1, 1)]]
    with pytest.raises(ContractError, match=r"'b' are 1 things .* which ends at 2"):
        TeamSpec.from_env(env)
    env.entities["valve"] = [[Entities("a", 0, 1, 1), Entities("a", 1, 1, 1)]]
    with pytest.raises(ContractError, match=r"a name for each block, given \['a', 'a'\]"):
        TeamSpec.from_env(env)
    env.entities["valve"] = []
    with pytest.raises(ContractError, match="for 0 agents, expected a sequence for each of the 1"):
        TeamSpec.from_env(env)
