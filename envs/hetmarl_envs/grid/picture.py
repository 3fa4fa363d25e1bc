"""Pictures of grid worlds; the libraries' own need a window."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CELL = 32
"""Pixels along a cell."""
Colour = tuple[int, int, int]
AGENT: Colour = (49, 104, 163)
FOOD: Colour = (70, 150, 70)
GOAL: Colour = (90, 90, 90)
LOADED: Colour = (186, 73, 60)
REQUESTED: Colour = (70, 150, 70)
SHELF: Colour = (176, 170, 156)
_GROUND, _LINES, _TEXT = (236, 233, 224), (214, 210, 198), (255, 255, 255)


class Tile(NamedTuple):
    """Something in a cell: a square or a disc, with a letter on it."""

    row: int
    column: int
    colour: Colour
    text: str
    round: bool = False


def draw(size: tuple[int, int], tiles: Iterable[Tile]) -> NDArray[np.uint8]:
    """A picture ``[rows · 32, columns · 32, 3]``; later tiles lie upon earlier ones.

    Args:
        size: rows, columns.
        tiles: what is in the cells.
    """
    height, width = (CELL * count for count in size)
    image = Image.new("RGB", (width, height), _GROUND)
    pen = ImageDraw.Draw(image)
    for x in range(0, width, CELL):
        pen.line((x, 0, x, height), fill=_LINES)
    for y in range(0, height, CELL):
        pen.line((0, y, width, y), fill=_LINES)
    for tile in tiles:
        left, top = int(tile.column) * CELL, int(tile.row) * CELL
        margin = 6 if tile.round else 3
        box = (left + margin, top + margin, left + CELL - margin, top + CELL - margin)
        (pen.ellipse if tile.round else pen.rectangle)(box, fill=tile.colour)
        pen.text((left + CELL / 2, top + CELL / 2), tile.text, fill=_TEXT, anchor="mm")
    return np.asarray(image, dtype=np.uint8)
