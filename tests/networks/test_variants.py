"""Every kind of network in a whole run: trained, saved, loaded, acting as before."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import (
    Compose,
    ExplorationType,
    InitTracker,
    TransformedEnv,
    set_exploration_type,
)

import hetmarl
from hetmarl.algorithms import HAPPO, HATRPO, IPPO, MAPPO
from hetmarl.data import RolloutData, RolloutDataConfig, evaluate
from hetmarl.data.collector import advance
from hetmarl.networks import Memory, OnPolicyNetworkConfig, TeamPolicy
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError, ContractError
from tests.networks.toys import ImageEnv, KindsEnv

SMALL: dict[str, Any] = {
    "hidden_sizes": [8],
    "memory_size": 4,
    "channels": [2],
    "actor_gain": 1.0,
    "critic": {"hidden_sizes": [6]},
}
PAIRS = [["eye_1", "eye_0"], ["knob"]]
VARIANTS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "images": (HAPPO, ImageEnv, {}),
    "images, trust region": (HATRPO, ImageEnv, {}),
    "images, plain": (MAPPO, ImageEnv, {"layer_norm": False, "orthogonal": False}),
    "images, shared": (MAPPO, ImageEnv, {"sharing": PAIRS}),
    "images, shared without id, gru": (
        MAPPO,
        ImageEnv,
        {"sharing": PAIRS, "agent_id": False, "memory": "gru"},
    ),
    "images, local critics, lstm": (IPPO, ImageEnv, {"sharing": PAIRS, "memory": "lstm"}),
    "one gru": (HAPPO, ImageEnv, {"agents": {"eye_1": {"memory": "gru"}}}),
    "unequal, shared": (MAPPO, KindsEnv, {"sharing": "full"}),
    "unequal, shared, local critics": (IPPO, KindsEnv, {"sharing": "full", "memory": "gru"}),
    "unequal, joint agents": (HAPPO, KindsEnv, {"sharing": [["a", "d"], ["b", "c"]]}),
    "two lstm layers": (HAPPO, KindsEnv, {"memory": "lstm", "memory_layers": 2}),
}


def make(algorithm: Any, env: Any, network: dict[str, Any]) -> Any:
    settings = {"allow_shared_sequential": algorithm.sequential}
    if algorithm is not HATRPO:
        settings["epochs"] = 2
    config = algorithm.config_type(chunk_length=4, **settings)
    return algorithm(TeamSpec.from_env(env()), config, OnPolicyNetworkConfig(**SMALL | network))


def train(algorithm: Any, env: Any, network: dict[str, Any], **settings: Any) -> Any:
    """Two iterations."""
    module = make(algorithm, env, network)
    data = RolloutData(
        env, num_envs=3, total_frames=48, config=RolloutDataConfig(8), eval_episodes=2
    )
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(max_epochs=1, accelerator="cpu", **dict.fromkeys(quiet, False), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
    return module


@pytest.mark.filterwarnings("ignore:.*share parameters")
@pytest.mark.parametrize("name", VARIANTS)
def test_trains_and_acts_alike_when_loaded(name: str, tmp_path: Path) -> None:
    algorithm, env, network = VARIANTS[name]
    before = make(algorithm, env, network)
    module = train(algorithm, env, network)
    assert int(module.iteration) == 2
    for old, new in zip(before.parameters(), module.parameters(), strict=True):
        assert torch.isfinite(new).all()
        assert not torch.equal(old, new), "a parameter that nothing trains"

    module.trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    loaded = hetmarl.load_policy(tmp_path / "a.ckpt")
    assert loaded.units == module.policy.units
    assert evaluate(loaded, env(num_envs=5, seed=3)) == evaluate(
        module.policy, env(num_envs=5, seed=3)
    )


def test_a_loaded_memory_goes_on_step_by_step(tmp_path: Path) -> None:
    """As on a robot: one agent alone, its state handed from step to step."""
    module = train(HAPPO, ImageEnv, {"agents": {"eye_1": {"memory": "lstm"}}})
    module.trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    loaded, env = hetmarl.load_policy(tmp_path / "a.ckpt"), ImageEnv()
    never = torch.zeros(3, 1, dtype=torch.bool)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        data, memory = env.reset(), None
        for _ in range(5):
            observation = data["eye", "observation"][:, 1]
            action, hidden = loaded.step(1, observation, None, memory)
            stepped, data = advance(env, module.policy(data))
            assert torch.equal(loaded.clip(1, action), stepped["eye", "action"][:, 1])
            memory = Memory(hidden, never)
        with pytest.raises(ConfigError, match=r"agent 'eye_1' has a memory: call policy\.step"):
            loaded.act(1, observation)
        assert loaded.act(2, data["knob", "observation"][:, 0]).shape == (3, 1)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
@pytest.mark.parametrize("memory", ["none", "gru", "lstm"])
def test_precisions(precision: str, memory: str) -> None:
    network = {"memory": memory, "sharing": PAIRS}
    module = train(MAPPO, ImageEnv, network, precision=precision)
    assert int(module.iteration) == 2
    wanted = torch.float64 if precision == "64-true" else torch.float32
    assert {p.dtype for p in module.parameters()} == {wanted}


def test_policys_device_and_dtype_are_its_own_affair() -> None:
    """What it writes is the environment's; its states keep the weights' precision."""
    env = ImageEnv()
    policy = TeamPolicy(
        TeamSpec.from_env(env), OnPolicyNetworkConfig(**SMALL | {"memory": "gru"})
    ).double()
    data = env.reset()
    policy.start(data)
    stepped, _ = advance(env, policy(data))
    assert stepped["eye", "action"].dtype == torch.float32
    assert stepped["knob", "action"].dtype == torch.int64
    for name in ("eye_0", "knob"):
        assert stepped["hidden", name].dtype == torch.float64
        assert stepped["next", "hidden", name].dtype == torch.float64


# ---------------------------------------------------------------------- TorchRL's collectors
def recurrent_policy(env: Any) -> TeamPolicy:
    torch.manual_seed(0)
    network = {"agents": {"eye_0": {"memory": "gru"}, "knob": {"memory": "lstm"}}}
    return TeamPolicy(TeamSpec.from_env(env), OnPolicyNetworkConfig(**SMALL | network))


@pytest.mark.parametrize("automatic", [True, False])
def test_torchrls_collector_carries_the_memories(automatic: bool) -> None:
    """Two chunks with episode ends in them, against single steps of the policy."""
    policy, env = recurrent_policy(ImageEnv()), ImageEnv()
    if not automatic:
        env = TransformedEnv(env, Compose(InitTracker(), policy.make_tensordict_primer()))
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        collector = Collector(
            env,
            policy,
            frames_per_batch=24,
            total_frames=48,
            trust_policy=True,
            track_traj_ids=False,
            exploration_type=ExplorationType.DETERMINISTIC,
            auto_register_policy_transforms=automatic,
        )
        chunks = torch.cat([chunk.clone() for chunk in collector], 1)  # type: ignore[arg-type]
        collector.shutdown()
    assert chunks.shape == (3, 16)
    assert chunks["is_init"].sum() == 3 * 3
    hidden = {name: torch.zeros(3, size) for name, size in (("eye_0", 4), ("knob", 8))}
    assert set(chunks["hidden"].keys()) == set(hidden)
    for t in range(16):
        step = chunks[:, t]
        first = step["is_init"]
        for agent, name in ((0, "eye_0"), (2, "knob")):
            hidden[name] = torch.where(first, 0.0, hidden[name])
            torch.testing.assert_close(step["hidden", name], hidden[name])
            seen = policy.team.observation(step, agent)
            memory = Memory(hidden[name], torch.zeros_like(first))
            with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
                action, hidden[name] = policy.step(agent, seen, None, memory)
            taken = policy.team.action(step, agent)
            torch.testing.assert_close(taken, policy.clip(agent, action))
            torch.testing.assert_close(step["next", "hidden", name], hidden[name])


def test_a_policy_without_memory_needs_no_transforms() -> None:
    policy = TeamPolicy(TeamSpec.from_env(ImageEnv()), OnPolicyNetworkConfig(**SMALL))
    assert list(policy.make_tensordict_primer().primers.keys()) == []


def test_a_memory_that_was_lost_is_noticed() -> None:
    env = TransformedEnv(ImageEnv(), InitTracker())
    policy = recurrent_policy(env)
    with pytest.raises(ContractError, match=r"policy\.make_tensordict_primer"):
        env.rollout(3, policy)


def test_actors_of_ones_own() -> None:
    """Any module that acts will do, and sharing a part of it makes a unit."""

    class Constant(nn.Module):
        def __init__(self, width: int, common: nn.Parameter) -> None:
            super().__init__()
            self.width, self.common = width, common

        def act(self, observation: Any, *_: Any) -> Any:
            return self.common.expand(len(observation), self.width), None

    one, two = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
    spec = TeamSpec.from_env(KindsEnv())
    actors = [Constant(1, p) for p in (one, two, one, two)]
    policy = TeamPolicy(spec, actors=actors)
    assert policy.units == [[0, 2], [1, 3]]
    assert policy(KindsEnv().reset())["plain", "action"].shape == (3, 2, 1)
