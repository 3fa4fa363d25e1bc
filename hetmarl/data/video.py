"""Films an episode of a policy, and writes it as mp4 or gif."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type, step_mdp

from hetmarl.curves import replaced
from hetmarl.data.collector import carry
from hetmarl_envs.errors import ConfigError, MissingExtraError, did_you_mean

Image = NDArray[np.uint8]
FORMATS = (".mp4", ".gif")


@dataclass(frozen=True)
class Episode:
    """Images ``[H, W, 3]`` from reset to the last step, the return, and the length in steps."""

    images: list[Image]
    episode_return: float
    length: int


def record_episode(
    env: EnvBase,
    policy: Callable[[TensorDictBase], TensorDictBase],
    index: int = 0,
    max_steps: int | None = None,
) -> Episode:
    """Plays one episode with the policy's deterministic actions and films it.

    Args:
        env: keeps the data contract and has ``render(index)``.
        policy: writes every ``(group, "action")``.
        index: sub-environment that is filmed.
        max_steps: stops after so many steps; None: when the episode ends.

    Raises:
        ConfigError: no such sub-environment, or the environment cannot render.
    """
    if not 0 <= index < env.batch_size[0]:
        raise ConfigError(
            f"index is {index}, expected 0 to {env.batch_size[0] - 1}: the environment has "
            f"num_envs={env.batch_size[0]}."
        )
    render = getattr(env, "render", None)
    if render is None:
        raise ConfigError(f"{type(env).__name__} has no render(index) and cannot be filmed.")
    images: list[Image] = []
    total, length = 0.0, 0
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        data = env.reset()
        images.append(render(index))
        while max_steps is None or length < max_steps:
            data = env.step(policy(data))
            images.append(render(index))
            total += float(data["next", "reward"][index])
            length += 1
            if bool(data["next", "done"][index]):
                break
            data = carry(data, env.maybe_reset(step_mdp(data)))  # the others may have ended
    return Episode(images, total, length)


def write_video(images: Sequence[Image], path: str | os.PathLike[str], fps: float = 30.0) -> Path:
    """Writes images ``[H, W, 3]`` uint8 as ``.mp4`` or ``.gif``, by the path's ending.

    Args:
        images: at least one, all of one size.
        path: the file; its folder is created.
        fps: images per second; a gif's step is 10 ms, so that at most 50 come out true.

    Raises:
        ConfigError: another ending, or no images.
        MissingExtraError: mp4 without its encoder.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(
            f"Cannot write '{path.name}': expected an ending of {' or '.join(FORMATS)}."
            f"{did_you_mean(suffix, FORMATS)}"
        )
    if not images or fps <= 0:
        raise ConfigError(f"Got {len(images)} images at fps={fps}; expected at least 1, fps > 0.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        (_write_mp4 if suffix == ".mp4" else _write_gif)(images, temporary, fps)
    return path


def _write_gif(images: Sequence[Image], path: Path, fps: float) -> None:
    from PIL import Image as Pillow

    # One palette for all images, from some spread over the film, so that nothing flickers.
    some = images[:: max(len(images) // 8, 1)]
    palette = Pillow.fromarray(np.concatenate([image[::2, ::2] for image in some])).quantize(256)
    first, *rest = [Pillow.fromarray(image).quantize(palette=palette) for image in images]
    duration = max(round(100 / fps), 2) * 10
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0)


def _write_mp4(images: Sequence[Image], path: Path, fps: float) -> None:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MissingExtraError(
            "mp4 needs an encoder: pip install imageio-ffmpeg. Or write a .gif."
        ) from error
    height, width = (size - size % 2 for size in images[0].shape[:2])  # what players can show
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=fps, macro_block_size=1, quality=7
    )
    writer.send(None)
    try:
        for image in images:
            writer.send(np.ascontiguousarray(image[:height, :width]))
    finally:
        writer.close()
