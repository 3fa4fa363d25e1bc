"""MuJoCo's C interface, where its Python bindings stop short."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mujoco

from hetmarl_envs.errors import MissingExtraError


class BatchConfig(ctypes.Structure):
    """``mjBatchConfig``."""

    _fields_ = [("nthread", ctypes.c_int), ("persistent", ctypes.c_bool)]


class _LogConfig(ctypes.Structure):
    """``mjLogConfig``."""

    _fields_ = [
        ("logto_console", ctypes.c_bool),
        ("logto_file", ctypes.c_bool),
        ("logfile", ctypes.c_char * 1024),
        ("topics", ctypes.c_int),
    ]


@functools.cache
def library() -> ctypes.CDLL:
    """The MuJoCo library that the Python bindings have loaded, with the functions used here typed.

    Raises:
        MissingExtraError: MuJoCo is older than 4.
    """
    package = Path(mujoco.__file__).parent
    patterns = ("libmujoco.so*", "libmujoco*.dylib", "mujoco.dll")
    found = [path for pattern in patterns for path in sorted(package.glob(pattern))]
    loaded = ctypes.CDLL(str(found[0])) if found else None
    if loaded is None or not hasattr(loaded, "mjb_apply"):
        raise MissingExtraError(
            "MAMuJoCo needs MuJoCo's batch stepping, new in 4.0; found mujoco "
            f"{mujoco.__version__}: pip install 'mujoco>=4'"
        )
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "mjb_makeBatch": (pointer, [pointer, number, ctypes.POINTER(BatchConfig), text, number]),
        "mjb_deleteBatch": (None, [pointer]),
        "mjb_state": (pointer, [pointer]),
        "mjb_stateComponent": (pointer, [pointer, number, pointer]),
        "mjb_warning": (pointer, [pointer]),
        "mjb_output": (pointer, [pointer, text, pointer, pointer]),
        "mjb_step": (number, [pointer, pointer, number, number, number]),
        "mjb_forward": (number, [pointer, pointer, number, number]),
        "mjb_reset": (number, [pointer, pointer, number, pointer, number]),
        "mjb_apply": (number, [pointer, pointer, number, pointer, pointer, number]),
        "mjb_status": (ctypes.POINTER(number), [pointer]),
        "mjb_error": (text, [pointer, number]),
        "mju_getLogConfig": (_LogConfig, []),
        "mju_setLogConfig": (None, [_LogConfig]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


_lock = threading.Lock()
_quiet_calls = 0
_outer_config: _LogConfig | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """While inside, MuJoCo neither prints warnings nor writes MUJOCO_LOG.TXT where it stands.

    The setting is the whole process's: calls may overlap, the last one out puts it back.
    """
    global _quiet_calls, _outer_config
    with _lock:
        if _quiet_calls == 0:
            _outer_config = library().mju_getLogConfig()
            library().mju_setLogConfig(_LogConfig(topics=_outer_config.topics))
        _quiet_calls += 1
    try:
        yield
    finally:
        with _lock:
            _quiet_calls -= 1
            if _quiet_calls == 0:
                library().mju_setLogConfig(_outer_config)
