"""HASAC trains: unequal spaces, the rhythm of updates, precisions, determinism, a game solved."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torchrl.envs import ExplorationType, set_exploration_type

import hetmarl
from hetmarl.algorithms import HASAC, HASACConfig
from hetmarl.data import Replay, TeamCollector, evaluate
from hetmarl.engines import GradientStep, OffPolicyEngine, UpdateRandomness, stream
from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import HASACLoss
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.errors import ConfigError
from tests.algorithms.fitting import fit
from tests.teams import UNEQUAL, CountingEnv, GameEnv


def same(a: HASAC, b: HASAC) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


class Logged(Callback):
    """What was logged, iteration by iteration."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.rows.append({k: float(v) for k, v in trainer.logged_metrics.items()})


@pytest.mark.parametrize(
    ("task", "widths"),
    [
        ("mamujoco/hopper_3x1", [8, 9, 8]),
        ("mamujoco/humanoid_9|8", None),
        ("vmas/simple_speaker_listener", None),
    ],
)
def test_unequal_teams_train(task: str, widths: list[int] | None) -> None:
    logged = Logged()
    # VMAS' listener has nothing to end its episodes but the time limit
    options = {"max_steps": 5} if task.startswith("vmas") else {}
    module = fit(partial(make_env, task, **options), evaluate_every=10, callbacks=(logged,))
    spec = module.spec
    if widths is not None:
        assert [agent.observation_shape[0] for agent in spec.agents] == widths
    assert len({agent.observation_shape for agent in spec.agents}) > 1
    start = HASAC(spec, module.config, NetworkConfig([8]), 0)
    for i, name in enumerate(spec.names):
        old, new = start.policy.actors[i], module.policy.actors[i]
        assert not torch.equal(next(old.parameters()), next(new.parameters())), name
        assert torch.isfinite(torch.tensor(logged.rows[-1][f"train/loss_actor/{name}"]))


def test_counts_iterations_frames_and_updates() -> None:
    """.6 updates per vector step, 5 vector steps per iteration: 3 updates, none in warm-up."""
    logged, updates = Logged(), []

    class Counted(HASAC):
        def learn(self, batch: Any, randomness: Any) -> dict[str, Tensor]:
            update = self.engine.update
            updates.append(0)

            def counted(*given: Any, **how: Any) -> dict[str, Tensor]:
                updates[-1] += 1
                return update(*given, **how)

            self.engine.update = counted  # type: ignore[method-assign]
            try:
                return super().learn(batch, randomness)
            finally:
                self.engine.update = update  # type: ignore[method-assign]

    module = fit(CountingEnv, module=Counted, callbacks=(logged,))
    assert updates == [0, 0, 3, 3, 3, 3]
    assert module.frames == 60 and module.iteration == 6
    assert [row["step"] for row in logged.rows] == [10, 20, 30, 40, 50, 60]
    assert [row["train/return_mean"] for row in logged.rows] == [5.0] * 6
    names = {f"{q}/{n}" for q in ("alpha", "entropy", "loss_actor") for n in ("wide", "narrow")}
    names |= {"loss_qvalue", "q_mean", "alpha/joint"}
    assert {f"train/{name}" for name in names} < set(logged.rows[-1])
    updates.clear()
    fit(CountingEnv, module=Counted, config={"updates_per_step": 0.25})
    assert updates == [0, 0, 1, 1, 1, 2]  # 1.25 each, the rest carried over


@pytest.mark.slow
def test_same_seed_same_bits_and_evaluation_changes_nothing() -> None:
    a, b = fit(CountingEnv), fit(CountingEnv)
    assert same(a, b)
    assert same(a, fit(CountingEnv, evaluate_every=1))
    assert same(a, fit(CountingEnv, limit_val_batches=0))
    assert not same(a, fit(CountingEnv, seed=1))


def test_no_evaluation_and_no_warning_of_it(recwarn: pytest.WarningsRecorder) -> None:
    evaluated = []

    class Watched(HASAC):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            evaluated.append(batch)

    module = fit(CountingEnv, module=Watched, eval_episodes=0)
    assert not evaluated
    assert not [str(w.message) for w in recwarn if "zero" in str(w.message)]
    assert module.trainer.limit_val_batches == 1.0
    assert same(module, fit(CountingEnv))


def test_building_one_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    HASAC(UNEQUAL)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions(precision: str) -> None:
    module = fit(CountingEnv, precision=precision)
    weight = next(module.parameters())
    assert weight.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    plain = fit(CountingEnv)
    for (name, a), b in zip(module.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a.float(), b.float(), atol=0.03, rtol=0.1, msg=name)


def test_settings_reach_the_engine() -> None:
    config = HASACConfig(
        actor_lr=0.1, critic_lr=0.2, alpha_lr=0.3, polyak=0.4, max_grad_norm=0.5, alpha=0.6
    )
    module = HASAC(UNEQUAL, config, NetworkConfig([8]))
    rates = [o.param_groups[0]["lr"] for o in module.optimizers_of_team()]
    assert rates == [0.2, 0.1, 0.1, 0.1, 0.3]
    engine = module.engine
    assert [s.max_grad_norm for s in (engine.critic_step, *engine.actor_steps)] == [0.5] * 4
    assert engine.temperature_step is not None and engine.temperature_step.max_grad_norm is None
    assert module.loss.log_alpha_joint.exp().item() == pytest.approx(0.6)
    fixed = HASAC(UNEQUAL, HASACConfig(auto_alpha=False), NetworkConfig([8]))
    assert len(fixed.optimizers_of_team()) == 4 and fixed.engine.temperature_step is None


def test_a_scheduled_temperature_is_a_function_of_the_frames() -> None:
    logged = Logged()
    schedule = {"alpha": 0.8, "alpha_final": 0.2, "alpha_decay_frames": 30}
    module = fit(
        CountingEnv,
        config={"auto_alpha": False, "alpha_schedule": "linear", **schedule},
        callbacks=(logged,),
    )
    expected = [0.8, 0.6, 0.4, 0.2, 0.2, 0.2]
    for name in ("joint", "wide", "narrow"):
        assert [row[f"train/alpha/{name}"] for row in logged.rows] == pytest.approx(expected)
    constant = fit(CountingEnv, config={"auto_alpha": False, "alpha": 0.8})
    assert not same(module, constant)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha_final": 0.1}, r"alpha_final=0.1 asks for .* Set algo.auto_alpha=false"),
        ({"alpha_final": 0.0, "auto_alpha": False}, "algo.alpha_final=0.0: expected more than 0"),
        ({"alpha_decay_frames": 0}, "algo.alpha_decay_frames=0: expected more than 0"),
        ({"alpha_schedule": "linaer"}, "Did you mean 'linear'"),
        ({"alpha": float("inf")}, "algo.alpha=inf: expected more than 0, and finite"),
        ({"target_entropy_scale": float("nan")}, "target_entropy_scale=nan: expected a finite"),
    ],
)
def test_schedules_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HASACConfig(**settings)


def test_hyperparameters_are_plain() -> None:
    module = HASAC(UNEQUAL, network=NetworkConfig([8]), seed=3)
    assert TeamSpec.from_dict(module.hparams["spec"]) == UNEQUAL
    assert module.hparams["config"]["gamma"] == 0.99 and module.hparams["seed"] == 3


def test_another_teams_environment_is_refused() -> None:
    def swap(module: HASAC) -> None:
        module.loss.policy.team = UNEQUAL

    with pytest.raises(ConfigError, match="environment of the DataModule and the one that"):
        fit(CountingEnv, prepare=swap)


def test_policy_of_a_checkpoint(tmp_path: Any) -> None:
    module = fit(CountingEnv, tmp_path)
    policy = hetmarl.load_policy(tmp_path / "checkpoints" / "last.ckpt")
    data = CountingEnv().reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        expected = module.policy(data.clone())["wide", "action"]
        assert torch.equal(policy(data.clone())["wide", "action"], expected)
        alone = policy.act(0, data["wide", "observation"][:, 0])
    assert torch.equal(alone, expected[:, 0])


def test_lightning_loads_it_from_a_checkpoint(tmp_path: Any) -> None:
    module = fit(CountingEnv, tmp_path)
    loaded = HASAC.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert loaded.config == module.config and loaded.spec == module.spec
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_variant_with_settings_of_its_own_is_loaded_too(tmp_path: Any) -> None:
    @dataclass
    class ScaledConfig(HASACConfig):
        scale: float = 1.0

    class Scaled(HASAC):
        name = "scaled"
        config_type = ScaledConfig

    fit(CountingEnv, tmp_path, module=Scaled, config={"scale": 3.0})
    loaded = Scaled.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert isinstance(loaded.config, ScaledConfig) and loaded.config.scale == 3.0
    assert loaded.hparams["algorithm"] == "scaled"
    assert Scaled(UNEQUAL).config == ScaledConfig()


def test_an_environment_that_cannot_be_saved_trains_and_says_so(tmp_path: Any) -> None:
    class Forgetful(CountingEnv):
        runtime_state = property(lambda self: self._nothing)  # type: ignore[assignment]

    with pytest.warns(UserWarning, match=r"Forgetful has no runtime_state\(\): checkpoints of"):
        fit(Forgetful, tmp_path)
    assert hetmarl.load_policy(tmp_path).team.names == ("wide", "narrow")


def test_a_full_disk_is_refused_in_the_first_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted are the run's 60 frames, not the buffer's 1000."""
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match=r"resume/replay/rank0 will take .* \(60 frames of"):
        fit(CountingEnv, tmp_path)
    fit(CountingEnv, tmp_path / "memory", data_config={"storage": "memory"})


@pytest.mark.slow
def test_solves_a_game() -> None:
    """One step, three numbers of two unequal agents, one optimum; no Lightning."""
    env = GameEnv(num_envs=32)
    spec = TeamSpec.from_env(env)
    network = NetworkConfig([64, 64])
    policy, critic = TeamPolicy(spec, network), JointQ(spec, network)
    loss = HASACLoss(policy, critic, alpha=0.05, auto_alpha=False)

    def step(parameters: Any, lr: float) -> GradientStep:
        parameters = list(parameters)
        return GradientStep(parameters, torch.optim.Adam(parameters, lr=lr, fused=True))

    actors = [step(actor.parameters(), 1e-3) for actor in policy.actors]
    engine = OffPolicyEngine(loss, step(critic.parameters(), 1e-2), actors, polyak=0.05)
    collector = TeamCollector(env, policy, seed=0)
    replay = None
    for i in range(25):
        chunk, _ = collector.collect(8, i, random=i < 4)
        replay = replay or Replay(chunk, spec, 10_000, spare=16)
        replay.extend(chunk)
        draw, randomness = stream(0, "draw", i), UpdateRandomness(0, i)
        for _ in range(16 if i >= 3 else 0):
            engine.update(replay.sample(128, generator=draw), randomness)
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        data = policy(env.reset())
    best = torch.cat([data["wide", "action"][0, 0], data["narrow", "action"][0, 0]])
    assert best.tolist() == pytest.approx(list(GameEnv.BEST), abs=0.15)
    # the best is −.12, uniform actions get −5
    assert evaluate(policy, env)["return_mean"] > -0.2
