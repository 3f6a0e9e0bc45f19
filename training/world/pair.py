"""Two people side by side in front of one wall."""

from dataclasses import replace

import numpy as np

from .drawing import Frame, draw
from .motion import Motion, still
from .people import Person
from .visemes import Mouth, still_mouth

Pair = tuple[Person, Person]


def beside(left: Person, right: Person, ratio: float = 1.5) -> Pair:
    """Both people in one picture, which is `ratio` times as wide as high.

    Each is as far from the middle of a half as before from the middle of the picture. Both have the
    wall of the left one.
    """
    wall = {"background": left.background, "wall": left.wall, "wall_two": left.wall_two}
    places = [(x + side * ratio / 4, y) for (x, y), side in ((left.place, -1), (right.place, 1))]
    return replace(left, place=places[0]), replace(right, place=places[1], **wall)


def centred(person: Person) -> Person:
    """The same person in the middle of the picture."""
    return replace(person, place=(0.0, person.place[1]))


def draw_pair(
    pair: Pair,
    poses: tuple[Motion, Motion],
    mouths: tuple[Mouth, Mouth],
    size: tuple[int, int],
    seconds: float = 0,
) -> tuple[np.ndarray, tuple[Frame, Frame]]:
    """A picture (height, width, 3) uint8 of both, and the frames of which its halves are.

    The geometries of the frames are in pixels of the whole picture.
    """
    rows = zip(pair, poses, mouths, strict=True)
    first, second = (draw(*row, size, seconds) for row in rows)
    half = size[1] // 2
    return np.concatenate([first.picture[:, :half], second.picture[:, half:]], 1), (first, second)


def still_pair(pair: Pair, size: tuple[int, int]) -> np.ndarray:
    """A picture (height, width, 3) uint8 of both, who look ahead with closed mouths."""
    pose, mouth = still(1)[0], still_mouth()
    return draw_pair(pair, (pose, pose), (mouth, mouth), size)[0]
