"""Neck, shoulders and clothes."""

from functools import lru_cache

import numpy as np

from .figure import Figure, Patch
from .people import Person
from .shapes import Canvas, Colour, curve, darker, ellipse, lighter, mix, points, symmetric

BELOW = 4.0
"""A depth that is below the picture."""


def draw_body(canvas: Canvas, place: Figure, person: Person) -> None:
    neck = neck_of(person)
    shoulders, *garment = clothes(person)
    canvas.fill(place.body(shoulders.points), shoulders.colour)
    top = place.head([(-neck, 0.3), (neck, 0.3)])
    bottom = place.body(points("1.05 1.5  .6 1.8  -.6 1.8  -1.05 1.5", neck))
    canvas.fill(np.concatenate([top, bottom]), bare(person))
    shade = symmetric("0 .9  .9 .7  1 1.05  0 1.3", neck)
    canvas.fill(place.head(shade, lift=-0.1), darker(person.skin, 0.34))
    for patch in garment:
        canvas.fill(place.body(patch.points), patch.colour)


def neck_of(person: Person) -> float:
    """Half the width of the neck."""
    return person.face * (0.5 + 0.14 * person.jaw)


def bare(person: Person) -> Colour:
    """The skin below the face."""
    return darker(person.skin, 0.1)


@lru_cache(maxsize=64)
def clothes(person: Person) -> tuple[Patch, ...]:
    """Patches of the body: the shoulders, then what is over the neck."""
    neck, wide, cloth = neck_of(person), person.shoulders, person.cloth
    slope = [(0, 1.42), (1.2 * neck, 1.3), (0.62 * wide, 1.52), (wide, 1.85), (1.1 * wide, 2.6)]
    right = curve(slope, False)
    hem = np.array([(1.1 * wide, BELOW)])
    half = np.concatenate([right, hem])
    shoulders = Patch(np.concatenate([half, half[::-1] * (-1, 1)]), cloth)
    fold = curve([(0.78 * wide, 1.9), (0.72 * wide, 2.5), (1.0, 3.4), (0.86 * wide, 2.6)])
    shade = mix(cloth, (30, 20, 40), 0.18)
    return shoulders, *_garment(person), *_both(fold, shade)


def _both(shape: np.ndarray, colour: Colour) -> list[Patch]:
    return [Patch(shape * (side, 1), colour) for side in (-1, 1)]


def _garment(person: Person) -> list[Patch]:
    neck, cloth, second = neck_of(person), person.cloth, person.cloth_two
    edge = darker(cloth, 0.25)

    def round_shape(text: str, colour: Colour) -> Patch:
        return Patch(symmetric(text, neck), colour)

    def sharp(text: str, colour: Colour) -> Patch:
        return Patch(points(text, neck), colour)

    match person.garment:
        case "round neck":
            return [
                round_shape("0 1.3  1.28 1.26  .8 1.66  0 1.8", edge),
                round_shape("0 1.25  1.15 1.24  .72 1.6  0 1.72", bare(person)),
            ]
        case "v neck":
            return [
                sharp("-1.3 1.28  1.3 1.28  0 2.25", edge),
                sharp("-1.15 1.26  1.15 1.26  0 2.12", bare(person)),
            ]
        case "turtleneck":
            return [
                round_shape("0 1.2  1.15 1.12  1.5 1.5  0 2.1", cloth),
                round_shape("0 1.1  1.12 1.04  1.2 1.36  0 1.5", edge),
                round_shape("0 1.1  1.12 1.04  1.17 1.28  0 1.4", lighter(cloth, 0.12)),
            ]
        case "hood":
            cords = [ellipse(side * 0.28, 2.1, 0.025, 0.3) for side in (-1, 1)]
            return [
                round_shape("0 1.35  1.7 1.2  1.5 1.7  0 2", edge),
                round_shape("0 1.25  1.05 1.22  .6 1.6  0 1.75", bare(person)),
                *(Patch(cord, lighter(second, 0.3)) for cord in cords),
            ]
    suit = person.garment == "suit"
    shirt = lighter(second, 0.6) if suit else cloth
    patches = [
        sharp(f"-1.2 1.3  1.2 1.3  .87 {BELOW}  -.87 {BELOW}", shirt),
        sharp("-1 1.28  1 1.28  0 1.75", bare(person)),
        *_both(points("1.05 1.2  1.3 1.36  .65 1.98  0 1.7", neck), lighter(shirt, 0.25)),
    ]
    if suit:
        lapel = points("1.3 1.3  1.75 1.48  1.09 2.4  .43 2.7", neck)
        patches.append(sharp("-.22 1.7  .22 1.7  .35 3  -.35 3", darker(second, 0.2)))
        patches += _both(lapel, darker(cloth, 0.3))
    return patches
