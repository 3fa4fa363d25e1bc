"""Freed memory stays with the process, where glibc manages it and nobody says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hetmarl import memory

FAULTS = """
import ctypes, resource, runpy, sys, torch
keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]
torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        tensors = [torch.ones(500_000) for _ in range(5)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

ctypes.CDLL(None).mallopt(-3, 2**17)  # as at the start; it grows with what is freed
first = faults()
done = keep_freed_memory()
faults()
print(int(done), first, faults())
"""
SAID = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
needs_glibc = pytest.mark.skipif(not memory._has_glibc(), reason="not glibc")


@pytest.mark.slow
@needs_glibc
def test_freed_tensors_are_not_asked_for_again() -> None:
    """100 tensors of 2 MB, 489 pages each: every page is a fault, then hardly any."""
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, str(memory.__file__)],
        env={name: value for name, value in os.environ.items() if name not in SAID},
        capture_output=True,
        text=True,
        check=True,
    )
    done, before, after = map(int, run.stdout.split())
    assert done
    assert before > 40_000
    assert after < 0.1 * before


@pytest.mark.parametrize("name", SAID)
def test_the_environment_comes_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "131072")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)  # so that it could not
    assert not memory.keep_freed_memory()


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SAID:
        monkeypatch.delenv(name, raising=False)

    def unknown(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    monkeypatch.setattr(memory.os, "confstr", unknown, raising=False)  # as with musl
    assert not memory.keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.keep_freed_memory()
