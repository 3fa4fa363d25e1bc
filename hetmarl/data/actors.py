"""Actors: TorchRL's collectors, each stepping its environments in another process or machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any, Protocol

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import AsyncCollector, Collector
from torchrl.envs import EnvBase
from torchrl.weight_update import MultiProcessWeightSyncScheme

from hetmarl.data.collector import check_same_team
from hetmarl.networks.policy import TeamPolicy
from hetmarl_envs.contract import TeamSpec, write_random_actions
from hetmarl_envs.errors import ConfigError, HetmarlError, MissingExtraError
from hetmarl_envs.signals import leave_signals_to_the_main_process

VERSION = "policy_version"
"""``[num_envs, T, 1]`` int64: iterations that the policy had learned from when it acted."""


Weights = Callable[[], TensorDictBase]
"""Called when an actor is about to begin a chunk: the weights to collect it with."""


class ActingPolicy(TensorDictModuleBase):
    """The team's policy, which says of every action which version of it the action comes from.

    The version, and whether it acts at random, are buffers, so that they reach the actors together
    with the weights and never apart from them.
    """

    version: torch.Tensor
    random: torch.Tensor

    def __init__(self, policy: TeamPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.register_buffer("version", torch.zeros((), dtype=torch.long))
        self.register_buffer("random", torch.zeros((), dtype=torch.bool))
        self.in_keys = policy.in_keys
        self.out_keys = [*policy.out_keys, VERSION]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict.set(VERSION, self.version.expand(*tensordict.batch_size, 1).clone())
        if self.random:
            return write_random_actions(tensordict, self.policy.team)
        return self.policy(tensordict)

    def weights(self) -> TensorDictBase:
        """A copy on the CPU.

        What goes to another process is shared with it from then on, never to be written to again.
        """
        return TensorDict.from_module(self).data.cpu().clone()


class Actor(Protocol):
    """Collects chunk after chunk, each with the weights that it was given at its start."""

    name: str

    def ready(self) -> bool:
        """Whether ``receive`` would return at once."""

    def receive(self) -> TensorDictBase:
        """The chunk ``[num_envs, T]`` being collected, waited for; the next one is begun.

        Raises:
            HetmarlError: the actor has died.
        """


class Actors(Protocol):
    """All actors of a run."""

    @property
    def each(self) -> Sequence[Actor]:
        """In order of their rows."""

    def close(self) -> None:
        """Ends them; may be called twice, and after one has died."""


def start_env(
    make_env: Callable[..., EnvBase], num_envs: int, team: TeamSpec, seed: int
) -> EnvBase:
    """An actor's environments, made where they are stepped: with one thread, and its own noise."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    env = make_env(num_envs=num_envs, seed=seed, device="cpu")
    check_same_team(env, team)
    return env


_COLLECTOR: dict[str, Any] = {
    # a plain TensorDict module: nothing to wrap, nothing to add to the environment
    "trust_policy": True,
    "auto_register_policy_transforms": False,
    # their layout is the spec's to the letter, also where an environment's data is less nested
    "use_buffers": False,
}


class _Sending(AsyncCollector):
    """Asks for the weights when it is about to send them, with which a chunk begins."""

    weights: Weights

    def update_policy_weights_(self, *_: Any, **kwargs: Any) -> None:
        super().update_policy_weights_(self.weights(), **kwargs)


class LocalActor:
    """TorchRL's ``AsyncCollector``: one process of this machine.

    One of them for each actor rather than a ``MultiAsyncCollector`` for all: its workers share a
    queue of one place, and throw away the chunk that they cannot put into it within a second; a
    replay whose rows continue one another must not have such gaps.

    The collector sends the weights after it has received a chunk and before it asks for the next,
    while the worker waits, so that no chunk is collected with two policies.
    """

    def __init__(
        self,
        index: int,
        make: Callable[[], EnvBase],
        policy: ActingPolicy,
        frames: int,
        weights: Weights,
    ) -> None:
        self.name = f"actor {index}"
        policy = deepcopy(policy)  # its memory is shared with the process
        self._collector = _Sending(
            make,
            policy,
            policy_factory=partial(deepcopy, policy),  # by itself a policy arrives without buffers
            frames_per_batch=frames,
            total_frames=-1,
            update_at_each_batch=True,
            weight_sync_schemes={"policy": MultiProcessWeightSyncScheme()},
            num_threads=torch.get_num_threads(),  # None would take threads from the learner
            num_sub_threads=1,
            init_fn=leave_signals_to_the_main_process,
            **_COLLECTOR,
        )
        self._collector.weights = weights
        self._chunks: Iterator[TensorDictBase] = iter(self._collector)
        self._process = self._collector.procs[0]

    def ready(self) -> bool:
        return not self._collector.queue_out.empty()

    def receive(self) -> TensorDictBase:
        try:
            return next(self._chunks)
        except (RuntimeError, OSError, EOFError, StopIteration) as error:
            code = None if self._process._closed else self._process.exitcode
            raise _died(self.name, f"its process ended with exit code {code}", error) from error

    def stop(self) -> None:
        """Asks it to end, without waiting."""
        with suppress(OSError, ValueError):  # it has ended already
            self._collector.pipes[0].send((None, "close"))

    def close(self) -> None:
        threads = torch.get_num_threads()
        self._collector.shutdown(timeout=5.0, raise_on_error=False)
        torch.set_num_threads(threads)  # TorchRL gives the worker's back, which it never took


class LocalActors:
    """Processes of this machine, started side by side."""

    def __init__(
        self,
        makes: Sequence[Callable[[], EnvBase]],
        policy: ActingPolicy,
        frames: int,
        weights: Sequence[Weights],
    ) -> None:
        self.each: list[LocalActor] = []
        with ThreadPoolExecutor(len(makes)) as pool:
            starting = [
                pool.submit(LocalActor, i, make, policy, frames, weights[i])
                for i, make in enumerate(makes)
            ]
        try:
            self.each = [future.result() for future in starting]
        except BaseException:
            self.each = [f.result() for f in starting if f.exception() is None]
            self.close()
            raise

    def close(self) -> None:
        for actor in self.each:
            actor.stop()
        for actor in self.each:
            actor.close()


class RayActor:
    """One of the remote collectors of a ``RayCollector``.

    Its own iterator is not used: it asks an actor for its next chunk only when it is itself asked
    for more, so that the actor whose chunk came last waits while the learner learns.
    """

    def __init__(self, collector: Any, index: int, weights: Weights) -> None:
        self.name = f"ray actor {index}"
        self._collector, self._index, self._weights = collector, index, weights
        self._remote = collector.remote_collectors[index]
        self._pending: Any

    def begin(self) -> None:
        """Sends the weights and asks for a chunk."""
        self._collector.update_policy_weights_(self._weights(), worker_ids=self._index)
        self._pending = self._remote.next.remote()

    def ready(self) -> bool:
        import ray

        return bool(ray.wait([self._pending], timeout=0)[0])

    def receive(self) -> TensorDictBase:
        import ray

        try:
            chunk = ray.get(self._pending).clone()  # what Ray hands out cannot be written to
            self.begin()
            return chunk
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise _died(self.name, "Ray has lost it, or its environment raised", error) from error


class RayActors:
    """A ``RayCollector``: actors of the Ray cluster at ``RAY_ADDRESS``, else of this machine.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self,
        makes: Sequence[Callable[[], EnvBase]],
        policy: ActingPolicy,
        frames: int,
        weights: Sequence[Weights],
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError(
                "data.mode=ray needs Ray, which is not installed: pip install 'hetmarl[ray]'."
            ) from error
        from torchrl.collectors.distributed import RayCollector

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        start: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
        if not ray.is_initialized():
            ray.init(**start)
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores < len(makes):  # Ray would wait for another machine, without a word
            raise ConfigError(
                f"data.actors={len(makes)}: each takes a core, and the Ray cluster has {cores}. "
                "Set fewer data.actors, or add machines to the cluster."
            )
        self._collector: Any = RayCollector(
            list(makes),
            policy,
            frames_per_batch=frames,
            total_frames=-1,
            collector_class=Collector,
            collector_kwargs=[dict(_COLLECTOR) for _ in makes],
            remote_configs={"num_cpus": 1},
            ray_init_config=start,
            trust_policy=True,
        )
        self.each = [RayActor(self._collector, i, w) for i, w in enumerate(weights)]
        for actor in self.each:
            actor.begin()

    def close(self) -> None:
        collector, self._collector = self._collector, None
        if collector is not None:
            collector.shutdown()


def _died(name: str, how: str, error: BaseException) -> HetmarlError:
    return HetmarlError(
        f"{name} has died ({how}): {error} A process that raised has printed its error above. "
        "resume=last goes on from the last checkpoint."
    )


def makers(
    make_env: Callable[..., EnvBase], num_envs: int, team: TeamSpec, seeds: Sequence[int]
) -> list[Callable[[], EnvBase]]:
    """What every actor is to make: ``num_envs`` environments of ``team`` each, by their seeds."""
    return [partial(start_env, make_env, num_envs, team, seed) for seed in seeds]
