"""Collection beside learning: the bound, the ratio, the order; then the same with processes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from hetmarl.data import ReplayData, ReplayDataConfig, TeamCollector, async_data
from hetmarl.data.actors import VERSION, ActingPolicy, LocalActors
from hetmarl.data.async_data import AsyncTeamCollector
from hetmarl.networks import NetworkConfig, TeamPolicy
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.errors import ConfigError, HetmarlError
from tests.algorithms.fitting import fit
from tests.data.constant import FailingEnv, constant_policy, set_version
from tests.teams import CountingEnv


class FakeActor:
    """An actor in this process: collects its next chunk as soon as it may begin it."""

    def __init__(self, team: FakeActors, index: int, make: Any, weights: Any) -> None:
        self.name, self.team, self.weights = f"fake {index}", team, weights
        self.chunk: TensorDict | None = None
        self.number = -1
        self.collector = TeamCollector(make(), team.policy, seed=index)

    def begin(self) -> None:
        sent = self.weights()  # what TorchRL's collectors do: weights first, then the chunk
        self.number += 1
        version, at_random = int(sent["version"]), bool(sent["random"])
        self.team.log.append((self.name, self.number, version, at_random))
        chunk, _ = self.collector.collect(self.team.steps, self.number, random=at_random)
        chunk[VERSION] = torch.full((*chunk.shape, 1), version)
        self.chunk = chunk

    def ready(self) -> bool:
        return self.chunk is not None and self.team.ready()

    def receive(self) -> TensorDict:
        if self.chunk is None:
            self.begin()
        chunk = self.chunk
        self.begin()
        assert chunk is not None
        return chunk


class FakeActors:
    """Actors that are always, never or sometimes done before the learner is."""

    ready: Callable[[], bool]
    log: list[tuple[str, int, int, bool]]
    closed = 0

    def __init__(
        self, makes: Sequence[Any], policy: ActingPolicy, frames: int, weights: Sequence[Any]
    ) -> None:
        self.policy = policy.policy
        self.steps = frames // makes[0]().batch_size[0]
        type(self).log = []
        self.each = [FakeActor(self, i, make, weights[i]) for i, make in enumerate(makes)]

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeActors]:
    monkeypatch.setitem(async_data._KINDS, "async", FakeActors)
    FakeActors.ready = staticmethod(lambda: True)
    FakeActors.closed = 0
    return FakeActors


def make(num_envs: int = 4, actors: int = 2, bound: int = 1, **more: Any) -> AsyncTeamCollector:
    policy = TeamPolicy(TeamSpec.from_env(CountingEnv()), NetworkConfig([8]))
    settings: dict[str, Any] = {"warmup_chunks": 0, "seed": 0} | more
    return AsyncTeamCollector(
        CountingEnv, policy, num_envs=num_envs, actors=actors, max_staleness=bound, **settings
    )


@pytest.mark.parametrize("bound", [1, 2, 3])
@pytest.mark.parametrize("speed", ["fast", "slow", "mixed"])
def test_no_frame_is_staler_than_the_bound(bound: int, speed: str, fake: type[FakeActors]) -> None:
    """The learner asks for chunks and, between gradient steps, lets actors go on."""
    luck = random.Random(0)
    chance = {"fast": 1.0, "slow": 0.0, "mixed": 0.3}[speed]
    fake.ready = staticmethod(lambda: luck.random() < chance)
    collector = make(bound=bound)
    worst = []
    for iteration in range(12):
        chunk, _ = collector.collect(3, iteration)
        assert chunk.shape == (4, 3)
        assert collector.staleness.shape == (12,)
        worst.append(int(collector.staleness.max()))
        for _ in range(4):
            collector.advance()
    assert max(worst) <= bound
    # the slack is used where actors are fast, and not a step of it where they are slow
    expected = {"fast": bound, "slow": 1}.get(speed)
    assert expected is None or max(worst) == expected
    begun = [(number, version) for _, number, version, _ in fake.log]
    assert all(number - version <= bound for number, version in begun)
    for name in ("fake 0", "fake 1"):
        numbers = [number for who, number, *_ in fake.log if who == name]
        assert numbers == list(range(len(numbers)))


def test_beginning_too_early_is_an_error(fake: type[FakeActors]) -> None:
    """The bound is checked where a chunk begins, whoever asks for it."""
    collector = make()
    collector.collect(3, 0)
    assert collector._actors is not None
    with pytest.raises(HetmarlError, match=r"actor 1 was to begin chunk 2 .* version 0"):
        collector._actors.each[1].receive()


def test_an_actor_keeps_its_rows_and_they_continue(fake: type[FakeActors]) -> None:
    collector = make(num_envs=6, actors=3, bound=2)
    chunks = []
    episodes = []
    for iteration in range(4):
        chunk, ended = collector.collect(4, iteration)
        chunks.append(chunk)
        episodes.append(ended)
        collector.advance()
    whole = torch.cat(chunks, dim=1)
    steps = (whole["state"][..., 1] * 10).round()
    assert torch.equal(steps, torch.arange(16.0).remainder(5).expand(6, 16))
    assert VERSION not in whole.keys()
    assert [e.lengths.tolist() for e in episodes] == [[], [5] * 6, [5] * 6, [5] * 6]
    assert [e.returns.tolist() for e in episodes] == [[], [5.0] * 6, [5.0] * 6, [5.0] * 6]


def test_warm_up_is_the_first_chunks(fake: type[FakeActors]) -> None:
    collector = make(bound=2, warmup_chunks=3)
    for iteration in range(6):
        collector.collect(3, iteration)
        collector.advance()
    assert {number for _, number, _, at_random in fake.log if at_random} == {0, 1, 2}


def test_as_many_updates_per_frame_as_in_turns(fake: type[FakeActors]) -> None:
    together = fit(CountingEnv, data_config={"mode": "async", "actors": 2}, num_envs=4, frames=93)
    in_turns = fit(CountingEnv, num_envs=4, frames=93)
    for name in ("frames", "updates", "update_debt"):
        assert getattr(together, name) == getattr(in_turns, name)
    assert int(together.updates) > 0
    assert fake.closed >= 1


def test_actors_end_with_an_exception(fake: type[FakeActors]) -> None:
    class Broken(RuntimeError):
        pass

    def prepare(algorithm: Any) -> None:
        def learn(*_: Any) -> dict[str, Tensor]:
            raise Broken

        algorithm.learn = learn

    with pytest.raises(Broken):
        fit(CountingEnv, data_config={"mode": "async"}, prepare=prepare)
    assert fake.closed == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "asnyc"}, r"data.mode='asnyc': expected one of sync, async, ray\. Did you mean"),
        ({"mode": "async", "actors": 0}, r"data.actors=0: expected a whole number of at least 1"),
        ({"mode": "async", "max_staleness": 0}, r"max_staleness=0: .* is data.mode=sync"),
        ({"actors": 2}, r"data.actors=2, data.max_staleness=1: for data.mode=async or ray only"),
        ({"mode": "ray", "env_device": "trainer"}, r"env_device=trainer: actors .* on the CPU"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReplayDataConfig(**settings)


def test_environments_are_shared_equally() -> None:
    config = ReplayDataConfig(mode="async", actors=3)
    with pytest.raises(ConfigError, match=r"num_envs=10 cannot be shared equally by data.actors=3"):
        ReplayData(CountingEnv, num_envs=10, total_frames=100, config=config)


def test_one_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ReplayData(
        CountingEnv, num_envs=2, total_frames=100, config=ReplayDataConfig(mode="async")
    )
    monkeypatch.setattr(ReplayData, "_world", 2)

    class Module:
        policy = constant_policy()

    with pytest.raises(ConfigError, match=r"2 learning processes: it has one learner"):
        data._make_collector(Module)


def test_no_memories() -> None:
    spec = TeamSpec.from_env(CountingEnv())

    class Module:
        policy = constant_policy()

    Module.policy.recurrent = [0]
    assert Module.policy.team == spec
    data = ReplayData(
        CountingEnv, num_envs=2, total_frames=100, config=ReplayDataConfig(mode="async")
    )
    with pytest.raises(ConfigError, match=r"network.memory: actors do not hand over"):
        data._make_collector(Module)


# ---------------------------------------------------------------------- with processes
@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A local Ray with room for two actors."""
    module = pytest.importorskip("ray", reason="Ray is not installed: pip install 'hetmarl[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # on a busy machine everything takes longer than its makers thought
        patch.setenv("RAY_raylet_start_wait_time_s", "120")
        patch.setattr("torchrl.weight_update._ray._DIST_TIMEOUT", timedelta(minutes=5))
        module.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield module
        module.shutdown()


@pytest.fixture(params=["async", "ray"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the actors are; skipped where there is no Ray."""
    if request.param == "ray":
        request.getfixturevalue("ray")
    return str(request.param)


@pytest.mark.slow
def test_actors_act_with_the_weights_they_say(kind: str) -> None:
    """Whole chunks by one policy, its version in the data; rows continue; nothing is left over."""
    policy = constant_policy()
    collector = AsyncTeamCollector(
        CountingEnv,
        policy,
        num_envs=4,
        actors=2,
        max_staleness=2,
        warmup_chunks=1,
        seed=0,
        kind=kind,
    )
    chunks, stale = [], []
    try:
        for iteration in range(8):
            set_version(policy, iteration)
            chunk, _ = collector.collect(3, iteration)
            chunks.append(chunk)
            stale.append(collector.staleness)
            version = iteration - collector.staleness.view(4, 3)
            if iteration:
                acted = chunk["wide", "action"]
                assert torch.allclose(
                    acted, (version / 100).float()[..., None, None].expand_as(acted)
                )
            else:
                assert chunk["wide", "action"].unique().numel() > 20, "warm-up: random"
            while iteration == 4 and min(collector._begun) < 7:  # as fast as the bound allows
                collector.advance()
        assert collector._actors is not None
        processes = [a._process for a in collector._actors.each] if kind == "async" else []
    finally:
        collector.close()
    assert [int(s.max()) for s in stale[:2]] == [0, 1]
    assert 2 in {int(s.max()) for s in stale} and max(int(s.max()) for s in stale) == 2
    steps = (torch.cat(chunks, dim=1)["state"][..., 1] * 10).round()
    assert torch.equal(steps, torch.arange(24.0).remainder(5).expand(4, 24))
    assert all(p._closed or not p.is_alive() for p in processes)
    collector.close()


@pytest.mark.slow
def test_an_environment_that_raises_names_its_actor(kind: str) -> None:
    collector = AsyncTeamCollector(
        FailingEnv, constant_policy(), num_envs=1, actors=1, max_staleness=1, warmup_chunks=0,
        seed=0, kind=kind,
    )  # fmt: skip
    try:
        collector.collect(4, 0)  # the next chunk's first step raises, or the one after it
        with pytest.raises(HetmarlError, match=r"actor 0 has died"):
            _ = [collector.collect(4, iteration) for iteration in (1, 2, 3)]
    finally:
        collector.close()


@pytest.mark.slow
def test_the_learner_keeps_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        actors = LocalActors([CountingEnv], ActingPolicy(constant_policy()), 4, [TensorDict])
        assert torch.get_num_threads() == 2
        pid = actors.each[0]._process.pid
        assert pid is not None and Path(f"/proc/{pid}").exists()
        actors.close()
        assert torch.get_num_threads() == 2
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_actors_of_another_team_are_refused(kind: str) -> None:
    """As on the synchronous path; there is nobody else who sees their environments."""
    collector = AsyncTeamCollector(
        partial(make_env, "games/roles"), constant_policy(), num_envs=2, actors=1,
        max_staleness=1, warmup_chunks=0, seed=0, kind=kind,
    )  # fmt: skip
    try:
        with pytest.raises(Exception, match=r"differ|has died"):
            collector.collect(4, 0)
    finally:
        collector.close()


@pytest.mark.slow
def test_more_actors_than_the_cluster_has_cores(ray: Any) -> None:
    """Ray would wait for another machine for ever."""
    collector = AsyncTeamCollector(
        CountingEnv, constant_policy(), num_envs=3, actors=3, max_staleness=1, warmup_chunks=0,
        seed=0, kind="ray",
    )  # fmt: skip
    try:
        with pytest.raises(ConfigError, match=r"data.actors=3: .* cluster has 2\. Set fewer"):
            collector.collect(4, 0)
    finally:
        collector.close()
