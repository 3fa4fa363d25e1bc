"""Pictures of one simulation, without a display."""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from hetmarl_envs.errors import HetmarlError
from hetmarl_envs.mamujoco.simulator import Array


class RenderingError(HetmarlError):
    """No way to draw was found on this machine."""


def _make_context(width: int, height: int) -> Any:
    """An OpenGL context: the one ``MUJOCO_GL`` names, else on Linux EGL, then OSMesa.

    MuJoCo chooses its own when it is imported, and without a display chooses one that fails.
    """
    if os.environ.get("MUJOCO_GL") or not sys.platform.startswith("linux"):
        return mujoco.GLContext(width, height)  # type: ignore[attr-defined]
    tried = []
    for library, module in (("EGL", "egl"), ("OSMesa", "osmesa")):
        if ctypes.util.find_library(library) is None:
            tried.append(f"{module}: lib{library} is not installed")
            continue
        try:
            return importlib.import_module(f"mujoco.{module}").GLContext(width, height)
        except Exception as error:  # whatever the driver's binding raises: try the next
            tried.append(f"{module}: {error}")
    raise RenderingError(
        "rendering needs EGL or OSMesa; neither works here ("
        + "; ".join(tried)
        + "). Install one (Debian and Ubuntu: apt install libegl1 libosmesa6), or set MUJOCO_GL."
    )


class Renderer:
    """Draws states of one model, ``height`` x ``width`` pixels.

    Args:
        model: drawn through its camera ``track``, if it has one.
        camera: fields of the free camera otherwise (distance, lookat, ...).
    """

    def __init__(
        self, model: mujoco.MjModel, camera: Mapping[str, Any], height: int, width: int
    ) -> None:
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        self._model, self._data = model, mujoco.MjData(model)
        self._context = _make_context(width, height)
        self._context.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._options = mujoco.MjvOption()
        self._picture = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._camera = mujoco.MjvCamera()
        track = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
        if track >= 0:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = track
            return
        mujoco.mjv_defaultFreeCamera(model, self._camera)
        for name, value in camera.items():
            if name == "lookat":
                self._camera.lookat[:] = value
            elif name == "trackbodyid" and value >= 0:
                self._camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
                self._camera.trackbodyid = value
            elif name != "trackbodyid":
                setattr(self._camera, name, value)

    def render(self, state: Array) -> Array:
        """The picture ``[height, width, 3]``, uint8, of a state row of the simulator."""
        signature = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_setState(self._model, self._data, state, signature)
        mujoco.mj_forward(self._model, self._data)
        self._context.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._picture)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, self._data, self._options, None, self._camera, everything, self._scene
        )
        mujoco.mjr_render(self._rectangle, self._scene, self._picture)
        pixels = np.empty((self._rectangle.height, self._rectangle.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._picture)
        return np.ascontiguousarray(pixels[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Frees the context."""
        self._context.make_current()
        self._picture.free()
        self._context.free()
