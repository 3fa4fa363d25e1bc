"""A ring of frames that stores every observation once and can go back to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from hetmarl.data.replay.columns import Columns, Rows, observed_keys
from hetmarl.data.replay.finals import Finals
from hetmarl.data.replay.priority import Priorities
from hetmarl.data.replay.storage import Need, Storage
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError
from hetmarl_envs.observation_index import ObservationIndex

_TERMINATED, _DONE, _FIRST = 1, 2, 4


class Ring:
    """The last ``capacity`` frames of environments, in rows of slots.

    Each environment's frames stand in a row of slots, one per vector step. The observation after a
    step is the one in the next slot; only a finished episode's true final observation is kept
    apart, so that state and observations are stored once. On disk the arrays are memory-mapped:
    a checkpoint then only flushes them and notes two counters. The ring has ``spare`` more slots
    than it samples from, which keeps what the last checkpoint needs from being overwritten until
    the next one: a killed run goes back to its checkpoint by setting the counters back.

    (TorchRL's replay buffers store ``("next", ...)`` beside every frame, and dump by copying.)

    Args:
        example: a collected chunk ``[num_envs, T]``, for keys, shapes and dtypes.
        spec: the team.
        capacity: frames to sample from, rounded up to whole vector steps.
        spare: vector steps written at most between two checkpoints.
        directory: where the memory-mapped arrays live; None: in memory, and checkpoints hold the
            contents.
        keep: take the directory's arrays as they are, to go on from a checkpoint.
        total_steps: vector steps that the run writes in all; what is never written takes no disk.
            None: enough to fill the ring.
        processes: how many write a replay like this one to the same disk.
        local_processes: how many have one in the same memory.
        device: of arrays in memory; None: the example's.
        observation_index: the environment's, where it has one: observations are then put together
            from the state when they are read (see ``hetmarl_envs.observation_index``).
        priority_alpha: how much priorities matter, typically .4 to .7; 0: there are none.
        tell: is given a line that says how much memory or disk will be taken, before it is.

    Raises:
        ConfigError: a capacity or spare that is too small, or too little memory or free disk: a
            write to a memory-mapped file on a full disk ends the process by a signal, without a
            message.
        ContractError: the observation index does not fit the team or the data.
    """

    def __init__(
        self,
        example: TensorDictBase,
        spec: TeamSpec,
        capacity: int,
        *,
        spare: int,
        directory: Path | None = None,
        keep: bool = False,
        total_steps: int | None = None,
        processes: int = 1,
        local_processes: int = 1,
        device: torch.device | str | None = None,
        observation_index: Mapping[str, Tensor] | None = None,
        priority_alpha: float = 0.0,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        if capacity < 1 or spare < example.shape[1]:
            raise ConfigError(
                f"replay: capacity={capacity} frames and spare={spare} vector steps; expected at "
                f"least 1 frame, and as many spare steps as a chunk has ({example.shape[1]})."
            )
        self.num_envs = example.shape[0]
        self.capacity = -(-capacity // self.num_envs)
        """Vector steps sampled from."""
        self.slots = self.capacity + spare + 1
        self.steps = 0
        """Vector steps written in all."""
        self.directory = directory
        reward = example["next", "reward"]
        place = reward.device if device is None else torch.device(device)
        self._storage = storage = Storage(place, directory, keep)
        self.device = storage.device
        index = None if not observation_index else ObservationIndex(observation_index, spec)
        self._before = Columns(example, observed_keys(example, spec), index)
        if index is not None:
            index.compress(example)  # one that is wrong is refused before anything is written
        self._acts = Columns(example, [(group, "action") for group in spec.groups])

        once = {"reward": reward.dtype, "flags": torch.uint8, "final_at": torch.int32}
        frame = self._before.bytes + self._acts.bytes + sum(kind.itemsize for kind in once.values())
        if priority_alpha and directory is None:
            frame += 8
        written = self.slots
        if total_steps is not None and self.device.type == "cpu":
            written = min(self.slots, total_steps)
        frames, final = self.num_envs * written, self._before.bytes
        self.need = Need(frames, frame, final, processes, local_processes)
        """What it takes."""
        if tell is not None:
            tell(self.need.describe(storage))
        self.need.check(storage)

        frames = self.num_envs * self.slots
        self._observed = self._arrays("observed", frames, self._before)
        self._action = self._arrays("action", frames, self._acts)
        steps = {n: storage.array(f"step.{n}", (frames,), kind) for n, kind in once.items()}
        self._reward, self._flags, self._final_at = steps.values()
        # On disk what is not written takes no room: there the worst case, every episode one step.
        count = frames if directory is not None else 0
        self._finals = Finals(self._arrays("final", count, self._before))
        # how far the arrays on disk were written, whatever checkpoint is gone back to
        self._reached = storage.array("step.reached", (1,), torch.long)
        self._priorities: Priorities | None = None
        if priority_alpha:
            self._priorities = Priorities(frames, priority_alpha, self.device)

    def __len__(self) -> int:
        """Frames that are sampled from."""
        return (self.steps - self.first) * self.num_envs

    @property
    def first(self) -> int:
        """The oldest vector step that is sampled from."""
        return max(0, self.steps - self.capacity)

    # ------------------------------------------------------------------ writing
    def extend(self, chunk: TensorDictBase) -> None:
        """Appends a chunk ``[num_envs, T]`` that continues where the last one ended."""
        length = chunk.shape[1]
        if length >= self.slots - self.capacity:
            raise ConfigError(
                f"replay: a chunk of {length} vector steps, expected at most "
                f"{self.slots - self.capacity - 1} (spare)."
            )
        following = chunk.get("next")
        done = following.get("done").squeeze(-1)
        observed = self._before.pack(chunk)
        # the newest step's successor; the next chunk begins with it
        newest = self._before.pack(following[:, -1:])
        finals = self._before.pack(following[done]) if bool(done.any()) else None
        flags = self._read_flags(done, following.get("terminated").squeeze(-1))

        self._reached[0] = max(int(self._reached[0]), self.steps + length)
        at = torch.arange(self.steps, self.steps + length, device=self.device) % self.slots
        after = slice((self.steps + length) % self.slots, (self.steps + length) % self.slots + 1)
        for name, array in self._observed.items():
            rows = self._rows(array)
            rows[:, at] = observed[name].to(self.device)
            rows[:, after] = newest[name].to(self.device)
        for name, action in self._acts.pack(chunk).items():
            self._rows(self._action[name])[:, at] = action.to(self.device)
        self._rows(self._reward)[:, at] = following.get("reward").squeeze(-1).to(self.device)
        places = self._finals.put(finals, gone=self._ends(at))
        self._rows(self._flags)[:, at] = flags
        self._set_ends(at, places)
        before, self.steps = (self.first, self.steps), self.steps + length
        if self._priorities is not None:
            self._priorities.forget(self._frames(before[0], min(self.first, before[1])))
            self._priorities.set_new(self._frames(max(self.first, before[1]), self.steps))

    def _read_flags(self, done: Tensor, terminated: Tensor) -> Tensor:
        """``[num_envs, T]``: how each step ended, and whether an episode began with it."""
        done, terminated = done.to(self.device), terminated.to(self.device)
        first = torch.ones_like(done)
        first[:, 1:] = done[:, :-1]
        if self.steps:
            before = self._rows(self._flags)[:, (self.steps - 1) % self.slots]
            first[:, 0] = (before & _DONE).bool()
        return _TERMINATED * terminated.byte() + _DONE * done.byte() + _FIRST * first.byte()

    def _ends(self, at: Tensor) -> Tensor:
        """Places of the final observations of the steps in slots ``at [T]``, env after env."""
        done = (self._rows(self._flags)[:, at] & _DONE).bool()
        return self._rows(self._final_at)[:, at][done].long()

    def _set_ends(self, at: Tensor, places: Tensor) -> None:
        """Notes where those are."""
        if len(places):
            done = (self._rows(self._flags)[:, at] & _DONE).bool()
            chosen = torch.zeros(done.shape, dtype=torch.int32, device=self.device)
            chosen[done] = places.int()
            self._rows(self._final_at)[:, at] = chosen

    # ------------------------------------------------------------------ saving
    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go back to this moment, plain values and tensors.

        Memory-mapped arrays are flushed and stay where they are; of those in memory the part that
        is sampled from is copied. Priorities, which change everywhere, are copied.
        """
        state: dict[str, Any] = {
            "steps": self.steps,
            "num_envs": self.num_envs,
            "slots": self.slots,
        }
        if self.directory is None:
            state["arrays"] = {
                name: self._rows(array)[:, at].cpu() for name, (array, at) in self._named().items()
            }
            places = self._ends(self._window())
            for name, array in self._finals.arrays.items():
                state["arrays"][f"final.{name}"] = array[places].cpu()
        else:
            self._storage.flush()
        if self._priorities is not None:
            state["priorities"] = self._priorities.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to the moment of ``state_dict``.

        Raises:
            ConfigError: the replay was saved with other settings, or has gone on for so long that
                it no longer holds what the checkpoint needs.
        """
        here = "memory" if self.directory is None else "disk"
        saved = "memory" if "arrays" in state else "disk"
        if saved != here:
            raise ConfigError(
                f"the checkpoint's replay was kept in {saved} and this run's is to be kept in "
                f"{here}. Resume with the saved run's data.storage and directory."
            )
        for name in ("num_envs", "slots"):
            if state[name] != getattr(self, name):
                raise ConfigError(
                    f"the checkpoint's replay has {name}={state[name]}, this run's "
                    f"{getattr(self, name)}. Resume with the settings of the saved run (num_envs, "
                    "data.*, checkpoint and evaluation intervals; total_frames, where a DataModule "
                    "was not told of intervals)."
                )
        if ("priorities" in state) != (self._priorities is not None):
            has = "has" if "priorities" in state else "has no"
            raise ConfigError(
                f"the checkpoint's replay {has} priorities, unlike this run's. Resume with the "
                "saved run's data.priority_alpha."
            )
        ahead, spare = int(self._reached[0]) - state["steps"], self.slots - self.capacity - 1
        if self.directory is not None and ahead > spare:
            raise ConfigError(
                f"the replay in {self.directory} went on for {ahead} vector steps after this "
                f"checkpoint and keeps what a checkpoint needs for {spare} only. Resume from the "
                "run's newest last.ckpt, and write one at least every checkpoint_frames frames."
            )
        self.steps = state["steps"]
        window = self._window()
        if self.directory is None:
            for name, (array, at) in self._named().items():
                self._rows(array)[:, at] = state["arrays"][name].to(self.device)
        # what stands outside of the window ended no episode of this run
        inside = torch.zeros(self.slots, dtype=torch.bool, device=self.device)
        inside[window] = True
        self._rows(self._flags)[:, ~inside] = 0
        if self.directory is None:
            self._finals.load({n: state["arrays"][f"final.{n}"] for n in self._finals.arrays})
            self._set_ends(window, torch.arange(self._finals.taken, device=self.device))
        else:
            self._finals.keep_only(self._ends(window))
        if self._priorities is not None:
            self._priorities.load_state_dict(state["priorities"])

    # ------------------------------------------------------------------ arrays
    def _window(self) -> Tensor:
        """Slots of the steps that are sampled from."""
        return torch.arange(self.first, self.steps, device=self.device) % self.slots

    def _at(self, env: Tensor, step: Tensor) -> Tensor:
        """Where the frames of ``env [*B]`` and vector steps ``step [*B]`` are."""
        return env * self.slots + step % self.slots

    def _frames(self, first: int, end: int) -> Tensor:
        """Where the frames of vector steps from ``first`` to under ``end`` are, ``[M]``."""
        steps = torch.arange(first, max(first, end), device=self.device)
        env = torch.arange(self.num_envs, device=self.device)
        return self._at(env[:, None], steps).flatten()

    def _named(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Arrays with a row of slots per environment, and those that a checkpoint needs."""
        window = self._window()
        newest = torch.tensor([self.steps % self.slots], device=self.device)  # a successor
        named = {"reward": (self._reward, window), "flags": (self._flags, window)}
        for name, array in self._observed.items():
            named[f"observed.{name}"] = array, torch.cat([window, newest])
        for name, array in self._action.items():
            named[f"action.{name}"] = array, window
        return named

    def _rows(self, array: Tensor) -> Tensor:
        return array.view(self.num_envs, self.slots, *array.shape[1:])

    def _arrays(self, kind: str, length: int, columns: Columns) -> Rows:
        return {
            name: self._storage.array(f"{kind}.{name}", (length, width), columns.dtypes[name])
            for name, width in columns.widths.items()
        }
