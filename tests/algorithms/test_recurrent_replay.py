"""Off-policy algorithms with memories: collection, batches, and a task that needs to remember."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict

from hetmarl.algorithms import get_algorithm
from hetmarl.algorithms.off_policy import OffPolicyModule
from hetmarl.data import ReplayData, ReplayDataConfig, TeamCollector, evaluate
from hetmarl.networks import Memory, NetworkConfig, TeamPolicy
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.errors import ConfigError
from tests.algorithms.fitting import fit
from tests.teams import CountingEnv

GRU = {"memory": "gru", "memory_size": 4}
ROLES = partial(make_env, "games/roles", bonus=True, death_step=3, repeats=5)
MIXED = partial(ROLES, actions=["discrete", "continuous", "discrete"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "make"),
    [
        ("hasac", MIXED),
        ("masac", MIXED),
        ("hasac_kl", MIXED),
        ("hasac_ball", MIXED),
        ("haddpg", MIXED),
        ("hatd3", MIXED),
        ("maddpg", MIXED),
        ("matd3", MIXED),
        ("had3qn", ROLES),
    ],
)
def test_every_member_learns_from_slices(algorithm: str, make: Any) -> None:
    """With masks, an agent that dies, transitions of several steps, and priorities."""
    seen = []

    def watch(module: OffPolicyModule) -> None:
        draw = module.draw
        module.draw = lambda batch: seen.append(draw(batch)) or seen[-1]  # type: ignore[method-assign]

    module = fit(
        make,
        module=get_algorithm(algorithm).load("module"),
        network=GRU,
        config={"sequence_length": 5, "burn_in": 2, "batch_size": 12},
        data_config={"priority_alpha": 0.6},
        prepare=watch,
    )
    assert {data.batch_size for data in seen} == {(3, 5)}  # 12 steps and more
    fresh = type(module)(module.spec, module.config, module.network, seed=0)
    for name, new, old in zip(
        module.spec.names, module.policy.actors, fresh.policy.actors, strict=True
    ):
        pairs = zip(new.net.memory.parameters(), old.net.memory.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs), name
        assert all(p.isfinite().all() for p in new.parameters())


def test_warm_up_remembers_what_it_sees() -> None:
    """States in the replay are the policy's, though it did not choose the actions."""
    env = CountingEnv(num_envs=3, max_steps=5)
    spec = TeamSpec.from_env(env)
    policy = TeamPolicy(spec, NetworkConfig([4], **GRU))  # type: ignore[arg-type]
    collector = TeamCollector(env, policy, seed=0)
    chunks = [collector.collect(8, i, random=i == 0)[0] for i in range(2)]
    data = torch.cat(chunks, dim=1)
    for i, name in enumerate(spec.names):
        begin = Memory(data["hidden", name][:, 0], data["is_init"])
        with torch.no_grad():
            after = policy.actors[i].states(spec.observation(data, i), begin)
        torch.testing.assert_close(after, data["next", "hidden", name])


def test_a_slice_without_a_step_to_learn_from_keeps_its_priority() -> None:
    """It reaches the newest frame while it burns in: its errors are no errors."""
    module = get_algorithm("hasac").load("module")(TeamSpec.from_env(CountingEnv()))
    valid = torch.tensor([[1, 1], [0, 0], [1, 0]]).bool()[..., None]
    error = torch.tensor([[1.0, 3.0], [5.0, 5.0], [2.0, 9.0]])[..., None]
    data = TensorDict(
        {"index": torch.arange(6).view(3, 2, 1), "td_error": error, "valid": valid}, [3, 2]
    )
    index, priority = module.priority(data)
    assert index.tolist() == [[0], [4]]
    torch.testing.assert_close(priority, torch.tensor([[0.9 * 3 + 0.1 * 2], [2.0]]))


def test_settings_are_checked() -> None:
    for name, value, expected in (("sequence_length", 0, "more than 0"), ("burn_in", -1, "0 or")):
        with pytest.raises(ConfigError, match=f"algo.{name}={value}: expected {expected}"):
            get_algorithm("hasac").load("config")(**{name: value})
    with pytest.raises(ConfigError, match=r"network.memory='gruu' is unknown. Did you mean 'gru'"):
        NetworkConfig(memory="gruu")


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.parametrize("algorithm", ["hasac", "had3qn", "haddpg", "hatd3"])
@pytest.mark.parametrize("memory", ["none", "gru", "lstm"])
def test_recall(algorithm: str, memory: str) -> None:
    """Half without a memory, whatever is learned; everything with one."""
    make = partial(make_env, "games/recall")
    entry = get_algorithm(algorithm)
    config: dict[str, Any] = {"batch_size": 128, "sequence_length": 8, "burn_in": 4}
    if algorithm == "hasac":
        config |= {"auto_alpha": False, "alpha": 0.02}
    module = entry.load("module")(
        TeamSpec.from_env(make()),
        config,
        {"hidden_sizes": [32], "memory": memory, "memory_size": 32},
        seed=0,
    )
    data = ReplayData(
        make,
        num_envs=20,
        total_frames=16_000,
        config=ReplayDataConfig(frames_per_batch=200, warmup_frames=2000, buffer_size=20_000),
        eval_episodes=0,
    )
    Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, datamodule=data)
    found = evaluate(module.policy, make(num_envs=200, seed=7))["return_mean"]
    if memory == "none":
        assert 0.4 < found < 0.6
    else:
        assert found > 0.95
