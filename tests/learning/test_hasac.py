"""HASAC learns: fixed seeds, real tasks, against the random policy. `tox -e learning`."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from hetmarl.algorithms import HASAC, HASACConfig
from hetmarl.data import ReplayData, ReplayDataConfig, evaluate
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.contract import write_random_actions

pytestmark = [pytest.mark.learning, pytest.mark.slow]


def returns(task: str, frames: int, config: HASACConfig | None = None) -> tuple[float, float]:
    """Mean return of 20 episodes: the random policy's and the trained one's."""
    make = partial(make_env, task)
    env = make(num_envs=20, seed=7)
    spec = TeamSpec.from_env(env)
    generator = torch.Generator().manual_seed(7)
    chance = evaluate(lambda data: write_random_actions(data, spec, generator), env)
    module = HASAC(spec, config, seed=0)
    data = ReplayData(
        make,
        num_envs=10,
        total_frames=frames,
        config=ReplayDataConfig(warmup_frames=5_000, buffer_size=frames),
        eval_episodes=0,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)
    env.set_seed(7)
    return chance["return_mean"], evaluate(module.policy, env)["return_mean"]


def test_halfcheetah_runs() -> None:
    chance, trained = returns("mamujoco/halfcheetah_2x3", 120_000)
    assert trained > chance + 1000


def test_hopper_of_unequal_observations_hops() -> None:
    chance, trained = returns("mamujoco/hopper_3x1", 60_000)
    assert trained > 5 * chance


def test_navigation_arrives() -> None:
    chance, trained = returns("vmas/navigation", 60_000)
    assert trained > chance + 1
