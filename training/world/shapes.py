"""Curves, colours, and the canvas that they are drawn on.

Points are (n, 2) arrays, x to the right and y down; colours are (red, green, blue), 0 to 255.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """A mix of two colours. `share` is that of the second one."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def darker(colour: Colour, share: float) -> Colour:
    """The colour mixed with a warm dark one, which looks better than black."""
    return mix(colour, (40, 12, 24), share)


def lighter(colour: Colour, share: float) -> Colour:
    return mix(colour, (255, 250, 238), share)


@lru_cache(maxsize=128)
def _spline(count: int, closed: bool, steps: int) -> np.ndarray:
    """(points, count) weights of a Catmull-Rom curve through `count` control points."""
    t = np.arange(steps) / steps
    basis = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1
    )
    segments = count if closed else count - 1
    weights = np.zeros((segments * steps + (not closed), count))
    for segment in range(segments):
        for neighbour in range(4):
            control = segment + neighbour - 1
            control = control % count if closed else min(max(control, 0), count - 1)
            weights[segment * steps : (segment + 1) * steps, control] += basis[:, neighbour]
    if not closed:
        weights[-1, -1] = 1
    return weights


def curve(controls, closed: bool = True, steps: int = 6) -> np.ndarray:
    """A smooth curve through the points."""
    controls = np.asarray(controls, float)
    return _spline(len(controls), closed, steps) @ controls


@lru_cache(maxsize=256)
def _parsed(text: str) -> np.ndarray:
    return np.array(text.split(), float).reshape(-1, 2)


def points(text: str, wide: float = 1) -> np.ndarray:
    """Points from a text "x y  x y ...", with x in units of `wide`."""
    return _parsed(text) * (wide, 1)


def mirrored(half) -> np.ndarray:
    """A closed outline from the points of its right half, top to bottom. x = 0 is not repeated."""
    half = np.asarray(half, float)
    inner = half[half[:, 0] > 1e-9]
    return np.concatenate([half, inner[::-1] * (-1, 1)])


def symmetric(text: str, wide: float = 1) -> np.ndarray:
    """A smooth closed outline whose right half is written as for `points`."""
    return curve(mirrored(points(text, wide)))


@lru_cache(maxsize=16)
def _circle(count: int) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def ellipse(x: float, y: float, across: float, down: float, count: int = 24) -> np.ndarray:
    """An ellipse around (x, y), with half its width and half its height."""
    return _circle(count) * (across, down) + (x, y)


def stroke(line: np.ndarray, width: float, taper: float = 1.0) -> np.ndarray:
    """The outline of a brush stroke along an open line. `taper` makes its ends thinner."""
    along = np.gradient(line, axis=0)
    normal = along[:, ::-1] * (-1, 1) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    place = np.linspace(-1, 1, len(line))
    half = width / 2 * (1 - taper * place**2)
    edge = normal * half[:, None]
    return np.concatenate([line + edge, (line - edge)[::-1]])


class Canvas:
    """A picture that is drawn `factor` times larger and reduced at the end, for smooth edges."""

    def __init__(self, background: Image.Image, factor: int):
        self.image = background.copy()
        self.factor = factor
        self.pen = ImageDraw.Draw(self.image)

    def fill(self, points: np.ndarray, colour: Colour) -> None:
        """Fill a polygon. Points are in pixels of the finished picture."""
        self.pen.polygon(self._enlarged(points), colour)

    def paint(self, points: np.ndarray, texture: Image.Image, corner: tuple[int, int]) -> None:
        """Fill a polygon with a texture whose upper left corner is at `corner`.

        Points are in pixels of the finished picture.
        """
        large = texture.resize(
            [side * self.factor for side in texture.size], Image.Resampling.NEAREST
        )
        mask = Image.new("L", large.size)
        local = np.asarray(points) - corner
        ImageDraw.Draw(mask).polygon(self._enlarged(local), 255)
        self.image.paste(large, [place * self.factor for place in corner], mask)

    def _enlarged(self, points: np.ndarray) -> np.ndarray:
        # Pillow cuts coordinates to integers
        return np.floor(np.asarray(points) * self.factor + 0.5).astype(np.float32).ravel()

    def finished(self) -> np.ndarray:
        """(height, width, 3) uint8."""
        return np.asarray(self.image.reduce(self.factor))
