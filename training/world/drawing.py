"""One frame: the picture of a person in a pose with a mouth, and its exact geometry."""

from dataclasses import dataclass

import numpy as np

from .background import background
from .body import draw_body
from .eyes import draw_brows, draw_eyes
from .face import draw_ears, draw_nose, draw_skin, outline
from .figure import Figure
from .hair import hair
from .hats import hat
from .motion import Motion
from .mouth import MIDDLE, chin_drop, draw_mouth
from .people import Person
from .shapes import Canvas
from .visemes import Mouth
from .wear import draw_beard, draw_glasses, draw_lines

FOREHEAD = -0.9
"""Upper end of the face's oval, with or without hair."""


@dataclass(frozen=True)
class Geometry:
    """Where things are in a picture, in its pixels; boxes are (left, top, right, bottom).

    The arrays hold one frame or, with a first axis of their own, many; float32.
    """

    mouth_opening: np.ndarray
    """Between the lips, at their middle."""
    mouth_share: np.ndarray
    """The same as a share of the height that the face has with its mouth shut."""
    mouth_box: np.ndarray
    """(4,), around both lips."""
    eye_openings: np.ndarray
    """(2,), between the lids, the picture's left eye first."""
    face_box: np.ndarray
    """(4,), around the oval of the face: forehead to chin, without hair and ears."""


@dataclass(frozen=True)
class Frame:
    picture: np.ndarray
    """(height, width, 3) uint8."""
    geometry: Geometry


def enlargement(size: tuple[int, int]) -> int:
    """How many times larger a picture is drawn before it is reduced."""
    return 4 if min(size) <= 160 else 3 if min(size) <= 320 else 2


def draw(
    person: Person, pose: Motion, mouth: Mouth, size: tuple[int, int], seconds: float = 0
) -> Frame:
    """A frame of (height, width); `pose` and `mouth` are single frames of their tracks, and
    `seconds` is the time at which a moving background is seen."""
    factor = enlargement(size)
    place = Figure(person, pose, size)
    large = (size[0] * factor, size[1] * factor)
    canvas = Canvas(background(person, large, seconds), factor)
    drop = chin_drop(person, mouth)
    edge = place.head(outline(person, drop))
    behind, over = (hair(person)[layer] + hat(person)[layer] for layer in (0, 1))
    for patch in behind:
        patch.draw(canvas, place)
    draw_body(canvas, place, person)
    draw_ears(canvas, place, person)
    draw_skin(canvas, place, person, edge)
    draw_lines(canvas, place, person)
    draw_brows(canvas, place, person, float(pose.brows))
    look = float(pose.look_x), float(pose.look_y)
    eyes = draw_eyes(canvas, place, person, float(pose.eyes), look)
    draw_nose(canvas, place, person)
    draw_beard(canvas, place, person, drop)
    lips = draw_mouth(canvas, place, person, mouth)
    if person.glasses:
        draw_glasses(canvas, place, person)
    for patch in over:
        patch.draw(canvas, place)
    return Frame(canvas.finished(), _measure(place, edge, lips, eyes))


def _measure(place: Figure, edge: np.ndarray, lips: np.ndarray, eyes: np.ndarray) -> Geometry:
    opening = np.hypot(*(lips[2] - lips[1])[MIDDLE])
    outer = lips.reshape(-1, 2)
    (_, forehead), *_ = place.head([(0, FOREHEAD)])
    face = (edge[:, 0].min(), forehead, edge[:, 0].max(), edge[:, 1].max())
    share = opening / ((1 - FOREHEAD) * place.unit)
    measures = (opening, share, [*outer.min(0), *outer.max(0)], eyes, face)
    return Geometry(*(np.asarray(measure, np.float32) for measure in measures))
