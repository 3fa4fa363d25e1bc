"""Ctrl-C and SIGTERM end a run with a checkpoint from which it goes on as if it had never ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from hetmarl.checkpoint import load_plain
from hetmarl.lightning import quiet_lightning
from hetmarl.lightning.interruption import Interrupted, Interruption
from tests.resume.runs import MUJOCO, VMAS, difference, metrics, result, train

AFTER = 3
"""The iteration in which the signal comes: no evaluation, so no checkpoint, is due at its end."""


class Signals(Callback):
    """Signals that arrive in an iteration."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self.numbers = numbers

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == AFTER - 1:
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.fixture(autouse=True)
def _usual_signals() -> Iterator[None]:
    """As in a terminal: what a shell starts in the background may ignore Ctrl-C."""
    quiet_lightning()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "SIGTERM"]
)
@pytest.mark.parametrize(
    ("algo", "env"), [("hasac", MUJOCO), ("happo", VMAS)], ids=["hasac", "happo"]
)
def test_ends_with_a_checkpoint_and_resumes_exactly(
    algo: str,
    env: dict[str, Any],
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    part = tmp_path / "part"
    with pytest.raises(Interrupted) as ended:
        train(part, env, algo=algo, iterations=5, evaluate_every=4, callbacks=(Signals(number),))
    assert ended.value.code == code
    assert f"{number.name}: stopping with a checkpoint" in capfd.readouterr().err
    assert load_plain(part / "checkpoints" / "last.ckpt")["global_step"] == AFTER
    assert len(metrics(part)) == AFTER
    assert {s: signal.getsignal(s) for s in handlers} == handlers

    _, _, data = train(part, env, algo=algo, iterations=5, evaluate_every=4, resume=True)
    _, _, whole = train(tmp_path / "whole", env, algo=algo, iterations=5, evaluate_every=4)
    assert difference(result(tmp_path / "whole", whole), result(part, data)) == ""


def test_the_second_one_acts_at_once(tmp_path: Path) -> None:
    twice = Signals(signal.SIGINT, signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        train(tmp_path, MUJOCO, callbacks=(twice,), evaluate_every=4)
    assert not isinstance(ended.value, Interrupted)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_finished_run_gives_the_signals_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    train(tmp_path, MUJOCO, iterations=1)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_ignored_stays_ignored() -> None:
    """As in the background of a shell script, or under ``nohup``."""
    interruption = Interruption()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interruption.listen()
        signal.raise_signal(signal.SIGINT)
        assert interruption.received is None
    finally:
        interruption.end()
        signal.signal(signal.SIGINT, before)


def test_outside_of_the_main_thread_nothing_is_touched() -> None:
    before = signal.getsignal(signal.SIGINT)
    failures: list[BaseException] = []

    def listen() -> None:
        try:
            Interruption().listen()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert not failures
    assert signal.getsignal(signal.SIGINT) is before
