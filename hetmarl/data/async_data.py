"""Collection by actors while the learner learns, no further from it than a bound allows."""

from __future__ import annotations

import atexit
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from hetmarl.data.actors import VERSION, ActingPolicy, Actors, LocalActors, RayActors, makers
from hetmarl.data.collector import Episodes, EpisodeTotals
from hetmarl.engines.randomness import stable_seed
from hetmarl.networks.policy import TeamPolicy
from hetmarl_envs.errors import HetmarlError

_KINDS: dict[str, Callable[..., Actors]] = {"async": LocalActors, "ray": RayActors}


class AsyncTeamCollector:
    """Chunks like ``TeamCollector``'s, from actors whose policies are of a bounded age.

    The policy's version is the number of iterations that it has learned from. Iteration k learns
    from chunk k of every actor, and an actor begins chunk c no sooner than the learner has version
    c − ``max_staleness``: so no frame, when it is learned from, comes from a policy more than
    ``max_staleness`` versions old, and per frame there are as many gradient steps as in the
    synchronous path. Who is ahead waits: the learner in ``collect`` for chunk k, an actor for the
    learner to take its chunk.

    Args:
        make_env: ``make_env(num_envs=, seed=, device=)``; goes to the actors, pickled.
        policy: the modules being trained, without memories; actors get copies of the weights.
        num_envs: of all actors together.
        actors: how many; they share the environments equally.
        max_staleness: in versions, at least 1.
        warmup_chunks: the first chunks of a run, in which actions are random.
        seed: of environments and acting.
        kind: "async" for processes of this machine, "ray" for actors of a Ray cluster.
    """

    can_save = True

    def __init__(
        self,
        make_env: Callable[..., EnvBase],
        policy: TeamPolicy,
        *,
        num_envs: int,
        actors: int,
        max_staleness: int,
        warmup_chunks: int,
        seed: int,
        kind: str = "async",
    ) -> None:
        self.policy, self.spec = policy, policy.team
        self.num_envs, self.seed = num_envs, seed
        self.max_staleness, self.warmup_chunks = max_staleness, warmup_chunks
        self.staleness: Tensor = torch.zeros(0)
        """How many versions behind the policies of the last chunk's frames were, ``[frames]``."""
        self._make_env, self._num_actors, self._kind = make_env, actors, kind
        self._acting = ActingPolicy(policy)
        self._actors: Actors | None = None
        self._chunks: list[deque[TensorDictBase]] = [deque() for _ in range(actors)]
        self._begun = [0] * actors
        self._version = 0
        self._totals = EpisodeTotals(num_envs, torch.device("cpu"))

    def collect(self, steps: int, chunk: int, **_: Any) -> tuple[TensorDictBase, Episodes]:
        """Chunk number ``chunk`` of every actor, waited for; as ``TeamCollector.collect``.

        Returns:
            The chunk ``[num_envs, T]`` and the episodes that ended in it.
        """
        self._version = chunk
        if self._actors is None:
            self._start(steps, chunk)
        assert self._actors is not None
        for actor, chunks in zip(self._actors.each, self._chunks, strict=True):
            if not chunks:
                chunks.append(actor.receive())
        parts: Any = [chunks.popleft() for chunks in self._chunks]
        whole: Any = torch.cat(parts)
        self.staleness = (chunk - whole.pop(VERSION)).flatten().double()
        after = whole["next"].select("reward", "done", "info", strict=False)
        for step in range(steps):
            self._totals.add(after[:, step])
        return whole, self._totals.pop()

    def advance(self) -> None:
        """Lets actors that have finished a chunk begin the next, as far as the bound allows.

        For the time between two gradient steps: it does not wait.
        """
        if self._actors is None:
            return
        for i, actor in enumerate(self._actors.each):
            while self._begun[i] - self._version <= self.max_staleness and actor.ready():
                self._chunks[i].append(actor.receive())

    def _start(self, steps: int, chunk: int) -> None:
        """Actors in fresh episodes, whose first chunk is number ``chunk``."""
        each = range(self._num_actors)
        share = self.num_envs // self._num_actors
        seeds = [stable_seed(self.seed, "actor", i, chunk) % 2**31 for i in each]
        self._begun = [chunk for _ in each]
        atexit.register(self.close)  # whatever ends the program, no actor outlives it
        self._actors = _KINDS[self._kind](
            makers(self._make_env, share, self.spec, seeds),
            deepcopy(self._acting).cpu().requires_grad_(False),
            share * steps,
            [partial(self._weights, i) for i in each],
        )

    def _weights(self, i: int) -> TensorDictBase:
        """The learner's policy for actor i's next chunk."""
        chunk, self._begun[i] = self._begun[i], self._begun[i] + 1
        if chunk - self._version > self.max_staleness:
            raise HetmarlError(
                f"actor {i} was to begin chunk {chunk} when the learner had version "
                f"{self._version}: more than max_staleness={self.max_staleness} apart."
            )
        self._acting.version.fill_(self._version)
        self._acting.random.fill_(chunk < self.warmup_chunks)
        return self._acting.weights()

    def close(self) -> None:
        """Ends the actors; may be called twice."""
        actors, self._actors = self._actors, None
        if actors is not None:
            actors.close()
        atexit.unregister(self.close)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a resumed run begins fresh episodes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do, whatever kind of collector the state is of."""
