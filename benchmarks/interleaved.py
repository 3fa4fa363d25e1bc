"""Times alternatives in turns, so that a machine whose speed changes leaves their ratio alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch


def interleaved(
    work: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 15,
    slice_seconds: float = 0.2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds per call of each alternative, measured in slices A B C A B C …

    Args:
        work: what to time, by name.
        rounds: slices of each.
        slice_seconds: length of a slice; at least one call.
        clock: ``time.perf_counter`` for the wall's; ``time.process_time`` for the processor's,
            which other processes disturb less but which counts every thread.
    """
    calls = {}
    for name, function in work.items():
        function()  # caches, allocations
        start = time.perf_counter()
        function()
        calls[name] = max(1, round(slice_seconds / (time.perf_counter() - start + 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, function in work.items():
            start = clock()
            for _ in range(calls[name]):
                function()
            seconds[name].append((clock() - start) / calls[name])
    return {name: median(values) for name, values in seconds.items()}


def in_bfloat16(function: Callable[[], object]) -> Callable[[], None]:
    """What ``trainer.precision=bf16-mixed`` makes of it on a CPU."""

    def autocast() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            function()

    return autocast


def parse(description: str | None, **own: Any) -> argparse.Namespace:
    """The options that all benchmarks share: ``--quick``, ``--threads``, ``--clock``.

    Args:
        description: the benchmark's docstring.
        **own: its own options by name, each with its default; a tuple's takes several values.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="only shows that it runs")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of the simulator")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: for a busy machine and one thread",
    )
    for name, default in own.items():
        several = isinstance(default, tuple)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            nargs="+" if several else None,
            type=type(default[0] if several else default),
            default=default,
            help=f"default: {' '.join(map(str, default)) if several else default}",
        )
    given = parser.parse_args()
    given.timer = time.perf_counter if given.clock == "wall" else time.process_time
    torch.set_num_threads(given.threads)
    return given


def table(title: str, rows: Mapping[str, str]) -> None:
    """Prints names and values."""
    width = max(map(len, rows))
    print(title)
    for name, value in rows.items():
        print(f"  {name:<{width}}  {value}")
