"""Random numbers that need no saving: each stream is a function of where it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from hetmarl_envs.errors import ConfigError


def stable_seed(*where: int | str) -> int:
    """A 63-bit seed from its arguments, equal in every process and every Python."""
    digest = hashlib.blake2b(repr(where).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(*where: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by ``stable_seed``, such as ``stream(seed, iteration, "act")``."""
    return torch.Generator(device).manual_seed(stable_seed(*where))


def check_minibatches(rows: int, parts: int) -> None:
    """Refuses more minibatches than there are samples.

    Raises:
        ConfigError: what to set.
    """
    if rows < parts:
        raise ConfigError(
            f"{rows} samples cannot be split into {parts} minibatches. A sample is a frame, of a "
            "recurrent network algo.chunk_length steps. Collect longer rollouts "
            "(data.rollout_steps, num_envs), or set fewer algo.minibatches or "
            "algo.critic_minibatches."
        )


class UpdateRandomness:
    """The random numbers of one iteration's updates.

    What all processes must agree on (the order of the agents) comes from a common stream; noise
    comes from one stream per *shard*. A process has one shard, its rank. One process that lists
    several visits the same numbers on their concatenated batches, which is how the equality of one
    and many processes is tested.

    Args:
        seed: the run's.
        iteration: counted in training steps.
        shards: ranks whose rows, in equal parts, make up the batch.
        device: of the noise.
    """

    def __init__(
        self,
        seed: int,
        iteration: int,
        shards: Sequence[int] = (0,),
        device: torch.device | str = "cpu",
    ) -> None:
        self._common = stream(seed, iteration, "common")
        self._shards, self._sides = (
            [stream(seed, iteration, tag, rank, device=device) for rank in shards]
            for tag in ("shard", "side")
        )

    def order(self, count: int) -> list[int]:
        """A fresh permutation of ``count`` agents, the same in all processes."""
        return torch.randperm(count, generator=self._common).tolist()

    def minibatches(self, count: int, parts: int) -> list[Tensor | None]:
        """Rows of ``parts`` random minibatches of ``count`` samples, together each sample once.

        Every shard's rows are permuted alike, so that minibatch k of one process holds what those
        of several hold together. One part: None, all rows as they stand.

        Raises:
            ConfigError: fewer samples than parts.
        """
        shards = len(self._shards)
        rows = count // shards
        if parts == 1:
            return [None]
        check_minibatches(rows, parts)
        order = torch.randperm(rows, generator=self._common)
        return [
            torch.cat([part + shard * rows for shard in range(shards)])
            for part in order.tensor_split(parts)
        ]

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal noise like ``like [B, ...]``, its rows drawn shard by shard."""
        return self._draw(like, self._shards)

    def side_noise(self, like: Tensor) -> Tensor:
        """The same, of streams of its own: what is drawn here changes nothing drawn elsewhere."""
        return self._draw(like, self._sides)

    @staticmethod
    def _draw(like: Tensor, shards: Sequence[torch.Generator]) -> Tensor:
        rows, rest = divmod(like.shape[0], len(shards))
        if rest:
            raise ValueError(f"{like.shape[0]} rows do not split into {len(shards)} shards.")
        parts = [
            torch.randn(
                (rows, *like.shape[1:]), generator=shard, dtype=like.dtype, device=like.device
            )
            for shard in shards
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
