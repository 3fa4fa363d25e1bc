"""TeamSpec and the checker: every message, by environments that break the contract one way each."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torchrl.data import (
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    OneHot,
    Unbounded,
)

from hetmarl_envs import TeamSpec, check_team_env
from hetmarl_envs.contract import ActionSpace
from hetmarl_envs.errors import ContractError
from tests.teams import STATELESS, UNEQUAL, CountingEnv, batch


def test_a_good_environment_passes() -> None:
    spec = check_team_env(CountingEnv(num_envs=3, max_steps=2), steps=5, thorough=False)
    assert spec.names == ("wide", "narrow") and spec.state_dim == 2
    wide, narrow = spec.agents
    assert (wide.group, wide.index, wide.observation_shape) == ("wide", 0, (3,))
    assert wide.action == ActionSpace("continuous", (-2.0, -2.0), (1.0, 1.0))
    assert narrow.action.dim == 1


@pytest.mark.parametrize("spec", [UNEQUAL, STATELESS])
def test_spec_survives_a_safe_checkpoint(spec: TeamSpec) -> None:
    file = io.BytesIO()
    torch.save(spec.to_dict(), file)
    file.seek(0)
    assert TeamSpec.from_dict(torch.load(file, weights_only=True)) == spec


def test_team_order_is_not_the_groups_order() -> None:
    assert UNEQUAL.groups == {"legs": (0, 2), "body": (1,)}
    data = batch(UNEQUAL, 4)
    joint = UNEQUAL.joint_action(data)
    assert torch.equal(joint[0], data["legs", "action"][:, 0])
    assert torch.equal(joint[1], data["body", "action"][:, 0])
    assert torch.equal(joint[2], data["legs", "action"][:, 1])
    other = UNEQUAL.write_actions(data.select("next"), joint)
    assert torch.equal(other["legs", "action"], data["legs", "action"])
    assert UNEQUAL.alive(data, 0) is None
    data = batch(UNEQUAL, 4, deaths=True)
    assert torch.equal(UNEQUAL.alive(data, 2), data["legs", "alive"][:, 1])


@pytest.mark.parametrize(
    ("spec", "kind", "choices"),
    [
        (Categorical(3, shape=(2, 4)), "discrete", (3,)),
        (OneHot(3, shape=(2, 4, 3)), "discrete", (3,)),
        (MultiCategorical([3, 2], shape=(2, 4, 2)), "multi_discrete", (3, 2)),
        (MultiOneHot([3, 2], shape=(2, 4, 5)), "multi_discrete", (3, 2)),
    ],
)
def test_discrete_action_spaces(spec: Any, kind: str, choices: tuple[int, ...]) -> None:
    space = ActionSpace.from_spec(spec, "here")
    assert (space.kind, space.choices, space.dim) == (kind, choices, len(choices))


def test_bounds_of_each_dimension() -> None:
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 5.0])
    spec = Bounded(low.expand(2, 3, 2), high.expand(2, 3, 2))
    space = ActionSpace.from_spec(spec, "here")
    assert (space.low, space.high) == ((-1.0, 0.0), (1.0, 5.0))


def unequal_bounds() -> Bounded:
    high = torch.ones(2, 2, 1)
    high[:, 1] = 3
    return Bounded(-torch.ones(2, 2, 1), high)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (unequal_bounds(), "different action bounds. Put agents with unequal spaces into diff"),
        (Unbounded((2, 2, 1)), r"UnboundedContinuous with dtype torch.float32 is not supported"),
        (Bounded(0, 3, (2, 2, 1), dtype=torch.int64), "not supported. Expected a bounded float"),
    ],
)
def test_action_spaces_that_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(ContractError, match=rf"here: .*{message}"):
        ActionSpace.from_spec(spec, "here")


def replaced(env: CountingEnv, **attributes: Any) -> CountingEnv:
    for name, value in attributes.items():
        setattr(env, name, value)
    return env


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"group_map": None}, r"CountingEnv has no group_map. Expected a dict from group name"),
        (
            {"group_map": {"wide": ["wide"], "thin": ["thin"]}},
            r"group 'thin' .* lacks \('thin', 'o",
        ),
        (
            {"group_map": {"wide": ["a", "b"], "narrow": ["c"]}},
            r"\('wide', 'observation'\) has shape \(1, 3\) .* expected \[2 agents",
        ),
        (
            {"group_map": {"wide": ["a"], "narrow": ["a"]}},
            r"agent 'a' stands twice in group_map, in 'wide' and 'narrow'",
        ),
        ({"agent_names": ["wide", "short"]}, r"agent_names \['wide', 'short'\] and the agents of"),
    ],
)
def test_specs_that_break_the_contract(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        TeamSpec.from_env(replaced(CountingEnv(), **attributes))


def test_a_single_environment_is_refused() -> None:
    env = CountingEnv(num_envs=2)
    env._batch_size = torch.Size([])
    with pytest.raises(
        ContractError, match=r"batch_size is \[\], expected \[num_envs\].*SerialEnv"
    ):
        check_team_env(env)


def test_groups_of_one_agent_axis_are_read_through_transforms() -> None:
    from torchrl.envs import RewardSum, TransformedEnv

    env = TransformedEnv(CountingEnv(), RewardSum(in_keys=["reward"], out_keys=["episode_reward"]))
    assert check_team_env(env, thorough=False).names == ("wide", "narrow")


def test_composite_of_many_groups() -> None:
    """A team of 5 in 3 groups, listed in an order of its own."""
    env = CountingEnv()
    env.observation_spec = Composite(
        {g: Composite(observation=Unbounded((2, n, 3)), shape=(2, n)) for g, n in GROUPS},
        shape=(2,),
    )
    env.action_spec = Composite(
        {g: Composite(action=Bounded(-1.0, 1.0, (2, n, 1)), shape=(2, n)) for g, n in GROUPS},
        shape=(2,),
    )
    env.group_map = {"a": ["a0", "a1"], "b": ["b0"], "c": ["c0", "c1"]}
    env.agent_names = ["c1", "a0", "b0", "a1", "c0"]
    spec = TeamSpec.from_env(env)
    assert spec.names == ("c1", "a0", "b0", "a1", "c0") and spec.state_dim is None
    assert spec.groups == {"c": (4, 0), "a": (1, 3), "b": (2,)}
    assert spec.critic_dim == 15


GROUPS = [("a", 2), ("b", 1), ("c", 2)]
