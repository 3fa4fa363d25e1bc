"""Every on-policy algorithm under Lightning's Trainer, on a team with every kind of action."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from hetmarl.algorithms import HAMDPO, HAPPO, MAPPO, get_algorithm, list_algorithms
from hetmarl.data import RolloutData, RolloutDataConfig
from hetmarl.networks import OnPolicyNetworkConfig
from hetmarl_envs.contract import TeamSpec
from tests.on_policy import weights
from tests.teams import HybridEnv

ON_POLICY = [
    name for name in list_algorithms() if get_algorithm(name).data.endswith(":RolloutData")
]


class Watch(Callback):
    """Notes metrics and learning rates after every iteration."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []
        self.rates: list[list[float]] = []
        self.step_sizes: list[Any] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.metrics.append({k: v.item() for k, v in trainer.callback_metrics.items()})
        groups = [g for o in module.optimizers()[1:] for g in o.param_groups]
        self.rates.append([g["lr"] for g in groups])
        self.step_sizes.append(getattr(module.loss.drift, "step_size", None))


def fit(
    algorithm: Any, *, iterations: int = 3, seed: int = 0, network: Any = None, **config: Any
) -> tuple[Any, Watch]:
    """``iterations`` of 8 steps of 3 environments."""
    network = {"hidden_sizes": [8], "memory_size": 4} | (network or {})
    spec = TeamSpec.from_env(HybridEnv())
    module = algorithm(
        spec, algorithm.config_type(**config), OnPolicyNetworkConfig(**network), seed
    )
    data = RolloutData(
        partial(HybridEnv, death_rate=0.1),
        num_envs=3,
        total_frames=24 * iterations,
        seed=seed,
        config=RolloutDataConfig(rollout_steps=8),
        eval_episodes=0,
    )
    watch = Watch()
    Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    ).fit(module, datamodule=data)
    return module, watch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "memory"),
    [*((name, "none") for name in ON_POLICY), ("happo", "gru"), ("hatrpo", "gru"), ("ippo", "gru")],
)
def test_trains_and_reports(name: str, memory: str) -> None:
    algorithm = get_algorithm(name).load("module")
    module, watch = fit(algorithm, network={"memory": memory}, chunk_length=4)
    assert len(watch.metrics) == 3 and int(module.iteration) == 3 and int(module.frames) == 72
    for metrics in watch.metrics:
        for key in module.metric_names:
            assert torch.tensor(metrics[f"train/{key}"]).isfinite(), key
        assert {f"train/kl/{agent}" for agent in module.spec.names} <= set(metrics)


@pytest.mark.slow
def test_the_same_seed_is_the_same_run() -> None:
    """Bit by bit, whatever the global random state before."""

    def run(seed: int, disturbance: int) -> Any:
        torch.manual_seed(disturbance)
        settings = {"epochs": 2, "minibatches": 2, "chunk_length": 2}
        return weights(fit(HAPPO, seed=seed, network={"memory": "lstm"}, **settings)[0])

    first = run(1, 0)
    assert torch.equal(first, run(1, 99))
    assert not torch.equal(first, run(2, 0))


def test_learning_rates_fall_to_zero_over_the_run() -> None:
    _, watch = fit(HAPPO, iterations=4, lr_decay=True, actor_lr=0.4, critic_lr=0.8)
    for iteration, rates in enumerate(watch.rates):
        left = 1 - iteration / 4
        assert rates == pytest.approx([0.8 * left, *[0.4 * left] * 5])
    _, watch = fit(HAPPO, iterations=2, actor_lr=0.4, critic_lr=0.8)
    assert watch.rates == [[0.8, *[0.4] * 5]] * 2


@pytest.mark.parametrize("anneal", [True, False])
def test_hamdpos_step_size_falls_over_the_run(anneal: bool) -> None:
    _, watch = fit(HAMDPO, iterations=4, step_size=2.0, step_size_anneal=anneal)
    assert watch.step_sizes == pytest.approx([2.0, 1.5, 1.0, 0.5] if anneal else [2.0] * 4)


@pytest.mark.parametrize(
    ("precision", "memory"), [("64-true", "none"), ("64-true", "lstm"), ("bf16-mixed", "gru")]
)
def test_precisions(precision: str, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a memory crosses from collecting to updating."""
    monkeypatch.setattr(
        "tests.algorithms.test_on_policy_training.Trainer", partial(Trainer, precision=precision)
    )
    module, watch = fit(MAPPO, network={"memory": memory}, chunk_length=4)
    expected = torch.float64 if precision == "64-true" else torch.float32
    assert {p.dtype for p in module.parameters()} == {expected}
    assert all(torch.tensor(m["train/loss_critic"]).isfinite() for m in watch.metrics)
