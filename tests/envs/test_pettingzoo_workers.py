"""PettingZoo's environments in worker processes: the same numbers, clean ends, crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from gymnasium.spaces import Discrete
from tensordict import TensorDictBase

from hetmarl_envs import check_team_env
from hetmarl_envs.errors import ConfigError, ContractError
from hetmarl_envs.pettingzoo import PettingZooEnv
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


@pytest.mark.slow
def test_workers_go_when_the_main_process_is_killed() -> None:
    script = (
        "import os, signal\n"
        "from hetmarl_envs.pettingzoo import PettingZooEnv\n"
        "from tests.envs.toys import Scripted\n"
        "settings = dict(num_envs=3, num_workers=3, start_method='fork', team_reward='sum')\n"
        "env = PettingZooEnv(Scripted, **settings)\n"
        "env.reset()\n"
        "print(*[process.pid for process in env._rows._processes], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
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
