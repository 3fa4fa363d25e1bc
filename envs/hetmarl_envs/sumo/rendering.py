"""A picture of the traffic without SUMO's window, which needs a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 640
_MARGIN = 24
_GROUND, _ROAD, _TEXT = (236, 233, 224), (178, 176, 170), (90, 90, 90)
_MOVING, _STANDING = (49, 104, 163), (186, 73, 60)
_LIGHTS = {"g": (60, 150, 60), "y": (226, 160, 30), "r": (186, 73, 60)}


class Roads:
    """A network's lanes on a picture.

    Args:
        sumo: the running simulation.
        junctions: names of those with lights.
    """

    def __init__(self, sumo: Any, junctions: Sequence[str]) -> None:
        self._junctions = list(junctions)
        names = [name for name in sumo.lane.getIDList() if not name.startswith(":")]
        self._lanes = {name: np.array(sumo.lane.getShape(name)) for name in names}
        points = np.concatenate(list(self._lanes.values()))
        self._low = points.min(axis=0)
        width, height = points.max(axis=0) - self._low
        self._scale = (SIZE - 2 * _MARGIN) / max(width, height)
        self._height = int(height * self._scale) + 2 * _MARGIN

    def draw(self, sumo: Any, caption: str) -> NDArray[np.uint8]:
        """Vehicles blue, standing ones red; a dot in its colour where a lane ends at lights.

        Returns:
            ``[H, 640, 3]``, north at the top.
        """
        image = Image.new("RGB", (SIZE, self._height + 16), _GROUND)
        pen = ImageDraw.Draw(image)
        for shape in self._lanes.values():
            pen.line(self._places(shape), fill=_ROAD, width=2)
        for junction in self._junctions:
            lights = sumo.trafficlight.getRedYellowGreenState(junction).lower()
            links = sumo.trafficlight.getControlledLinks(junction)
            for light, link in zip(lights, links, strict=True):
                if link and link[0][0] in self._lanes:
                    x, y = self._places(self._lanes[link[0][0]][-1:])[0]
                    pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_LIGHTS.get(light, _TEXT))
        for vehicle in sumo.vehicle.getIDList():
            x, y = self._places(np.array([sumo.vehicle.getPosition(vehicle)]))[0]
            colour = _STANDING if sumo.vehicle.getSpeed(vehicle) < 0.1 else _MOVING
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
        clock = int(sumo.simulation.getTime())
        text = f"{clock // 3600:02}:{clock % 3600 // 60:02}:{clock % 60:02}   {caption}"
        pen.text((6, self._height), text, fill=_TEXT)
        return np.asarray(image, dtype=np.uint8)

    def _places(self, points: NDArray[Any]) -> list[tuple[float, float]]:
        x, y = ((points - self._low) * self._scale + _MARGIN).T
        return list(zip(x.tolist(), (self._height - y).tolist(), strict=True))
