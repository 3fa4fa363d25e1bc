"""Many simulations of one MuJoCo model, stepped by MuJoCo's own C++ threads.

MuJoCo 4 steps a batch on a thread pool (``mjbatch.h``). Its Python class ``mujoco.batch.Batch``
lacks one thing that gymnasium's environments need: ``mj_rnePostConstraint`` after a step, which
computes the contact forces that they observe and are charged for. The C function ``mjb_apply`` runs
any function on every simulation, on the same threads; so the public C interface is used directly.
"""

from __future__ import annotations

import ctypes
import logging
import os
import weakref
from typing import Any

import mujoco
import numpy as np
import torch

from hetmarl_envs.errors import HetmarlError
from hetmarl_envs.mamujoco.library import BatchConfig, library, quiet

_logger = logging.getLogger(__name__)

Array = np.ndarray[Any, np.dtype[Any]]


class SimulationError(HetmarlError):
    """MuJoCo raised an error inside a simulation."""


# Warnings after which MuJoCo has put a simulation back to where the model starts.
_UNSTABLE = [
    int(kind)
    for kind in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
    )
]


def _delete_batch(batch: int, process: int) -> None:
    if os.getpid() == process:  # a forked child has no threads to join
        library().mjb_deleteBatch(batch)


class Simulator:
    """``num_envs`` simulations of ``model``, all stepped in one call.

    ``qpos [num_envs, nq]``, ``qvel [num_envs, nv]`` and ``ctrl [num_envs, nu]`` are live views of
    the simulations' state: a write is what the next call starts from. ``field(name)`` is a live
    array of a derived quantity, refreshed by every call for the simulations that it touches; after
    ``step`` it describes the last substep, as after ``mj_step``.

    Args:
        model: copied.
        num_envs: simulations.
        num_threads: threads that step them, the caller's included.
        contact_forces: compute ``cfrc_ext`` after every step, as gymnasium does.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        num_threads: int,
        contact_forces: bool = False,
    ) -> None:
        self.model, self.num_envs, self.num_threads = model, num_envs, num_threads
        self._library = library()
        # The function runs on what the step left in each simulation's mjData, so every simulation
        # keeps its own. mjb_apply passes two arguments more than it takes: the C calling
        # conventions of all supported platforms let it ignore them.
        self._after_step = (
            ctypes.cast(self._library.mj_rnePostConstraint, ctypes.c_void_p)
            if contact_forces
            else None
        )
        message = ctypes.create_string_buffer(1000)
        config = BatchConfig(num_threads, contact_forces)
        self._batch = self._library.mjb_makeBatch(
            model._address, num_envs, ctypes.byref(config), message, len(message)
        )
        if not self._batch:
            raise SimulationError(
                f"MuJoCo cannot make {num_envs} simulations on {num_threads} threads: "
                f"{message.value.decode()}"
            )
        self._process = os.getpid()
        self._free = weakref.finalize(self, _delete_batch, self._batch, self._process)
        self._fields: dict[str, Array] = {}
        self._template = mujoco.MjData(model)
        kinds = int(mujoco.mjtWarning.mjNWARNING)
        self._warnings = self._array(  # [num_envs, kinds, (last detail, number)]
            self._library.mjb_warning(self._batch), (num_envs, kinds, 2), np.dtype(np.int32)
        )
        self._unstable, self._reported = 0, False
        size = mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        start = self._library.mjb_state(self._batch)
        self.state = self._array(start, (num_envs, size), np.dtype(np.float64))
        self.qpos = self._component(mujoco.mjtState.mjSTATE_QPOS, model.nq)
        self.qvel = self._component(mujoco.mjtState.mjSTATE_QVEL, model.nv)
        self.ctrl = self._component(mujoco.mjtState.mjSTATE_CTRL, model.nu)

    @staticmethod
    def _array(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        buffer = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(address)
        return np.frombuffer(memoryview(buffer), dtype).reshape(shape)

    def _component(self, component: mujoco.mjtState, width: int) -> Array:
        address = self._library.mjb_stateComponent(self._batch, int(component), None)
        offset = (address - self._library.mjb_state(self._batch)) // self.state.itemsize
        return self.state[:, offset : offset + width]

    def field(self, name: str) -> Array:
        """Live array ``[num_envs, ...]`` of the mjData field ``name``."""
        if name in ("qpos", "qvel", "ctrl"):
            view: Array = getattr(self, name)
            return view
        if name not in self._fields:
            template = getattr(self._template, name)
            address = self._library.mjb_output(self._batch, name.encode(), None, None)
            shape = (self.num_envs, *template.shape)
            self._fields[name] = self._array(address, shape, template.dtype)
        return self._fields[name]

    def step(self, substeps: int) -> None:
        """Advances all simulations by ``substeps`` calls of ``mj_step``."""
        self._check_open()
        batch, n = self._batch, self.num_envs
        with quiet():
            self._check(self._library.mjb_step(batch, None, n, substeps, 0))
            if self._after_step is not None:
                self._check(self._library.mjb_apply(batch, None, n, self._after_step, None, 0))
                # mjb_apply does not copy derived fields out; a pass without a stage does only that
                self._check(self._library.mjb_forward(batch, None, n, 0))
        unstable = int(self._warnings[:, _UNSTABLE, 1].sum())
        if unstable > self._unstable:
            self._report_unstable()
        self._unstable = unstable

    def _report_unstable(self) -> None:
        """Says it once: MuJoCo restarts such a simulation by itself, as it does for gymnasium."""
        if not self._reported:
            self._reported = True
            row = int(self._warnings[:, _UNSTABLE, 1].sum(1).argmax())
            _logger.warning(
                "simulation %d became unstable (NaN, infinite or huge positions, velocities or "
                "accelerations) and MuJoCo put it back to the model's start within its episode; "
                "further cases are not reported. Are actions within their bounds?",
                row,
            )

    def reset(self, ids: Array, qpos: Array, qvel: Array) -> None:
        """Starts simulations ``ids [n]`` (int32, rising) at ``qpos [n, nq]``, ``qvel [n, nv]``."""
        self._check_open()
        pointer = ids.ctypes.data
        forward = int(mujoco.mjtStage.mjSTAGE_ACC)
        with quiet():
            self._check(self._library.mjb_reset(self._batch, pointer, len(ids), None, 0))
            self.qpos[ids], self.qvel[ids] = qpos, qvel
            self._check(self._library.mjb_forward(self._batch, pointer, len(ids), forward))

    def close(self) -> None:
        """Frees the simulations and their threads; the arrays keep their last values."""
        if self._free.alive:
            for name in ("state", "qpos", "qvel", "ctrl", "_warnings"):
                setattr(self, name, getattr(self, name).copy())
            self._fields = {name: values.copy() for name, values in self._fields.items()}
            self._free()

    def _check_open(self) -> None:
        if not self._free.alive:
            raise SimulationError("the environment is closed; make a new one.")
        if os.getpid() != self._process:
            raise SimulationError(
                "the environment was made in another process, and its threads did not survive the "
                "fork. Make it in the process that steps it."
            )

    def _check(self, failed: int) -> None:
        if failed:
            status = self._library.mjb_status(self._batch)
            first = next(i for i in range(self.num_envs) if status[i])
            message = self._library.mjb_error(self._batch, first).decode()
            raise SimulationError(
                f"MuJoCo failed in {failed} of {self.num_envs} simulations; number {first}: "
                f"{message}"
            )

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Copies of the state rows and of every derived field in use: what continues bit-exactly.

        The rows are all that stepping needs. The derived fields are needed because observations and
        rewards read them as the last step left them, where they cannot be recomputed from the rows.
        """
        saved = {"state": torch.from_numpy(self.state.copy())}
        for name, values in self._fields.items():
            saved[f"field.{name}"] = torch.from_numpy(values.copy())
        return saved

    def restore(self, saved: dict[str, torch.Tensor]) -> None:
        """Puts back what ``snapshot`` returned."""
        self.state[...] = saved["state"].cpu().numpy()
        for name, values in self._fields.items():
            values[...] = saved[f"field.{name}"].cpu().numpy()
