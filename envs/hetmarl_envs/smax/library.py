"""``jaxmarl``, imported late, quietly, and with as many threads as torch."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch


@cache
def load_smax() -> Any:
    """The module ``jaxmarl.environments.smax``.

    JAX fixes its number of threads, all cores, when it first computes; if that is here, it is
    ``torch.get_num_threads()`` instead. And on a GPU it would claim three quarters of the memory,
    which torch needs too.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with _set("NPROC", str(torch.get_num_threads())), _quiet():
        return importlib.import_module("jaxmarl.environments.smax")  # makes arrays already


@contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    """An environment variable, unless it is set already, for as long as it is needed."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is printed, and the standard streams are what they were.

    JaxMARL prints what it could not find, and leaves ``sys.__stdout__`` in place of ``sys.stdout``.
    """
    streams = ("stdout", "stderr", "__stdout__", "__stderr__")
    before = {name: getattr(sys, name) for name in streams}
    try:
        sys.stdout = sys.__stdout__ = io.StringIO()  # type: ignore[misc, assignment]
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
