"""Long runs: memory stays flat, no process is left, and only what was in flight is lost.

`tox -e soak`; the games need the package `smacv2`.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from hetmarl.data import TeamCollector
from hetmarl.memory import keep_freed_memory
from hetmarl.networks import NetworkConfig, TeamPolicy
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.contract import write_random_actions
from hetmarl_envs.registry import get_family
from hetmarl_envs.sc2sim.install import install
from tests.processes import group_of

pytestmark = pytest.mark.soak
FRAMES, GAME_FRAMES, DISTURB_EVERY = 1_000_000, 50_000, 2_500
GROWTH = 16 * 2**20
"""Bytes by which a process may grow between the first tenth and the end."""


def resident(pid: int | str = "self") -> int:
    """Bytes of a process that are in memory, files that it maps left out."""
    gc.collect()
    fields = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return next(int(field[1]) * 1024 for field in fields if field[0] == "RssAnon:")


@pytest.mark.parametrize(
    ("task", "num_envs"),
    [("vmas/navigation", 250), ("mamujoco/ant_4x2", 50), ("mamujoco/halfcheetah_6x1", 50)],
)
def test_a_million_frames_leave_no_trace(task: str, num_envs: int) -> None:
    """Collected by a policy, episodes counted, chunks thrown away."""
    keep_freed_memory()
    torch.manual_seed(0)
    env = make_env(task, num_envs=num_envs, seed=0)
    spec = TeamSpec.from_env(env)
    collector = TeamCollector(env, TeamPolicy(spec, NetworkConfig([16])), seed=0)
    steps, chunks, episodes, sizes = 40, FRAMES // (40 * num_envs), 0, []
    for i in range(chunks):
        episodes += len(collector.collect(steps, i)[1].returns)
        sizes.append(resident() if i % (chunks // 10) == chunks // 10 - 1 else 0)
    collector.close()
    found = [size for size in sizes if size]
    assert len(found) == 10 and max(found[1:]) - found[0] < GROWTH, found
    assert episodes >= FRAMES // 1000 - num_envs


@pytest.mark.skipif(bool(get_family("smacv2").missing()), reason="the package smacv2 is missing")
def test_games_that_die_and_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disturbance costs one game its episode, and nothing else."""
    monkeypatch.setenv("SC2PATH", str(install(tmp_path / "game")))
    files = tmp_path / "files"
    files.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(files))
    chance = random.Random(0)
    env: Any = make_env("smacv2/3m", num_envs=4, seed=0, timeout=5.0)
    spec, generator = TeamSpec.from_env(env), torch.Generator().manual_seed(0)
    data, lost, disturbed, ended = env.reset(), 0, 0, 0
    mine, workers, games = [], [], []
    for step in range(GAME_FRAMES // 4):
        if step % (DISTURB_EVERY // 4) == DISTURB_EVERY // 8:
            disturb(chance.choice(env.pids), chance)
            disturbed += 1
        seen, data = env.step_and_maybe_reset(write_random_actions(data, spec, generator))
        lost += int(seen["next", "info", "game_lost"].sum())
        ended += int(seen["next", "done"].sum())
        if step % 1250 == 1249:
            mine.append(resident())
            workers.append(max(resident(pid) for pid in env.pids))
            games.append(max(resident(game) for pid in env.pids for game in games_of(pid)))
    pids = list(env.pids)
    env.close()
    assert lost == disturbed == GAME_FRAMES // DISTURB_EVERY
    assert ended > 20 * disturbed
    assert max(mine[1:]) - mine[0] < GROWTH, mine
    assert max(workers[1:]) - workers[0] < GROWTH, workers
    assert max(games[1:]) - games[0] < GROWTH, games
    assert not any(group_of(pid) for pid in pids)
    assert not list(files.iterdir())


def games_of(worker: int) -> list[int]:
    """The processes of a worker's games."""
    return [pid for pid in group_of(worker) if pid != worker]


def disturb(worker: int, chance: random.Random) -> None:
    """Kills a worker or its game, or stops the game for good."""
    game = games_of(worker)[0]
    kill, hang = signal.SIGKILL, signal.SIGSTOP
    os.kill(*chance.choice([(worker, kill), (game, kill), (game, hang)]))
