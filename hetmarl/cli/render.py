"""``hetmarl render <run_dir> out=team.gif``: films an episode, without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hetmarl.cli.arguments import one_run, parse
from hetmarl.cli.errors import clear_errors
from hetmarl.cli.trained import load_run
from hetmarl.data.video import FORMATS, record_episode, write_video
from hetmarl_envs.errors import ConfigError

USAGE = """usage: hetmarl render <run_dir> [out=team.gif|team.mp4] [checkpoint=best|last] [seed=<n>]
                      [steps=<n>] [fps=30]

Needs no screen. steps: ends the film after so many steps of the episode."""


@dataclass
class RenderConfig:
    """Arguments of the command."""

    out: str | None = None
    """File to write, .gif or .mp4; null: episode.gif in the run's directory."""
    checkpoint: str | None = None
    """best, last or a file; null: the best, or the last if there is none."""
    seed: int = 100_000
    """Of the episode's start."""
    steps: int | None = None
    """Steps at most; null: the whole episode."""
    fps: float = 30.0
    """Steps per second of film."""

    def __post_init__(self) -> None:
        if self.out is not None and Path(self.out).suffix.lower() not in FORMATS:
            raise ConfigError(f"out={self.out}: expected a file ending in {' or '.join(FORMATS)}.")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps={self.steps}: expected 1 or more.")
        if not self.fps > 0:
            raise ConfigError(f"fps={self.fps}: expected more than 0.")


def main(arguments: Sequence[str]) -> None:
    """Writes the film and says where."""
    with clear_errors():
        positions, config = parse(RenderConfig, arguments, USAGE)
        run_dir = one_run(positions, USAGE)
        _, make_env, policy, file = load_run(run_dir, config.checkpoint)
        out = Path(config.out) if config.out else file.parent.parent / "episode.gif"
        env = make_env(num_envs=1, seed=config.seed)
        try:
            episode = record_episode(env, policy, max_steps=config.steps)
        finally:
            env.close()
        try:
            write_video(episode.images, out, config.fps)
        except OSError as error:
            raise ConfigError(f"out={out} cannot be written: {error.strerror or error}.") from error
    print(f"{out}: {episode.length} steps, return {episode.episode_return:.1f} ({file.name})")
