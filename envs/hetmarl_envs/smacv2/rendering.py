"""A picture of a battle from what the client knows, without StarCraft II's own graphics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hetmarl_envs.smacv2.tasks import MAP_SIZE

SIZE = 480
_SCALE = SIZE / MAP_SIZE
_GROUND, _LIFE, _SHIELD, _LOST = (236, 233, 224), (70, 150, 70), (70, 130, 210), (150, 60, 60)
_SIDES = {1: (49, 104, 163), 2: (186, 73, 60)}
_TEXT = (90, 90, 90)


def draw(units: Iterable[tuple[Any, ...]], caption: str) -> NDArray[np.uint8]:
    """Discs on a plain, agents blue and enemies red, with bars of life and shield.

    Args:
        units: (player, type's id, x, y, radius, life, shield), the last two as shares.
        caption: written at the bottom.

    Returns:
        ``[480, 480, 3]``, north at the top.
    """
    image = Image.new("RGB", (SIZE, SIZE), _GROUND)
    pen = ImageDraw.Draw(image)
    for owner, unit_type, x, y, radius, life, shield in units:
        cx, cy, r = x * _SCALE, SIZE - y * _SCALE, max(radius * _SCALE, 3.0)
        # types in shades of their side's colour
        shade = 0.75 + 0.25 * (unit_type % 3) / 2
        colour = tuple(int(part * shade) for part in _SIDES[owner])
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour, outline=(40, 40, 40))
        bars = [(life, _LIFE)] + ([(shield, _SHIELD)] if shield else [])
        for line, (share, bar) in enumerate(bars):
            top = cy - r - 5 - 3 * line
            pen.rectangle((cx - r, top, cx + r, top + 2), fill=_LOST)
            pen.rectangle((cx - r, top, cx - r + 2 * r * min(share, 1.0), top + 2), fill=bar)
    pen.text((6, SIZE - 16), caption, fill=_TEXT)
    return np.asarray(image, dtype=np.uint8)
