"""Collecting in chunks, and evaluating by a fixed number of episodes."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from hetmarl.data import TeamCollector, evaluate
from hetmarl.data.collector import can_save
from hetmarl.networks import NetworkConfig, TeamPolicy
from hetmarl_envs.contract import TeamSpec, write_random_actions
from hetmarl_envs.errors import ConfigError, HetmarlError
from tests.teams import UNEQUAL, CountingEnv, batch


def make(seed: int = 0, rank: int = 0, **settings: Any) -> TeamCollector:
    env = CountingEnv(**{"num_envs": 2, "max_steps": 5} | settings)
    torch.manual_seed(0)
    policy = TeamPolicy(TeamSpec.from_env(env), NetworkConfig([8]))
    return TeamCollector(env, policy, seed=seed, rank=rank)


def test_chunks_continue_one_another() -> None:
    chunks = [make().collect(13, 0)[0]]
    parts = make()
    pieces = [parts.collect(n, 0)[0] for n in (4, 1, 8)]
    whole = torch.cat(pieces, dim=1)
    steps = [0, 1, 2, 3, 4] * 3
    assert (chunks[0]["state"][0, :, 1] * 10).round().tolist() == steps[:13]
    assert torch.equal(whole["state"], chunks[0]["state"])
    assert chunks[0]["is_init"][0, :, 0].tolist() == [s == 0 for s in steps[:13]]
    assert torch.equal(whole["is_init"], chunks[0]["is_init"])


def test_next_holds_the_true_final_observation() -> None:
    chunk, _ = make().collect(12, 0)
    after = (chunk["next", "state"][0] * 10).round().tolist()
    assert after[3:6] == [[1, 4], [1, 5], [2, 1]]  # the fifth step's, not the reset's
    assert chunk["next", "truncated"][0, 4].item() and not chunk["next", "terminated"].any()


def test_episodes_that_ended() -> None:
    collector = make(num_envs=3)
    ended = [collector.collect(4, i)[1] for i in range(3)]
    assert [e.returns.tolist() for e in ended] == [[], [5.0] * 3, [5.0] * 3]
    assert [e.lengths.tolist() for e in ended] == [[], [5] * 3, [5] * 3]


def test_noise_follows_from_seed_chunk_and_rank_alone() -> None:
    def actions(chunk: int = 0, **settings: Any) -> list[float]:
        collector = make(**settings)
        torch.manual_seed(chunk + 99)
        return collector.collect(6, chunk)[0]["wide", "action"].flatten().tolist()

    assert actions() == actions()
    assert (
        len(
            {
                tuple(actions(*a, **k))
                for a, k in (((0,), {}), ((1,), {}), ((0,), {"seed": 1}), ((0,), {"rank": 1}))
            }
        )
        == 4
    )


def test_leaves_the_policys_own_noise_and_the_global_state_alone() -> None:
    collector = make()
    collector.policy.noise = noise = torch.zeros_like
    before = torch.get_rng_state()
    collector.collect(3, 0)
    assert collector.policy.noise is noise
    assert torch.equal(torch.get_rng_state(), before)
    collector.policy.actors[0].net = None
    with pytest.raises(TypeError):  # also after an error
        collector.collect(1, 1)
    assert collector.policy.noise is noise


def test_random_actions_fill_the_bounds() -> None:
    data = write_random_actions(batch(UNEQUAL, 4000), UNEQUAL, torch.Generator().manual_seed(0))
    for group, low, high in (("legs", [-1.0, 0.0], [1.0, 5.0]), ("body", [-0.4], [0.4])):
        action = data[group, "action"].flatten(0, 1)
        low_, high_ = torch.tensor(low), torch.tensor(high)
        assert (action >= low_).all() and (action <= high_).all()
        share = (action - low_) / (high_ - low_)
        torch.testing.assert_close(share.mean(0), torch.full_like(low_, 0.5), rtol=0, atol=0.03)
        torch.testing.assert_close(share.var(0), torch.full_like(low_, 1 / 12), rtol=0, atol=0.005)


@pytest.mark.parametrize("random", [True, False])
def test_resumes_in_the_middle_of_an_episode(random: bool) -> None:
    collector = make()
    collector.collect(7, 0, random=random)
    file = io.BytesIO()
    torch.save(collector.state_dict(), file)
    expected = [collector.collect(6, i, random=random) for i in (1, 2)]
    again = make()
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    for i, (chunk, episodes) in enumerate(expected, start=1):
        other, ended = again.collect(6, i, random=random)
        assert (chunk == other).all()
        assert torch.equal(episodes.returns, ended.returns)
        assert torch.equal(episodes.lengths, ended.lengths)


def test_groups_may_have_any_name() -> None:
    """A dot in a name is a dot, not a path."""
    collector = make()
    carrier = collector._carrier
    carrier["a.b"] = carrier["wide"].clone()
    other = make()
    other.load_state_dict(collector.state_dict())
    assert set(other._carrier.keys()) == set(carrier.keys())
    assert (other._carrier == carrier).all()


def test_an_environment_without_runtime_state_cannot_be_saved() -> None:
    class Forgetful(CountingEnv):
        runtime_state = property(lambda self: self._nothing)  # type: ignore[assignment]

    env = Forgetful()
    policy = TeamPolicy(TeamSpec.from_env(env), NetworkConfig([8]))
    collector = TeamCollector(env, policy, seed=0)
    collector.collect(2, 0)
    assert can_save(CountingEnv()) and not can_save(env)
    with pytest.raises(ConfigError, match=r"Forgetful has no runtime_state\(\).*Give it"):
        collector.state_dict()


# ---------------------------------------------------------------------- evaluation
class Unequal(CountingEnv):
    """Sub-environment i ends after i + 2 steps and pays i per step."""

    def _step(self, tensordict: Any) -> Any:
        data = super()._step(tensordict)
        index = torch.arange(self.batch_size[0])[:, None]
        ended = self._step_count >= index + 2
        data["reward"] = index.float()
        data["done"] = data["truncated"] = ended
        return data


def test_one_episode_of_every_environment() -> None:
    """Long episodes count as much as short ones, which begin again meanwhile."""
    env = Unequal(num_envs=4)
    policy = TeamPolicy(TeamSpec.from_env(env), NetworkConfig([8]))
    result = evaluate(policy, env)
    assert result["lengths"] == [2, 3, 4, 5]
    assert result["returns"] == [0.0, 3.0, 8.0, 15.0]
    assert result["return_mean"] == 6.5 and result["length_mean"] == 3.5
    assert result["return_std"] == pytest.approx(torch.tensor([0.0, 3, 8, 15]).std(correction=0))


def test_evaluation_takes_the_mode_unless_told_otherwise() -> None:
    seen: list[Any] = []

    class Watched(CountingEnv):
        def reward(self, wide: Any, narrow: Any) -> Any:
            seen.append(wide.clone())
            return super().reward(wide, narrow)

    env = Watched(num_envs=2, max_steps=1)
    policy = TeamPolicy(TeamSpec.from_env(env), NetworkConfig([8]))
    for deterministic in (True, False):
        seen.clear()
        for _ in range(2):
            env._episode.zero_()
            evaluate(policy, env, deterministic=deterministic)
        assert torch.equal(*seen) == deterministic


def test_an_episode_without_end_is_refused() -> None:
    env = CountingEnv(num_envs=2, max_steps=1000)
    policy = TeamPolicy(TeamSpec.from_env(env), NetworkConfig([8]))
    with pytest.raises(HetmarlError, match="2 of 2 episodes did not end within 20 steps; give the"):
        evaluate(policy, env, max_steps=20)
