"""Eyes and brows."""

import numpy as np

from .figure import Figure
from .people import Person
from .shapes import Canvas, curve, darker, ellipse, mix, stroke

LID = np.linspace(-1, 1, 17)
LASHES, PUPIL = (36, 24, 26), (22, 14, 16)


def draw_brows(canvas: Canvas, place: Figure, person: Person, raised: float) -> None:
    colour = darker(person.hair_colour, 0.35)
    if person.hair == "bald" or sum(colour) > 420:
        colour = mix(colour, darker(person.skin, 0.6), 0.6)
    gap, size = person.eye_gap, person.eye_size
    base = person.eye_height - 0.22 - 0.045 * raised
    arch, tilt = person.brow_arch, person.brow_tilt
    across = gap + size * np.array((-1.1, -0.3, 0.6, 1.3))
    down = base + np.array((0.03, -0.7 * arch, -arch, 0.05)) + tilt * np.array((1, 0.3, -0.5, -1))
    line = curve(np.stack([across, down], 1), closed=False)
    for side in (-1, 1):
        placed = place.head(line * (side, 1), 1)
        canvas.fill(stroke(placed, person.brow * place.unit, 0.55), colour)


def lids(person: Person, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The upper and lower edge of the right eye, (17, 2) each; open by `share`."""
    height = person.eye_size * person.eye_open
    across = person.eye_gap + person.eye_size * LID
    slope = person.eye_height - person.eye_tilt * LID
    lower = slope + 0.75 * height * (1 - np.abs(LID) ** 2.4)
    upper = slope - 1.15 * height * (1 - np.abs(LID - 0.08 * (1 - LID**2)) ** 2.2) ** 0.85
    upper = lower + (upper - lower) * share
    return np.stack([across, upper], 1), np.stack([across, lower], 1)


def draw_eyes(
    canvas: Canvas, place: Figure, person: Person, share: float, look: tuple[float, float]
) -> np.ndarray:
    """Draw both eyes. Returns how far they are open, (2,) in pixels, the picture's left first."""
    return np.array([_draw_eye(canvas, place, person, share, look, side) for side in (-1, 1)])


def _draw_eye(
    canvas: Canvas,
    place: Figure,
    person: Person,
    share: float,
    look: tuple[float, float],
    side: int,
) -> float:
    upper, lower = lids(person, share)
    height = person.eye_size * person.eye_open
    flip = np.array((side, 1))
    top, bottom = place.head(upper * flip, 1), place.head(lower * flip, 1)
    white = mix((246, 242, 236), person.skin, 0.18)
    canvas.fill(np.concatenate([top, bottom[::-1]]), white)

    x = person.eye_gap + side * look[0] * 0.35 * person.eye_size
    y = person.eye_height + (0.35 * look[1] - 0.15) * height
    ring = darker(person.iris, 0.55)
    for radius, colour in ((1.02, ring), (0.86, person.iris), (0.51, PUPIL)):
        disc = ellipse(x, y, radius * height, radius * height)
        ends = [np.interp(disc[:, 0], *lid.T) for lid in (upper, lower)]
        disc[:, 1] = np.clip(disc[:, 1], *ends)
        canvas.fill(place.head(disc * flip, 1), colour)
    if share > 0.6:
        towards = 0.3 * height * np.sign(person.light)
        glint = ellipse(side * x + towards, y - 0.35 * height, 0.2 * height, 0.2 * height, 12)
        canvas.fill(place.head(glint, 1), (255, 255, 255))

    shade = top + np.array((0, 0.22 * height * place.unit * share))
    canvas.fill(np.concatenate([top, shade[::-1]]), mix(white, (90, 60, 70), 0.6))
    lash = person.lashes * place.unit
    canvas.fill(stroke(top, 1.6 * lash, 0.5), LASHES)
    if person.lashes > 0.028:
        wing = place.head([upper[-1] * flip, (upper[-1] + (0.07, -0.05)) * flip], 1)
        canvas.fill(stroke(wing, 1.1 * lash, 0.4), LASHES)
    canvas.fill(stroke(bottom, 0.016 * place.unit, 0.6), darker(person.skin, 0.6))
    crease = place.head((upper - (0, 0.06 + 0.02 * share)) * flip, 1)[2:-2]
    canvas.fill(stroke(crease, 0.018 * place.unit, 0.8), darker(person.skin, 0.45))
    return np.hypot(*(bottom - top)[len(LID) // 2])
