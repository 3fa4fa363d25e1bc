"""The on-policy algorithms learn: fixed seeds, real tasks, against the random policy."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from hetmarl.algorithms import get_algorithm
from hetmarl.data import RolloutData, RolloutDataConfig, evaluate
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.contract import write_random_actions

pytestmark = [pytest.mark.learning, pytest.mark.slow]


@pytest.mark.parametrize("algorithm", "happo hatrpo haa2c hamdpo mappo ippo maa2c ia2c".split())
def test_navigation_arrives(algorithm: str) -> None:
    make = partial(make_env, "vmas/navigation")
    env = make(num_envs=60, seed=7)
    spec = TeamSpec.from_env(env)
    generator = torch.Generator().manual_seed(7)
    chance = evaluate(lambda data: write_random_actions(data, spec, generator), env)
    module = get_algorithm(algorithm).load("module")(spec, seed=0)
    data = RolloutData(
        make,
        num_envs=60,
        total_frames=120_000,
        # one pass over each rollout: many short ones
        config=RolloutDataConfig(rollout_steps=10 if algorithm in ("maa2c", "ia2c") else 100),
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
    env.set_seed(7)
    assert evaluate(module.policy, env)["return_mean"] > chance["return_mean"] + 0.5
