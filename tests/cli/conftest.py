"""Runs commands in this process, in an empty working directory."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hetmarl.cli.main import main

TINY = [
    "task=mamujoco/hopper_3x1",
    "task.max_episode_steps=20",
    "num_envs=4",
    "total_frames=800",
    "data.frames_per_batch=200",
    "data.warmup_frames=200",
    "data.buffer_size=1000",
    "algo.batch_size=8",
    "algo.updates_per_step=0.1",
    "network.hidden_sizes=[8]",
    "eval.interval_frames=400",
    "eval.episodes=2",
    "torch_threads=1",
]
"""A whole run in about a second."""

ON_POLICY = [
    "task=mamujoco/hopper_3x1",
    "task.max_episode_steps=20",
    "num_envs=2",
    "total_frames=80",
    "data.rollout_steps=10",
    "network.hidden_sizes=[8]",
    "eval.interval_frames=40",
    "eval.episodes=2",
    "torch_threads=1",
]
"""The like for on-policy algorithms: iterations of 20 frames."""


class Outcome(NamedTuple):
    """What a command gave back."""

    code: int
    out: str
    err: str


@pytest.fixture
def hetmarl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """``hetmarl("list", "algos")`` as a user would type it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr("sys.argv", ["hetmarl", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run
