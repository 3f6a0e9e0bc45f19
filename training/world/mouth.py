"""The mouth: its outlines while it speaks, and how it is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .figure import Figure
from .people import Person
from .shapes import Canvas, Colour, darker, lighter, mix
from .visemes import Mouth

ACROSS = np.linspace(-1, 1, 25)
MIDDLE = len(ACROSS) // 2
CHIN_FOLLOWS = 0.5
"""How far the chin drops for an opening of 1."""
LIFT = 0.04
"""How far the lips are in front of the face."""
INSIDE, TEETH, TONGUE = (58, 16, 24), (250, 246, 236), (196, 84, 90)


@dataclass(frozen=True)
class Lips:
    """Lines across the mouth, (25, 2) each, in half face heights, from the upper lip down."""

    top: np.ndarray
    inner_top: np.ndarray
    inner_bottom: np.ndarray
    bottom: np.ndarray


def chin_drop(person: Person, mouth: Mouth) -> float:
    return CHIN_FOLLOWS * float(mouth.opening) * person.mouth_open


def lips_of(person: Person, mouth: Mouth) -> Lips:
    opening, width, rounding = float(mouth.opening), float(mouth.width), float(mouth.rounding)
    half = person.face * person.mouth_width * (1 + 0.13 * max(width, 0) - 0.42 * rounding)
    half *= 1 - 0.1 * opening * (1 - rounding)
    height = opening * person.mouth_open
    bow = 1 - ACROSS**2
    profile = bow ** (0.75 - 0.2 * rounding)
    fullness = (1 + 0.25 * rounding) * (1 - 0.15 * opening)
    cleft = 1 - 0.22 * np.exp(-((ACROSS / 0.13) ** 2)) + 0.1 * np.exp(-((ACROSS / 0.3) ** 4))
    line = person.mouth_height - (person.smile + 0.015 * width) * ACROSS**2
    inner_top = line - 0.2 * height * profile
    inner_bottom = line + 0.8 * height * profile
    top = inner_top - person.upper_lip * fullness * bow**0.8 * cleft
    bottom = inner_bottom + person.lower_lip * fullness * bow**0.65
    lines = (top, inner_top, inner_bottom, bottom)
    return Lips(*(np.stack([half * ACROSS, line], 1) for line in lines))


def draw_mouth(canvas: Canvas, place: Figure, person: Person, mouth: Mouth) -> np.ndarray:
    """Draw the mouth. Returns the lines of `Lips` in pixels, (4, 25, 2)."""
    lips = lips_of(person, mouth)
    placed = np.stack([place.head(line, 1, LIFT) for line in vars(lips).values()])
    top, inner_top, inner_bottom, bottom = placed
    canvas.fill(_between(top, bottom), mix(person.lips, (60, 10, 20), 0.12))
    canvas.fill(_between(inner_bottom, bottom), lighter(person.lips, 0.1))
    gloss = [(share * bottom + (1 - share) * inner_bottom)[8:17] for share in (0.35, 0.62)]
    canvas.fill(_between(*gloss), lighter(person.lips, 0.28))
    thin = np.array((0, 0.012 * place.unit))
    canvas.fill(_between(inner_top - thin, inner_bottom + thin), darker(person.lips, 0.45))
    if mouth.opening > 0:
        canvas.fill(_between(inner_top, inner_bottom), INSIDE)
        for edge, depth, colour in _tongue_and_teeth(lips, mouth):
            other = edge + np.stack([np.zeros_like(depth), depth], 1)
            shape = _between(place.head(edge, 1, LIFT), place.head(other, 1, LIFT))
            canvas.fill(shape, colour)
    return placed


def _tongue_and_teeth(lips: Lips, mouth: Mouth) -> Iterator[tuple[np.ndarray, np.ndarray, Colour]]:
    """Their edge of the mouth, how far they reach below it (25,), and their colour."""
    gap = (lips.inner_bottom - lips.inner_top)[:, 1]
    tongue = 0.6 * max(gap[MIDDLE] - 0.1, 0) * (1 - ACROSS**2 / 0.8).clip(0)
    teeth = 0.075 * (1 - 0.8 * float(mouth.rounding))
    yield lips.inner_bottom, -np.minimum(tongue, gap), TONGUE
    yield lips.inner_top, np.minimum(teeth, 0.5 * gap), TEETH


def _between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([one, other[::-1]])
