"""Hats and head scarves, as patches behind the head and over it."""

from functools import lru_cache

import numpy as np

from .figure import Patch
from .people import Person
from .shapes import curve, darker, ellipse, lighter, points, stroke, symmetric

Layers = tuple[tuple[Patch, ...], tuple[Patch, ...]]
COVERING = frozenset(("beanie", "cap", "brim"))
"""Hats that press the hair on top flat."""


@lru_cache(maxsize=64)
def hat(person: Person) -> Layers:
    """Patches behind the head, and over it."""
    makers = {"beanie": _beanie, "cap": _cap, "brim": _brim, "scarf": _scarf, "band": _band}
    return makers[person.hat](person) if person.hat else ((), ())


def _beanie(person: Person) -> Layers:
    w, colour = person.face, person.hat_colour
    knit = symmetric("0 -1.46  .55 -1.38  .98 -1.05  1.13 -.62  .6 -.72  0 -.76", w)
    cuff = symmetric("0 -.98  .6 -.94  1.14 -.8  1.16 -.56  .6 -.68  0 -.72", w)
    ball = Patch(ellipse(0, -1.52, 0.17, 0.16), lighter(colour, 0.15), lift=-0.1)
    return (ball,), (Patch(knit, colour, 0.2), Patch(cuff, darker(colour, 0.28), 0.4))


def _cap(person: Person) -> Layers:
    w, colour = person.face, person.hat_colour
    dark = darker(colour, 0.28)
    shell = symmetric("0 -1.46  .55 -1.38  .98 -1.05  1.13 -.62  .6 -.74  0 -.78", w)
    panel = curve([(-0.1, -1.45), (0.25 * person.hair_side, -1.2), (0, -0.8)], False)
    seam = symmetric("0 -.9  .55 -.87  1.11 -.68  1.08 -.6  .5 -.7  0 -.72", w)
    visor = symmetric("0 -.86  .55 -.83  .9 -.72  .86 -.58  .45 -.53  0 -.51", w)
    return (), (
        Patch(shell, colour, 0.2),
        Patch(stroke(panel, 0.03, 0.5), dark, 0.2),
        Patch(seam, dark, 0.3),
        Patch(visor, lighter(colour, 0.15), 0.8),
    )


def _brim(person: Person) -> Layers:
    w, colour = person.face, person.hat_colour
    rim = ellipse(0, -0.82, 1.75 * w, 0.2, 40)
    top = symmetric("0 -1.5  .5 -1.5  .78 -1.3  .9 -.84  0 -.72", w)
    band = symmetric("0 -.96  .5 -.98  .86 -1.04  .9 -.84  .5 -.76  0 -.73", w)
    return (), (
        Patch(rim, darker(colour, 0.28), 0.2),
        Patch(rim - (0, 0.035), colour, 0.2),
        Patch(top, colour, 0.2),
        Patch(band, darker(person.cloth_two, 0.25), 0.3),
    )


def _scarf(person: Person) -> Layers:
    w, colour = person.face, person.hat_colour
    dark = darker(colour, 0.28)
    back = symmetric("0 -1.36  .7 -1.22  1.27 -.6  1.32 .3  1.27 1  1.4 1.7  0 2", w)
    hood = symmetric("0 -1.38  .7 -1.24  1.24 -.6  1.27 .2  1.02 .9  .55 1.4  0 1.5", w)
    face = symmetric("0 -.88  .55 -.82  .9 -.45  .97 .1  .93 .6  .6 1.08  0 1.24", w)
    ring = np.concatenate([hood, hood[:1], face[:1], face[::-1]])
    pleat = curve(points("1.13 .3  .95 .9  .3 1.36", w * person.hair_side), False)
    return (Patch(back, dark, lift=-0.1),), (
        Patch(ring, colour, 0.2),
        Patch(stroke(pleat, 0.05, 0.9), dark, 0.2),
    )


def _band(person: Person) -> Layers:
    strip = "0 -1.04  .6 -.98  1.11 -.62  1.09 -.42  .62 -.8  0 -.88"
    return (), (Patch(symmetric(strip, person.face), person.hat_colour, 0.4),)
