"""Memory that is freed stays with the process, for what is allocated next."""

from __future__ import annotations

import ctypes
import os
import sys

# malloc.h's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = -1
_LARGEST = 32 * 2**20  # bytes: glibc refuses more


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory instead of giving it back to the system.

    An update allocates and frees tensors of megabytes by the thousand. As it is, glibc asks the
    system for many of them anew, and the system clears every page first: up to a quarter of a
    HAPPO update (``docs/explanation/speed.md``). Kept, the process stays as large as it was at its
    largest; blocks of more than 32 MiB are given back as before.

    It holds for the whole process until its end. What the environment says
    (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``) comes first:
    ``MALLOC_TRIM_THRESHOLD_=131072`` switches this off.

    Returns:
        Whether it was done: on Linux with glibc, where the environment says nothing.
    """
    said = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    if any(name in os.environ for name in said) or not _has_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MMAP_THRESHOLD, _LARGEST))


def _has_glibc() -> bool:
    try:
        return sys.platform == "linux" and bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except ValueError:  # musl knows no such name
        return False
