"""A random stream of an environment's own, though its simulator draws from the global ones."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch


class PrivateRandomness:
    """Swaps private states of the global generators in on entry and out on exit.

    VMAS draws from the global generators of torch (and here and there of numpy and Python) behind
    one random state per process, which all its environments share: an evaluation, or a second
    environment, would change the first one's episodes. With one of these per environment each has
    its own stream, and whoever draws from the global generators never notices.

    Args:
        seed: of the stream.
        device: of the simulator; on CUDA the device's generator is swapped too.
        numpy_and_python: whether to swap numpy's and Python's as well, 130 us per entry.
    """

    def __init__(self, seed: int, device: torch.device, numpy_and_python: bool) -> None:
        self.device = device
        self.numpy_and_python = numpy_and_python
        self._depth = 0
        self._outside: dict[str, Any] = {}
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Starts the stream anew."""
        seed = int(seed) % 2**63  # what every generator below takes
        self._own: dict[str, Any] = {"torch": torch.Generator().manual_seed(seed).get_state()}
        if self.device.type == "cuda":
            generator = torch.Generator(self.device)
            self._own["cuda"] = generator.manual_seed(seed).get_state()
        if self.numpy_and_python:
            self._own["numpy"] = np.random.RandomState(seed % 2**32).get_state()
            self._own["python"] = random.Random(seed).getstate()

    def another(self, seed: int) -> PrivateRandomness:
        """A stream of its own, of the same generators."""
        return PrivateRandomness(seed, self.device, self.numpy_and_python)

    def _read(self) -> dict[str, Any]:
        states: dict[str, Any] = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        if self.numpy_and_python:
            states["numpy"] = np.random.get_state()
            states["python"] = random.getstate()
        return states

    def _write(self, states: dict[str, Any]) -> None:
        torch.set_rng_state(states["torch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self.device)
        if self.numpy_and_python:
            np.random.set_state(states["numpy"])
            random.setstate(states["python"])

    def __enter__(self) -> PrivateRandomness:
        self._depth += 1
        if self._depth == 1:
            self._outside = self._read()
            self._write(self._own)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._own = self._read()
            self._write(self._outside)

    def state_dict(self) -> dict[str, Any]:
        """The stream's state as tensors and plain values."""
        state: dict[str, Any] = {k: v.clone() for k, v in self._own.items() if k in _TORCH}
        if self.numpy_and_python:
            name, keys, position, has_gauss, gauss = self._own["numpy"]
            state["numpy"] = {
                "name": str(name),
                "keys": torch.from_numpy(keys.astype(np.int64)),
                "position": int(position),
                "has_gauss": int(has_gauss),
                "gauss": float(gauss),
            }
            version, words, gauss_next = self._own["python"]
            words = torch.tensor(words, dtype=torch.int64)
            state["python"] = {"version": version, "words": words, "gauss": gauss_next}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where ``state_dict`` was taken."""
        self._own = {k: v.clone().cpu() for k, v in state.items() if k in _TORCH}
        if self.numpy_and_python:
            values = state["numpy"]
            self._own["numpy"] = (
                values["name"],
                values["keys"].cpu().numpy().astype(np.uint32),
                values["position"],
                values["has_gauss"],
                values["gauss"],
            )
            values = state["python"]
            words = tuple(values["words"].tolist())
            self._own["python"] = (values["version"], words, values["gauss"])


_TORCH = ("torch", "cuda")


def draws_elsewhere(cls: type) -> bool:
    """Whether a scenario may draw from numpy's or Python's generator.

    Judged by whether a module that it is defined in holds either: swapping them costs 130 us.
    """
    return any(
        value is np or value is np.random or value is random
        for parent in cls.__mro__[:-1]
        for value in vars(sys.modules.get(parent.__module__, object)).values()
    )


@contextmanager
def following_the_global_generators(shared: list[Any]) -> Iterator[None]:
    """Whoever draws from VMAS's one random state draws from the global generators inside.

    Args:
        shared: ``Environment.vmas_random_state``, states of torch, numpy and Python; as it was
            afterwards.
    """
    before = list(shared)
    shared[:] = [torch.random.get_rng_state(), np.random.get_state(), random.getstate()]
    try:
        yield
    finally:
        torch.random.set_rng_state(shared[0])
        np.random.set_state(shared[1])
        random.setstate(shared[2])
        shared[:] = before
