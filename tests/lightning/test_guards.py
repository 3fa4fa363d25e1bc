"""NaN and infinity are named; Trainer settings that would do nothing are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict

from hetmarl.guards import NonFiniteError, check_finite, check_finite_data
from hetmarl.lightning.trainer_checks import PRECISIONS, RefuseUnsupported, check_trainer
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec
from hetmarl_envs.errors import ConfigError

FitTiny = Callable[..., Trainer]
ENVS, STEPS = 4, 6


@pytest.fixture
def spec() -> TeamSpec:
    legs, head = ActionSpace("continuous", (-1.0,) * 2, (1.0,) * 2), ActionSpace("discrete")
    agents = (
        AgentSpec("leg_0", "legs", 0, (3,), legs),
        AgentSpec("head", "heads", 0, (5,), head),
        AgentSpec("leg_1", "legs", 1, (3,), legs),
    )
    return TeamSpec(agents, state_dim=7)


def chunk() -> TensorDict:
    batch = (ENVS, STEPS)
    step = {
        "legs": {"observation": torch.randn(*batch, 2, 3)},
        "heads": {"observation": torch.randn(*batch, 1, 5)},
        "state": torch.randn(*batch, 7),
    }
    data = TensorDict(step, batch_size=batch)
    following = data.clone()
    following["reward"] = torch.randn(*batch, 1)
    data["next"] = following
    data["legs", "action"] = torch.randn(*batch, 2, 2)
    data["legs", "sample"] = 2 * data["legs", "action"]
    data["heads", "action"] = torch.ones(*batch, 1, dtype=torch.int64)
    data["hidden"] = {name: torch.randn(*batch, 8) for name in ("head", "critic")}
    return data


def test_finite_data_pass(spec: TeamSpec) -> None:
    data = chunk()
    check_finite_data(data, spec, 0)
    data["state"] *= 3e38 / data["state"].abs().max()  # sums overflow, entries do not
    check_finite_data(data, spec, 0)


@pytest.mark.parametrize(
    ("key", "place", "value", "said"),
    [
        (("legs", "observation"), (2, 3, 1, 0), "nan", "NaN in the observation of agent 'leg_1'"),
        (("legs", "action"), (2, 3, 0, 1), "inf", "Infinity in the action of agent 'leg_0'"),
        (("heads", "observation"), (2, 3, 0, 4), "-inf", "Infinity in the observation of agent"),
        (("state",), (2, 3, 6), "nan", "NaN in the state at"),
        (("next", "reward"), (2, 3, 0), "nan", "NaN in the reward at"),
        (("next", "legs", "observation"), (2, 3, 1, 2), "inf", "'leg_1' after the step"),
        (("legs", "sample"), (2, 3, 1, 0), "inf", "Infinity in the sample of agent 'leg_1'"),
        (("hidden", "head"), (2, 3, 7), "nan", "NaN in the recurrent state of agent 'head' at"),
        (("hidden", "critic"), (2, 3, 0), "inf", "recurrent state of the network 'critic' at"),
    ],
)
def test_agent_quantity_and_frame_are_named(
    spec: TeamSpec, key: Any, place: tuple[int, ...], value: str, said: str
) -> None:
    data = chunk()
    data[key][place] = float(value)
    with pytest.raises(NonFiniteError) as caught:
        check_finite_data(data, spec, frames=1000)
    message = str(caught.value)
    assert said in message
    assert "at frame 1,016 (environment 2, step 3 of the chunk" in message
    assert "last checkpoint" in message


def test_the_first_in_time_is_the_cause(spec: TeamSpec) -> None:
    """A NaN action makes everything after it NaN: the action is what is named."""
    data = chunk()
    data["legs", "action"][1, 2:, 0] = float("nan")
    data["next", "state"][1, 2:] = float("nan")
    data["next", "reward"][1, 2:] = float("nan")
    data["legs", "observation"][1, 3:] = float("nan")
    data["state"][1, 3:] = float("nan")
    with pytest.raises(NonFiniteError, match="NaN in the action of agent 'leg_0' at frame 12 "):
        check_finite_data(data, spec, 0)


def test_losses_are_named_with_their_agent() -> None:
    losses = {"loss_qvalue": torch.tensor(1.0), "loss_actor/leg_0": torch.tensor(2.0)}
    check_finite(losses, 5)
    losses["loss_actor/leg_0"] = torch.tensor(float("nan"))
    with pytest.raises(NonFiniteError, match="NaN in loss_actor of agent 'leg_0' at frame 5,000"):
        check_finite(losses, 5000)
    with pytest.raises(NonFiniteError, match="NaN in alpha of the joint policy"):
        check_finite({"alpha/joint": torch.tensor(float("nan"))}, 0)
    with pytest.raises(NonFiniteError, match="Infinity in loss_qvalue at frame 7"):
        check_finite({"loss_qvalue": torch.tensor(float("inf"))}, 7)


def test_large_finite_doubles_pass() -> None:
    check_finite({"loss": torch.tensor(1e300, dtype=torch.float64), "n": torch.tensor(3)}, 0)
    check_finite({}, 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "bf16-true"}, r"trainer\.precision=bf16-true.*bf16-mixed"),
        ({"gradient_clip_val": 0.5}, r"gradient_clip_val=0\.5.*algo\.max_grad_norm"),
        ({"accumulate_grad_batches": 2}, r"accumulate_grad_batches=2.*algo\.batch_size"),
    ],
)
def test_unsupported_settings_say_what_to_set_instead(settings: dict[str, Any], said: str) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **settings)
    with pytest.raises(ConfigError, match=said):
        check_trainer(trainer)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_supported_precisions_pass(precision: Any) -> None:
    check_trainer(Trainer(accelerator="cpu", logger=False, precision=precision))


def test_a_device_without_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``accelerator=auto`` takes it on Apple's machines."""
    trainer = Trainer(accelerator="cpu", logger=False)
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("mps"))
    with pytest.raises(ConfigError, match=r"double precision.*Set trainer.accelerator=cpu"):
        check_trainer(trainer)


def test_the_callback_refuses_at_the_start_of_fit(fit_tiny: FitTiny) -> None:
    with pytest.raises(ConfigError, match="16-true"):
        fit_tiny(2, precision="16-true", callbacks=[RefuseUnsupported()])
