"""PettingZoo's environments in worker processes: the same numbers, clean ends, crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from gymnasium.spaces import Discrete
from tensordict import TensorDictBase

from hetmarl_envs import check_team_env
from hetmarl_envs.errors import ConfigError, ContractError
from hetmarl_envs.pettingzoo import PettingZooEnv, workers
from hetmarl_envs.pettingzoo.workers import WorkerError
from tests.envs.toys import Masked, Resumable, Scripted

ENDS = {"a_0": (2, "terminated"), "a_1": (4, "truncated"), "a_2": (3, "terminated")}
Make = Callable[..., PettingZooEnv]


@pytest.fixture
def make() -> Iterator[Make]:
    """Forked workers, which start at once; closed at the end."""
    made = []

    def one(maker: Callable[[], Any], **settings: Any) -> PettingZooEnv:
        start: Any = {"start_method": "fork"} if settings.get("num_workers") else {}
        made.append(
            PettingZooEnv(maker, **{"team_reward": "sum", "num_envs": 5} | settings, **start)
        )
        return made[-1]

    yield one
    for env in made:
        if not env.is_closed:
            env.close()


def play(env: PettingZooEnv, steps: int, data: TensorDictBase | None = None) -> Any:
    env_data = env.reset() if data is None else data
    found = []
    for step in range(steps):
        for group in env.group_map:
            spec = env.full_action_spec[group, "action"]
            mask = env_data.get((group, "action_mask"), None)
            generator = torch.Generator().manual_seed(step)
            if mask is not None:
                action = mask.int().argmax(-1)
            else:
                action = torch.rand(spec.shape, generator=generator)
            env_data[group, "action"] = action
        stepped, env_data = env.step_and_maybe_reset(env_data)
        found.append(stepped.clone())
    return torch.stack(found, 1), env_data


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class WithState(Resumable):
    def state(self) -> Any:
        return [self.count, self.start]


@pytest.mark.parametrize(
    ("maker", "settings"),
    [
        (partial(WithState, ENDS), {}),
        (partial(Masked, "info", Discrete(3), ends=ENDS), {}),
        # what the others do is drawn by rows of the whole batch
        (partial(Resumable, ENDS), {"team": ["a_1"]}),
    ],
)
def test_numbers_do_not_depend_on_the_workers(make: Make, maker: Any, settings: Any) -> None:
    alone, _ = play(make(maker, seed=3, **settings), 9)
    shared, _ = play(make(maker, seed=3, num_workers=2, **settings), 9)
    assert set(alone.keys(True, True)) == set(shared.keys(True, True))
    for key in alone.keys(True, True):
        assert torch.equal(alone[key], shared[key]), key
    assert alone["next", "done"].any()


def test_contract_pictures_and_no_process_left(make: Make) -> None:
    env = make(partial(Resumable, ENDS, render_mode="rgb_array"), num_workers=2)
    check_team_env(env, steps=9)
    play(env, 1)
    assert env.render(4).shape == (4, 6, 3)
    pids = [process.pid for process in env._rows._processes]  # type: ignore[union-attr]
    assert all(map(alive, pids)) and os.getpid() not in pids
    env.close()
    assert not any(map(alive, pids))
    with pytest.raises(WorkerError, match="is closed; make a new one"):
        env.reset()


@pytest.mark.parametrize(("before", "after"), [(2, 3), (2, 0), (0, 5)])
def test_resumes_with_another_number_of_workers(make: Make, before: int, after: int) -> None:
    maker = partial(Resumable, ENDS)
    first = make(maker, seed=1, num_workers=before, team=["a_0", "a_1"])
    second = make(maker, seed=2, num_workers=after, team=["a_0", "a_1"])
    _, data = play(first, 3)
    second.load_runtime_state(first.runtime_state())
    expected, _ = play(first, 7, data.clone())
    found, _ = play(second, 7, data.clone())
    assert (expected == found).all()
    fewer = make(maker, num_envs=2)
    fewer.reset()
    with pytest.raises(ConfigError, match="Make it with the options"):
        second.load_runtime_state(fewer.runtime_state())


class Failing(Scripted):
    """Fails at its second step, in one way or another."""

    how = "error"

    def step(self, actions: dict[str, Any]) -> Any:
        result = super().step(actions)
        if self.count == 2:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "exit":
                os._exit(3)
            if self.how == "contract":
                result[0]["a_0"] = [0.0]
            else:
                raise ZeroDivisionError("a joint has no mass")
        return result


class Killed(Failing):
    how = "killed"


class Exits(Failing):
    how = "exit"


class Breaks(Failing):
    how = "contract"


@pytest.mark.parametrize(
    ("maker", "error", "message"),
    [
        (
            Killed,
            WorkerError,
            r"worker 0 of 2, which steps environments 0 to 1, died \(killed by SIG",
        ),
        (
            Exits,
            WorkerError,
            r"died \(exit code 3\). Make the environment with num_workers=0 to see",
        ),
        (
            Failing,
            WorkerError,
            r"in a worker process failed:\n(.|\n)*ZeroDivisionError: a joint has",
        ),
        (Breaks, ContractError, r"agent a_0: the observation has shape \[1\]"),
    ],
)
def test_failures_in_workers(make: Make, maker: Any, error: Any, message: str) -> None:
    env = make(maker, num_workers=2)
    pids = [process.pid for process in env._rows._processes]  # type: ignore[union-attr]
    with pytest.raises(error, match=message):
        play(env, 3)
    env.close()
    assert not any(map(alive, pids))


class Slow(Scripted):
    """Takes its time over the second step."""

    seconds = 1.0

    def step(self, actions: dict[str, Any]) -> Any:
        if self.count == 1:
            time.sleep(self.seconds)
        return super().step(actions)


class Stuck(Slow):
    seconds = 600.0


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """Ctrl-C, after a while, to this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.get_ident()
    timer = threading.Timer(seconds, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("then", ["reset", "step"])
def test_whoever_interrupts_a_step_may_go_on(make: Make, then: str) -> None:
    """The answer to the interrupted step is none to the next request."""
    ends = {"a_0": (9, "truncated")}
    env = make(partial(Slow, ends), num_workers=2)
    _, data = play(env, 1)
    with interrupted(0.3):
        env.rand_step(data.clone())
    if then == "reset":
        data = env.reset()
        assert (data["agents", "observation"][..., 0] == 0).all()
        data = env.rand_step(data)
        expected = 1
    else:
        data = env.rand_step(data.clone())
        expected = 3
    assert (data["next", "agents", "observation"][..., 0] == expected).all()
    assert torch.equal(data["next", "reward"][:, 0], data["agents", "action"][:, 0, 0])


@pytest.mark.slow
def test_a_worker_that_hangs_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CLOSING", 1.0)
    env = make(Stuck, num_workers=3, timeout=0.5)
    pids = [process.pid for process in env._rows._processes]  # type: ignore[union-attr]
    _, data = play(env, 1)
    start = time.monotonic()
    with pytest.raises(
        WorkerError,
        match=r"worker 0 of 3, which steps environments 0 to 0, did not answer within 0\.5 seconds "
        r"and was ended.*pass a longer timeout \(None",
    ):
        env.rand_step(data)
    assert time.monotonic() - start < 4, "patience and closing are of all together"
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_one_that_hangs_while_it_is_made(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CLOSING", 0.2)
    here = os.getpid()

    def maker() -> Scripted:
        if os.getpid() != here:
            time.sleep(600)
        return Scripted()

    with pytest.raises(WorkerError, match="did not answer within 1 seconds"):
        make(maker, num_workers=2, timeout=1)


@pytest.mark.parametrize("timeout", [0, -1.0, "10", True])
def test_a_wrong_timeout(timeout: Any) -> None:
    with pytest.raises(ConfigError, match=r"timeout=.*, expected seconds > 0, or None"):
        PettingZooEnv(Scripted, timeout=timeout)


def test_one_that_cannot_be_made_in_a_worker(make: Make) -> None:
    calls: list[int] = []

    def once() -> Scripted:
        calls.append(1)
        if len(calls) > 1:
            raise FileNotFoundError("map.xml")
        return Scripted()

    with pytest.raises(WorkerError, match=r"FileNotFoundError: map\.xml"):
        make(once, num_workers=2)


@pytest.mark.parametrize("number", [-1, 6, 1.0, True])
def test_a_wrong_number_of_workers(number: Any) -> None:
    with pytest.raises(ConfigError, match=r"num_workers=.*, expected 0 \(none\) to num_envs=5"):
        PettingZooEnv(Scripted, num_envs=5, num_workers=number)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_ways_to_start_take_a_lambda(method: Any) -> None:
    env = PettingZooEnv(
        lambda: Scripted(ENDS), num_envs=3, num_workers=2, start_method=method, team_reward="sum"
    )
    alone = PettingZooEnv(lambda: Scripted(ENDS), num_envs=3, team_reward="sum")
    assert (play(env, 5)[0] == play(alone, 5)[0]).all()
    env.close()


BEGIN = """
import os, signal, sys, threading, time
from hetmarl_envs.pettingzoo import PettingZooEnv
from tests.envs.test_pettingzoo_workers import Slow, Stuck
def start(maker, method="fork"):
    return PettingZooEnv(
        maker, num_envs=3, num_workers=3, start_method=method, team_reward="sum", timeout=200
    )
"""
"""What the programs below have in common."""


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["Slow", "Stuck"])
def test_workers_go_when_the_main_process_is_killed(maker: str) -> None:
    """Also those that are stuck in a step."""
    script = (
        f"{BEGIN}\n"
        f"env = start({maker})\n"
        "data = env.step_mdp(env.rand_step(env.reset()))\n"
        "print(*[process.pid for process in env._rows._processes], flush=True)\n"
        "threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()\n"
        "while True: data = env.step_mdp(env.rand_step(data))\n"
    )
    # a file, not a pipe: the orphans would hold its other end
    with tempfile.TemporaryFile("w+") as output:
        killed = subprocess.run([sys.executable, "-c", script], stdout=output, check=False)
        output.seek(0)
        pids = [int(pid) for pid in output.read().split()]
    assert killed.returncode == -signal.SIGKILL and len(pids) == 3
    deadline = time.monotonic() + 30
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, pids))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_sigterm_to_the_whole_job_is_the_main_processs_affair(method: str) -> None:
    """A scheduler's, say: a run keeps it until its iteration is over, for which it needs them."""
    script = (
        f"{BEGIN}\n"
        "received = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: received.append(1))\n"
        f"env = start(Slow, {method!r})\n"
        "env.reset()\n"
        "os.killpg(0, signal.SIGTERM)\n"
        "time.sleep(2.5)\n"
        "env.rollout(5, break_when_any_done=False)\n"
        "print('went on', received)\n"
        "env.close()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.stdout == "went on [1]\n", run.stderr


@pytest.mark.slow
def test_a_suspended_job_does_not_run_out_of_patience() -> None:
    script = (
        f"{BEGIN}\n"
        "env = start(Slow)\n"
        "env._rows._timeout = 2\n"
        "data = env.step_mdp(env.rand_step(env.reset()))\n"
        "print('stepping', flush=True)\n"
        "env.rand_step(data)\n"
        "print('went on')\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None and run.stdout.readline() == "stepping\n"
    time.sleep(0.3)
    os.killpg(run.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(run.pid, signal.SIGCONT)  # the workers later
    time.sleep(0.5)
    os.killpg(run.pid, signal.SIGCONT)
    assert run.communicate(timeout=60)[0] == "went on\n"


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["Slow", "Stuck"])
def test_a_program_that_closes_nothing_ends(maker: str) -> None:
    script = (
        "import multiprocessing.util, weakref\n"
        "weakref.finalize(multiprocessing.util, print)\n"
        f"{BEGIN}\n"
        f"env = start({maker})\n"
        "data = env.step_mdp(env.rand_step(env.reset()))\n"
        "threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "while True: data = env.step_mdp(env.rand_step(data))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert "KeyboardInterrupt" in run.stderr
