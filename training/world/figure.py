"""Turns the measures of a person into pixels.

Measures are in half face heights from the middle of the face. Points of the head are on a plane, or
on the face, which bulges out of it. So features move when the head turns.
"""

from typing import NamedTuple

import numpy as np

from .motion import Motion
from .people import Person
from .shapes import Canvas, Colour

NECK = 1.15
"""The point around which the head tilts, below the middle of the face."""
BULGE = 0.6
FOLLOWING = 0.35
"""Share of the head's shift by which the shoulders shift."""


class Figure:
    """A person in a pose, one frame of a motion, in a picture of (height, width)."""

    def __init__(self, person: Person, pose: Motion, size: tuple[int, int]):
        height, width = size
        side = min(height, 1.15 * width)
        self.face = person.face
        self.still_unit = person.size * side / 2
        self.unit = self.still_unit * pose.scale
        self.middle = np.array(
            [width / 2 + person.place[0] * side, height / 2 + (person.place[1] - 0.5) * side]
        )
        self.shift = np.array([pose.x, pose.y])
        self.turn = np.array([pose.yaw, -pose.pitch])
        cosine, sine = np.cos(pose.roll), np.sin(pose.roll)
        self.roll = np.array([[cosine, sine], [-sine, cosine]])

    def head(self, points, depth: float = 0, lift: float = 0) -> np.ndarray:
        """Points of the head in pixels. `depth` is 0 on its plane, 1 on the face, plus `lift`."""
        points = np.asarray(points, float)
        beyond = (points[:, 0] / self.face) ** 2 + (points[:, 1] / 1.3) ** 2
        z = lift + depth * BULGE * np.sqrt(np.clip(1 - 0.9 * beyond, 0, 1))
        turned = points * np.cos(self.turn) + z[:, None] * np.sin(self.turn)
        tilted = (turned - (0, NECK)) @ self.roll + (0, NECK)
        return self.middle + (tilted + self.shift) * self.unit

    def body(self, points) -> np.ndarray:
        """Points of the shoulders in pixels. They follow the head only a little."""
        points = np.asarray(points, float)
        return self.middle + (points + FOLLOWING * self.shift) * self.still_unit

    def affine(self, lift: float) -> tuple[np.ndarray, np.ndarray]:
        """The matrix (2, 2) and the origin (2,) in pixels of a plane in the head."""
        origin, right, down = self.head([(0, 0), (1, 0), (0, 1)], lift=lift)
        return np.stack([right - origin, down - origin], 1), origin


class Patch(NamedTuple):
    """A polygon of the head in one colour, and its place in front of the head's plane or behind."""

    points: np.ndarray
    colour: Colour
    depth: float = 0
    lift: float = 0

    def draw(self, canvas: Canvas, place: Figure) -> None:
        canvas.fill(place.head(self.points, self.depth, self.lift), self.colour)
