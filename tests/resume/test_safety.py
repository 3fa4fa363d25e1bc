"""Checkpoints hold tensors and plain values, and the policy in them needs nothing else."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from hetmarl.checkpoint import CheckpointError, load_plain, load_policy, plain_bytes
from hetmarl.lightning import quiet_lightning
from tests.resume.runs import MUJOCO, metrics, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run: its directory and module."""
    quiet_lightning()
    run_dir = tmp_path_factory.mktemp("run")
    _, module, _ = train(run_dir, MUJOCO, iterations=4)
    return run_dir, module


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_checkpoints_load_with_weights_only(run: Any, name: str) -> None:
    run_dir, module = run
    checkpoint = torch.load(run_dir / "checkpoints" / name, weights_only=True)
    assert list(checkpoint["state_dict"]) == list(module.state_dict())
    assert checkpoint["hyper_parameters"]["algorithm"] == "hasac"
    assert ("optimizer_states" in checkpoint) == (name == "last.ckpt")
    assert "hetmarl_resume" not in checkpoint


@pytest.mark.slow
def test_policy_without_lightning_is_the_trained_one(run: Any, tmp_path: Path) -> None:
    run_dir, module = run
    observations = [torch.randn(5, *a.observation_shape) for a in module.spec.agents]
    with torch.no_grad():
        expected = [
            actor.act(o, None)[0]
            for actor, o in zip(module.policy.actors, observations, strict=True)
        ]
    torch.save([observations, expected], tmp_path / "data.pt")
    code = """
import sys, torch, hetmarl
from torchrl.envs import ExplorationType, set_exploration_type
observations, expected = torch.load(sys.argv[2], weights_only=True)
for path in [sys.argv[1] + "/checkpoints/last.ckpt"]:
    policy = hetmarl.load_policy(path)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        for agent, (o, a) in enumerate(zip(observations, expected)):
            assert torch.equal(policy.act(agent, o), a)
hetmarl.load_policy(sys.argv[1])
simulators = {"vmas", "gymnasium_robotics", "hetmarl_envs.mujoco"}
assert not {"lightning", "pytorch_lightning", "hydra", "omegaconf", *simulators} & set(sys.modules)
"""
    arguments = [sys.executable, "-c", code, str(run_dir), str(tmp_path / "data.pt")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_is_written_loads_anywhere() -> None:
    values = {
        "tensor": torch.ones(2),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "list": [1, 2.0, True, None, "a", b"b", (1, 2), {3}, torch.Size([1]), 2**70],
        "dict": OrderedDict({1: torch.float32, (1, 2): torch.device("cpu")}),
    }
    path = Path("values.pt")
    data = plain_bytes(values, path.name)
    code = "import sys, io, torch; torch.load(io.BytesIO(sys.stdin.buffer.read()))"
    subprocess.run([sys.executable, "-c", code], input=data, check=True)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [1, {"b": Path("x")}]}, r"Path at here\['a'\]\[1\]\['b'\]"),
        ([np.float64(1.0)], r"numpy\.float64 at here\[0\]"),
        (np.zeros(2), r"numpy\.ndarray at here\."),
        ({"f": len}, r"builtin_function_or_method at here\['f'\]"),
        (defaultdict(list), r"collections\.defaultdict at here\."),
        ({Path("x"): 1}, r"Path at here\."),
    ],
)
def test_object_is_refused_with_its_place(value: Any, where: str) -> None:
    with pytest.raises(CheckpointError, match=where):
        plain_bytes(value, "here")


@pytest.mark.slow
def test_object_in_a_run_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Careless(Callback):
        steps = 0

        def on_train_batch_end(self, *_: Any) -> None:
            self.steps += 1

        def state_dict(self) -> dict[str, Any]:
            return {"where": tmp_path if self.steps > 2 else "nowhere"}

    match = r"type pathlib\.\w*Path at checkpoint\['callbacks'\]\['.*Careless'\]\['where'\]"
    with pytest.raises(CheckpointError, match=match):
        train(tmp_path, MUJOCO, callbacks=(Careless(),))
    assert load_plain(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2
    train(tmp_path, MUJOCO, resume=True)
    assert len(metrics(tmp_path)) == 9


class Evil:
    """Pickled code."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('ran')",)


def test_checkpoint_with_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "x": Evil()}, path)
    for load in (load_plain, load_policy):
        with pytest.raises(CheckpointError, match=r"more than tensors and .*refused"):
            load(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="corrupt or no checkpoint"):
        load_plain(path)


def test_load_policy_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*best\.ckpt"):
        load_policy(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint of hetmarl's"):
        load_policy(tmp_path / "x.ckpt")
