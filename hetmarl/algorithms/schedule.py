"""Settings that change while a team learns, as functions of the frames so far."""

from __future__ import annotations

SHAPES = ("linear", "exponential")


def scheduled(
    start: float, final: float, frames: int, decay_frames: int, shape: str = "linear"
) -> float:
    """From ``start`` at frame 0 to ``final`` at frame ``decay_frames`` and ever after.

    Args:
        start, final: values; above 0 where the shape is exponential.
        frames: so far.
        decay_frames: how long it takes; 0: ``final`` from the beginning.
        shape: ``linear``, equal differences in equal times, or ``exponential``, equal ratios.
    """
    share = 1.0 if frames >= decay_frames else frames / decay_frames
    if share == 1.0:
        return final
    if shape == "exponential":
        return start * (final / start) ** share
    return start + (final - start) * share
