"""Collecting from teams with every kind of action, with masks and deaths."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hetmarl.algorithms import HAPPO
from hetmarl.data import TeamCollector, evaluate
from hetmarl_envs import check_team_env
from hetmarl_envs.contract import TeamSpec, write_random_actions
from tests.on_policy import collector, make
from tests.teams import HybridEnv


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_a_hybrid_team_keeps_the_contract(one_hot: bool, state: bool) -> None:
    """Checked with legal actions alone: this environment, as many, refuses others."""
    spec = check_team_env(HybridEnv(one_hot=one_hot, state=state), steps=20)
    assert spec.names == ("arm_0", "panel_0", "valve", "arm_1", "panel_1")
    kinds = [a.action.kind for a in spec.agents]
    assert kinds == ["continuous", "multi_discrete", "discrete", "continuous", "multi_discrete"]
    assert [a.action.one_hot for a in spec.agents] == [False, one_hot, one_hot, False, one_hot]
    assert spec.state_dim == (6 if state else None)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("one_hot", [False, True])
def test_actions_are_legal_in_the_environments_layout(one_hot: bool, random: bool) -> None:
    """The environment itself refuses a living agent's illegal action."""
    module = make(HAPPO, dtype=torch.float32)
    env = HybridEnv(num_envs=20, one_hot=one_hot)
    policy = make(HAPPO, TeamSpec.from_env(env), dtype=torch.float32).policy
    policy.load_state_dict(module.policy.state_dict())
    data, _ = TeamCollector(env, policy, seed=0).collect(40, 0, random=random)
    actions = data.select(*env.action_keys)
    for t in range(40):
        assert env.action_spec.is_in(actions[:, t])
    alive = data["panel", "alive"].squeeze(-1)
    mask, spec = data["panel", "action_mask"], policy.team
    for i in (1, 4):
        pick, place = spec.action(data, i), spec.agents[i].index
        for d, start in enumerate((0, 3)):
            legal = mask[:, :, place].gather(-1, start + pick[..., d, None])
            assert legal.squeeze(-1)[alive[..., place]].all()
            assert not legal.squeeze(-1)[~alive[..., place]].any()
    # what is stored can be drawn again: layouts are inverses of each other
    again = spec.write_actions(data.clone(), spec.joint_action(data))
    for key in env.action_keys:
        assert torch.equal(again[key], data[key])


def test_one_hot_layouts_change_nothing() -> None:
    """Rollouts of both layouts are the same ones."""
    found = []
    for one_hot in (False, True):
        env = HybridEnv(one_hot=one_hot)
        module = make(HAPPO, TeamSpec.from_env(env), dtype=torch.float32)
        data, episodes = collector(module, env).collect(20, 0)
        joint = module.spec.joint_action(data)
        found.append([data["next", "reward"], episodes.returns, *joint])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_random_choices_are_uniform_among_the_legal() -> None:
    spec = TeamSpec.from_env(HybridEnv(num_envs=1))
    data = HybridEnv(num_envs=1).reset().expand(30_000).contiguous()
    data["panel", "action_mask"][:, 0] = torch.tensor([True, False, True, True, True])
    data["valve", "action_mask"][:, 0] = torch.tensor([False, True, True, True])
    data = write_random_actions(data, spec, torch.Generator().manual_seed(0))
    for i, d, expected in (
        (1, 0, [0.5, 0, 0.5]),
        (1, 1, [0.5, 0.5]),
        (2, 0, [0, 1 / 3, 1 / 3, 1 / 3]),
    ):
        seen = torch.bincount(spec.action(data, i)[:, d], minlength=len(expected)) / 30_000
        assert seen.tolist() == pytest.approx(expected, abs=0.01)
        assert (seen[torch.tensor(expected) == 0] == 0).all()


def test_masks_and_lives_of_finished_episodes_are_their_own() -> None:
    """("next", …) of a last step is the finished episode's, not the next one's."""

    class Noted(HybridEnv):
        def _step(self, tensordict: Any) -> Any:
            out = super()._step(tensordict)
            self.stepped = out.clone()
            return out

    env = Noted(max_steps=2, death_rate=0.5)
    acting, ends = collector(make(HAPPO, dtype=torch.float32), env), 0
    for chunk in range(12):
        data = acting.collect(1, chunk)[0][:, 0]
        for group in env.GROUPS:
            for key in ("observation", "alive", "action_mask"):
                if (found := data["next"].get((group, key), None)) is not None:
                    assert torch.equal(found, env.stepped[group, key])
        done = data["next", "done"]
        ends += int(done.sum())
        after = acting._carrier
        assert torch.equal(after["is_init"], done)
        for group in env.GROUPS:
            assert after[group, "alive"][done.squeeze(-1)].all()
    assert ends > 10


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_hybrid_teams_are_evaluated(memory: str) -> None:
    """Deterministically: equal environments, equal episodes."""
    module = make(HAPPO, network={"memory": memory}, dtype=torch.float32)
    results = [evaluate(module.policy, HybridEnv(num_envs=4, seed=3)) for _ in range(2)]
    assert results[0] == results[1] and max(results[0]["lengths"]) <= 8
