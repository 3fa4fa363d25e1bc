"""Replay of n-step transitions that stores every observation once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError, HetmarlError

Key = tuple[str, ...]
_TERMINATED, _DONE, _CUT = 1, 2, 4


class Replay:
    """A ring of the last ``capacity`` frames, sampled uniformly as n-step transitions.

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
        directory: where the memory-mapped arrays live; None: in memory, on the example's device,
            and checkpoints hold the contents.
        keep: take the directory's arrays as they are, to go on from a checkpoint.
        total_steps: vector steps that the run writes in all; what is never written takes no disk.
            None: enough to fill the ring.
        processes: how many write a replay like this one to the same disk.

    Raises:
        ConfigError: a capacity or spare that is too small, or too little free disk: a write to a
            memory-mapped file on a full disk ends the process by a signal, without a message.
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
        self.finals = 0
        """Final observations written in all."""
        self.directory = directory
        self._keep = keep
        # dead or alive, legal or not: whatever is observed before acting
        observed = ("observation", "alive", "action_mask")
        leaves = set(example.keys(True, True))
        before: list[Key] = [(g, k) for g in spec.groups for k in observed if (g, k) in leaves]
        if "state" in leaves:
            before.append(("state",))
        actions: list[Key] = [(group, "action") for group in spec.groups]
        reward = example["next", "reward"].squeeze(-1)
        flags = torch.zeros(example.shape, dtype=torch.uint8)
        if directory is not None:
            # final observations are few and come on top
            written = [*(example[key] for key in (*before, *actions)), reward, flags, flags.long()]
            steps = self.slots if total_steps is None else min(self.slots, total_steps)
            size = sum(v[0, 0].numel() * v.element_size() for v in written)
            _check_free_space(directory, self.num_envs * steps, size, processes)
        self._observed = {key: self._array("observed", key, example[key]) for key in before}
        self._final = {key: self._array("final", key, example[key]) for key in before}
        self._action = {key: self._array("action", key, example[key]) for key in actions}
        self._reward = self._array("step", ("reward",), reward)
        self._flags = self._array("step", ("flags",), flags)
        self._final_at = self._array("step", ("final_at",), flags.long())
        # how far the arrays on disk were written, whatever checkpoint is gone back to
        self._reached = self._array("step", ("reached",), torch.zeros(1, 1, dtype=torch.long))
        self.device = self._reward.device

    def __len__(self) -> int:
        """Frames that ``sample`` draws from."""
        return min(self.steps, self.capacity) * self.num_envs

    # ------------------------------------------------------------------ writing
    def extend(self, chunk: TensorDictBase) -> None:
        """Appends a chunk ``[num_envs, T]`` that continues where the last one ended."""
        length = chunk.shape[1]
        if length >= self.slots - self.capacity:
            raise ConfigError(
                f"replay: a chunk of {length} vector steps, expected at most "
                f"{self.slots - self.capacity - 1} (spare)."
            )
        self._reached[0] = self.steps + length
        at = torch.arange(self.steps, self.steps + length, device=self.device) % self.slots
        following = chunk.get("next")
        done, terminated = following["done"].squeeze(-1), following["terminated"].squeeze(-1)
        for key, store in self._observed.items():
            rows = self._rows(store)
            rows[:, at] = chunk[key].to(self.device)
            # the newest step's successor; the next chunk begins with it
            rows[:, (self.steps + length) % self.slots] = following[key][:, -1].to(self.device)
        for key, store in self._action.items():
            self._rows(store)[:, at] = chunk[key].to(self.device)
        self._rows(self._reward)[:, at] = following["reward"].squeeze(-1).to(self.device)
        flags = _TERMINATED * terminated.byte() + _DONE * done.byte()
        self._rows(self._flags)[:, at] = flags.to(self.device)

        count = int(done.sum())
        if count:
            finals = torch.arange(self.finals, self.finals + count, device=self.device)
            finals %= len(self._reward)
            for key, store in self._final.items():
                store[finals] = following[key][done].to(self.device)
            final_at = self._rows(self._final_at)
            places = torch.zeros(done.shape, dtype=torch.long, device=self.device)
            places[done.to(self.device)] = finals
            final_at[:, at] = places
            self.finals += count
        self.steps += length

    def cut(self) -> None:
        """Ends the episodes in progress, by truncation: the next chunk begins with fresh ones.

        The newest steps' successors become final observations, and stay what they are.
        """
        newest = torch.arange(self.num_envs, device=self.device) * self.slots
        successor = newest + self.steps % self.slots
        newest = newest + (self.steps - 1) % self.slots
        flags = self._flags[newest]
        going_on = (flags < _DONE) | (flags >= _CUT)
        count = int(going_on.sum())
        finals = torch.arange(self.finals, self.finals + count, device=self.device)
        finals %= len(self._reward)
        newest, successor = newest[going_on], successor[going_on]
        # on disk, and resumed before from this very checkpoint: cut already, the successor is gone
        new = flags[going_on] < _DONE
        for key, store in self._final.items():
            store[finals[new]] = self._observed[key][successor[new]]
        self._final_at[newest] = finals
        self._flags[newest] = _DONE | _CUT
        self.finals += count

    # ------------------------------------------------------------------ reading
    def sample(
        self,
        batch_size: int,
        *,
        n_step: int = 1,
        gamma: float = 0.99,
        generator: torch.Generator | None = None,
    ) -> TensorDict:
        """Transitions that start at uniformly drawn frames and take up to ``n_step`` steps.

        A transition stops at the end of its episode and at the newest step. With k the steps
        actually taken, R = Σ_{j<k} γʲ r_{t+j}.

        Args:
            batch_size: number B of transitions, drawn with replacement.
            n_step: steps at most.
            gamma: discount γ within the transition.
            generator: of the draw, on the CPU.

        Returns:
            ``[B]``: observations (state, alive, action_mask) and actions at the start;
            under ``"next"`` the observations after the last step (the true final ones where it
            ended an episode), ``reward [B, 1]`` R, ``terminated [B, 1]``; ``steps_to_next_obs
            [B, 1]`` k.
        """
        if self.steps == 0:
            raise HetmarlError("replay: nothing to sample yet; extend it with a chunk first.")
        drawn = torch.randint(len(self), (batch_size,), generator=generator).to(self.device)
        env = drawn % self.num_envs
        step = self.steps - min(self.steps, self.capacity) + drawn // self.num_envs
        return self.transitions(env, step, n_step=n_step, gamma=gamma)

    def transitions(self, env: Tensor, step: Tensor, *, n_step: int, gamma: float) -> TensorDict:
        """The transitions that start at environments ``env [B]`` and vector steps ``step [B]``."""
        steps = step[:, None] + torch.arange(n_step, device=self.device)  # [B, n]
        at = env[:, None] * self.slots + steps % self.slots
        done = self._flags[at] >= _DONE
        # a step counts while it was taken and no episode ended before it
        taken = steps < self.steps
        taken[:, 1:] &= ~done[:, :-1].cummax(dim=1).values
        discounts = gamma ** torch.arange(n_step, device=self.device)
        reward = (self._reward[at] * discounts * taken).sum(1, keepdim=True)
        count = taken.sum(1, keepdim=True)
        last = at.gather(1, count - 1).squeeze(1)
        flags = self._flags[last]
        start = at[:, 0]
        successor = env * self.slots + (step + count.squeeze(1)) % self.slots
        ended = (flags >= _DONE).nonzero().squeeze(1)
        finals = self._final_at[last[ended]]

        size = [len(step)]
        root: dict[str, Any] = {"steps_to_next_obs": count}
        following: dict[str, Any] = {
            "reward": reward,
            "terminated": (flags & _TERMINATED).bool().unsqueeze(1),
        }
        for key, store in self._observed.items():
            after = store.index_select(0, successor)
            if len(ended):
                after[ended] = self._final[key][finals]
            _put(root, key, store.index_select(0, start))
            _put(following, key, after)
        for key, store in self._action.items():
            _put(root, key, store.index_select(0, start))
        root["next"] = following
        return TensorDict(root, size)

    # ------------------------------------------------------------------ saving
    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go back to this moment, plain values and tensors.

        Memory-mapped arrays are flushed and stay where they are; those in memory are copied.
        """
        state: dict[str, Any] = {
            "steps": self.steps,
            "finals": self.finals,
            "num_envs": self.num_envs,
            "slots": self.slots,
        }
        if self.directory is None:
            state["arrays"] = {name: array.clone() for name, array in self._arrays().items()}
        else:
            for file in self._files:
                file.flush()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to the moment of ``state_dict``.

        Raises:
            ConfigError: the replay was saved with other settings, or has gone on for so long that
                it no longer holds what the checkpoint needs.
        """
        for name in ("num_envs", "slots"):
            if state[name] != getattr(self, name):
                raise ConfigError(
                    f"the checkpoint's replay has {name}={state[name]}, this run's "
                    f"{getattr(self, name)}. Resume with the settings of the saved run (num_envs, "
                    "data.*, checkpoint and evaluation intervals)."
                )
        ahead, spare = int(self._reached[0]) - state["steps"], self.slots - self.capacity - 1
        if ahead > spare:
            raise ConfigError(
                f"the replay in {self.directory} went on for {ahead} vector steps after this "
                f"checkpoint and keeps what a checkpoint needs for {spare} only. Resume from the "
                "run's newest last.ckpt, and write one at least every checkpoint_frames frames."
            )
        self.steps, self.finals = state["steps"], state["finals"]
        for name, array in self._arrays().items():
            if self.directory is None:
                array.copy_(state["arrays"][name])

    # ------------------------------------------------------------------ arrays
    @property
    def _files(self) -> list[np.memmap]:
        return getattr(self, "_memmaps", [])

    def _arrays(self) -> dict[str, Tensor]:
        arrays = {"reward": self._reward, "flags": self._flags, "final_at": self._final_at}
        for name, group in (("observed", self._observed), ("final", self._final)):
            arrays |= {".".join((name, *key)): array for key, array in group.items()}
        return arrays | {".".join(("action", *key)): a for key, a in self._action.items()}

    def _rows(self, store: Tensor) -> Tensor:
        return store.view(self.num_envs, self.slots, *store.shape[1:])

    def _array(self, kind: str, key: Key, example: Tensor) -> Tensor:
        """An array ``[num_envs·slots, ...]`` like the example's entries ``[num_envs, T, ...]``.

        Untouched pages take neither memory nor disk, so that the arrays may be made for the worst
        case (the final observations: every episode one step long).
        """
        shape = (self.num_envs * self.slots, *example.shape[2:])
        if self.directory is None:
            return torch.zeros(shape, dtype=example.dtype, device=example.device)
        path = self.directory / (".".join((kind, *key)).replace("/", "_") + ".bin")
        dtype = torch.empty(0, dtype=example.dtype).numpy().dtype
        if self._keep and not path.exists():
            raise HetmarlError(
                f"the replay's array {path.name} is missing from {self.directory}; without it the "
                "run cannot be resumed exactly. Start a new run."
            )
        file = np.memmap(path, dtype=dtype, mode="r+" if self._keep else "w+", shape=shape)
        self.__dict__.setdefault("_memmaps", []).append(file)
        return torch.from_numpy(file)


def _check_free_space(directory: Path, frames: int, frame_size: int, processes: int) -> None:
    """Refuses a replay that the disk will not hold.

    Args:
        directory: of the replay; created, and what its files take already is counted.
        frames: that will be written.
        frame_size: bytes per frame.
        processes: how many write as much to the same disk.
    """
    directory.mkdir(parents=True, exist_ok=True)
    there = 512 * sum(getattr(f.stat(), "st_blocks", 0) for f in directory.glob("*.bin"))
    needed = processes * max(0, frames * frame_size - there)
    free = shutil.disk_usage(directory).free
    if needed > free:
        several = f" in each of {processes} processes" if processes > 1 else ""
        raise ConfigError(
            f"the replay in {directory} will take {needed / 1e9:.2f} GB more ({frames:,} frames of "
            f"{frame_size:,} bytes{several}), and its disk has {free / 1e9:.2f} GB free. Set a "
            "smaller data.buffer_size, data.storage=memory, or a run_dir on another disk."
        )


def _put(tree: dict[str, Any], key: Key, value: Tensor) -> None:
    *path, leaf = key
    for name in path:
        tree = tree.setdefault(name, {})
    tree[leaf] = value
