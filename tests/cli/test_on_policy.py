"""On-policy runs with choices and memories through every command; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hetmarl as package
from hetmarl.data import evaluate
from hetmarl_envs.errors import ConfigError

from .conftest import ON_POLICY, Outcome

Command = Callable[..., Outcome]
CHOICES = ["task=vmas/navigation", "task.max_steps=12", "task.actions=discrete"]
GRU = ["network.memory=gru", "network.memory_size=4"]


@pytest.mark.slow
def test_choices_and_memories(hetmarl: Command) -> None:
    settings = [o for o in ON_POLICY if not o.startswith("task")] + CHOICES + GRU
    code, out, err = hetmarl("train", *settings, "algo=happo", "run_dir=a")
    assert code == 0, err
    assert "Finished at frame 80" in out

    result = json.loads(hetmarl("evaluate", "a", "episodes=3").out)
    assert json.loads(hetmarl("evaluate", "a", "episodes=3").out) == result
    assert (result["algo"], result["lengths"]) == ("happo", [12, 12, 12])
    sampled = [hetmarl("evaluate", "a", "episodes=3", "deterministic=false").out for _ in range(2)]
    assert sampled[0] == sampled[1]
    assert json.loads(sampled[0])["returns"] != result["returns"]
    env = package.make_env(
        "vmas/navigation", num_envs=3, seed=100_000, max_steps=12, actions="discrete"
    )
    policy = package.load_policy("a")
    assert evaluate(policy, env)["returns"] == result["returns"]
    with pytest.raises(ConfigError, match=r"has a memory: call policy\.step"):
        policy.act(0, torch.zeros(18))

    code, out, err = hetmarl("render", "a", "out=film.gif", "steps=3")
    assert code == 0, err
    assert out.startswith("film.gif: 3 steps, return ")
    assert Path("film.gif").read_bytes()[:3] == b"GIF"


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["hatrpo", "ippo"])
def test_a_continuous_team_and_its_evaluation(hetmarl: Command, algo: str) -> None:
    code, out, err = hetmarl("train", *ON_POLICY, f"algo={algo}", "run_dir=a", "total_frames=30")
    assert code == 0, err
    assert "Finished at frame 40" in out  # of two iterations
    result = json.loads(hetmarl("evaluate", "a", "episodes=2").out)
    assert result["algo"] == algo
    assert Path("a/metrics.csv").read_text().splitlines()[-1].startswith("40,")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            [*GRU, "data.rollout_steps=15"],
            "a rollout has 15 steps and algo.chunk_length=10 does not divide it. Set "
            "data.rollout_steps to a multiple of algo.chunk_length.",
        ),
        ([*GRU, "algo.minibatches=3"], "2 samples cannot be split into 3 minibatches"),
        (["algo.critic_minibatches=21"], "20 samples cannot be split into 21 minibatches"),
        (["trainer.precision=16-mixed"], "expected one of 32-true, 64-true, bf16-mixed"),
        (["trainer.extra.gradient_clip_val=1"], "Set algo.max_grad_norm"),
    ],
)
def test_refused(hetmarl: Command, overrides: list[str], said: str) -> None:
    code, _, err = hetmarl("train", *ON_POLICY, "algo=happo", "run_dir=a", *overrides)
    assert code == 2
    assert said in err
    assert not Path("a/metrics.csv").exists()  # before anything was collected
    assert "Traceback" not in err
