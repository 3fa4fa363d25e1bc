"""On-policy runs: resumed exactly, determined by their seed, in every precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hetmarl.lightning import quiet_lightning
from hetmarl.networks.packed import PackedPolicy, for_acting
from tests.resume.runs import (
    GAME,
    GRU,
    MUJOCO,
    NUM_ENVS,
    VMAS,
    difference,
    interrupt,
    metrics,
    result,
    train,
)

CHOICES = VMAS | {"actions": "discrete"}
LSTM = {"memory": "lstm", "memory_size": 4, "memory_layers": 2}
DECAY = {"lr_decay": True}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "happo": (MUJOCO, {"config": DECAY}),
    "happo, recurrent": (CHOICES, {"network": GRU, "config": DECAY}),
    "hatrpo": (CHOICES, {"config": DECAY}),
    "hatrpo, recurrent": (GAME, {"network": GRU}),
    "haa2c": (GAME, {}),
    "haa2c, recurrent": (MUJOCO, {"network": LSTM}),
    "hamdpo": (VMAS, {"config": {"step_size": 2.0}}),
    "hamdpo, recurrent": (GAME, {"network": GRU}),
    "mappo": (GAME, {"network": {"sharing": "full"}}),
    "mappo, recurrent": (VMAS, {"network": GRU | {"sharing": "full"}}),
    "ippo": (VMAS, {}),
    "ippo, recurrent": (MUJOCO, {"network": GRU}),
    "maa2c": (MUJOCO, {}),
    "maa2c, recurrent": (CHOICES, {"network": LSTM, "config": {"value_norm": False}}),
    "ia2c": (CHOICES, {}),
    "ia2c, recurrent": (GAME, {"network": GRU}),
}
"""Environment and options of a run, by algorithm."""


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet_lightning()


def options(case: str) -> tuple[dict[str, Any], dict[str, Any]]:
    env, given = CASES[case]
    return env, {"algo": case.partition(",")[0], "iterations": 4, **given}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[pytest.mark.slow] if "recurrent" in c else []) for c in CASES],
)
def test_resumed_run_is_the_whole_run(case: str, tmp_path: Path) -> None:
    """Interrupted in its third iteration, taken up after the second: to the last bit."""
    env, given = options(case)
    _, module, data = train(tmp_path / "whole", env, **given)
    packed = isinstance(for_acting(module.policy, NUM_ENVS), PackedPolicy)
    assert packed == ("recurrent" not in case)
    expected = result(tmp_path / "whole", data)
    interrupt(tmp_path / "part", env, 3, **given)
    assert len(metrics(tmp_path / "part")) == 3
    _, _, data = train(tmp_path / "part", env, resume=True, **given)
    assert difference(expected, result(tmp_path / "part", data)) == ""
    assert len(expected["metrics"]) == 4
    losses = {row["train/loss_critic"] for row in expected["metrics"]}
    assert len(losses) == 4  # it learned something each time


@pytest.mark.slow
@pytest.mark.parametrize("case", ["happo", "hatrpo, recurrent"])
def test_same_seed_same_run(case: str, tmp_path: Path) -> None:
    """Whatever the global random state, and however often it was evaluated."""
    env, given = options(case)
    train(tmp_path / "one", env, **given)
    torch.manual_seed(123)
    train(tmp_path / "two", env, **given)
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")
    train(tmp_path / "often", env, evaluate_every=1, **given)
    assert metrics(tmp_path / "often") != metrics(tmp_path / "one")
    training = [metrics(tmp_path / run, but=("time/", "eval/")) for run in ("one", "often")]
    assert training[0] == training[1]
    train(tmp_path / "other", env, seed=1, **given)
    assert metrics(tmp_path / "other") != metrics(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["happo", "hatrpo, recurrent", "ippo, recurrent"])
@pytest.mark.parametrize(
    ("precision", "dtype"), [("64-true", torch.float64), ("bf16-mixed", torch.float32)]
)
def test_precisions_train_and_resume(
    case: str, precision: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    env, given = options(case)
    given["precision"] = precision
    _, whole, data = train(tmp_path / "whole", env, **given)
    assert {p.dtype for p in whole.parameters()} == {dtype}
    collector = data._collector
    observed = next(v for k, v in collector._carrier.items(True, True) if k[-1] == "observation")
    assert observed.dtype == torch.float32  # environments keep theirs
    interrupt(tmp_path / "part", env, 3, **given)
    _, _, again = train(tmp_path / "part", env, resume=True, **given)
    expected = result(tmp_path / "whole", data)
    assert difference(expected, result(tmp_path / "part", again)) == ""
    assert torch.get_default_dtype() == torch.float32
    if case.startswith("hatrpo"):  # the line search sees weights as they are, not casts of old ones
        fractions = [v for k, v in expected["metrics"][0].items() if "step_fraction" in k]
        assert max(map(float, fractions)) > 0
