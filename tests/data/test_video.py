"""Films: the episode that is filmed is the one asked for, and the file plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from hetmarl.data.video import record_episode, write_video
from hetmarl_envs.errors import ConfigError


class Counting(EnvBase):
    """Sub-environment ``i`` ends after ``2 + i`` steps; the reward is the action."""

    def __init__(self) -> None:
        super().__init__(batch_size=[3])
        observation = Unbounded((3, 1, 1))
        self.observation_spec = Composite(
            agents=Composite(observation=observation, shape=(3,)), shape=(3,)
        )
        action = Bounded(-1, 1, (3, 1, 1))
        self.action_spec = Composite(agents=Composite(action=action, shape=(3,)), shape=(3,))
        self.reward_spec = Unbounded((3, 1))
        self.steps = torch.zeros(3, 1)

    def _observe(self) -> TensorDict:
        observation = {"observation": self.steps.clone()[..., None]}
        return TensorDict({"agents": TensorDict(observation, [3])}, [3])

    def _reset(self, tensordict: TensorDictBase | None, **_: object) -> TensorDictBase:
        reset = None if tensordict is None else tensordict.get("_reset", None)
        self.steps[slice(None) if reset is None else reset.view(3)] = 0.0
        return self._observe()

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.steps += 1
        data = self._observe()
        data["reward"] = tensordict["agents", "action"].sum(-2)
        data["done"] = self.steps >= torch.tensor([[2.0], [3.0], [4.0]])
        data["terminated"] = data["done"].clone()
        return data

    def _set_seed(self, seed: int | None) -> None:
        pass

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        return np.full((5, 7, 3), int(self.steps[index]), dtype=np.uint8)


def policy(data: TensorDictBase) -> TensorDictBase:
    return data.set(("agents", "action"), torch.full((3, 1, 1), 0.5))


@pytest.mark.parametrize(("index", "length"), [(0, 2), (2, 4)])
def test_one_episode_of_one_sub_environment(index: int, length: int) -> None:
    episode = record_episode(Counting(), policy, index)
    assert [int(image[0, 0, 0]) for image in episode.images] == list(range(length + 1))
    assert (episode.length, episode.episode_return) == (length, 0.5 * length)


def test_max_steps_and_a_wrong_index() -> None:
    assert record_episode(Counting(), policy, 2, max_steps=1).length == 1
    with pytest.raises(ConfigError, match=r"index is 3, expected 0 to 2.*num_envs=3"):
        record_episode(Counting(), policy, 3)


def images(size: tuple[int, int] = (33, 47)) -> list[NDArray[np.uint8]]:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)] * 4
    return [np.full((*size, 3), colour, dtype=np.uint8) for colour in colours]


def test_gif(tmp_path: Path) -> None:
    path = write_video(images(), tmp_path / "new" / "film.gif", fps=20)
    with Image.open(path) as film:
        frames = list(ImageSequence.Iterator(film))
        assert len(frames) == 12 and film.size == (47, 33) and film.info["duration"] == 50
    assert [file.name for file in path.parent.iterdir()] == ["film.gif"]


def test_mp4_of_odd_size(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = write_video(images((32, 64)), tmp_path / "film.mp4", fps=10)
    reader = ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["size"] == (64, 32) and meta["fps"] == 10
    assert len(list(reader)) == 12
    path = write_video(images(), tmp_path / "film.mp4")
    assert next(ffmpeg.read_frames(str(path)))["size"] == (46, 32)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected an ending of \.mp4 or \.gif"):
        write_video(images(), tmp_path / "film.avi")
    with pytest.raises(ConfigError, match="0 images"):
        write_video([], tmp_path / "film.gif")
    assert not list(tmp_path.iterdir())
