"""Hair, as patches behind the head and over it."""

from functools import lru_cache

import numpy as np

from .figure import Patch
from .hats import COVERING, Layers
from .people import Person
from .shapes import Colour, curve, darker, ellipse, lighter, mirrored, mix, points, stroke

HAIRLINES = {
    "round": "-.92 -.3  -.8 -.64  -.45 -.8  0 -.83  .45 -.8  .8 -.64  .92 -.3",
    "square": "-.93 -.3  -.87 -.66  -.6 -.79  0 -.8  .6 -.79  .87 -.66  .93 -.3",
    "peak": "-.92 -.3  -.82 -.66  -.42 -.86  0 -.76  .42 -.86  .82 -.66  .92 -.3",
    "high": "-.93 -.3  -.84 -.7  -.6 -.98  -.36 -.98  0 -.86  .36 -.98  .6 -.98  .84 -.7  .93 -.3",
}
"""Points from temple to temple: x in shares of the face's width, y in half face heights."""
PARTED = frozenset(("parted", "quiff", "bob", "long", "wavy"))
LENGTHS = {"bob": 0.85, "fringe": 1.2, "wavy": 1.55, "long": 1.8}
PULLED = frozenset(("bun", "tails"))
SMOOTH = frozenset(("buzz", "afro", "curly"))
"""Hair without strands."""


def tone(colour: Colour, light: float) -> Colour:
    """The colour, lighter if `light` is above 0, darker below."""
    return lighter(colour, light) if light > 0 else darker(colour, -light)


@lru_cache(maxsize=64)
def hair(person: Person) -> Layers:
    """Patches behind the head, and over it."""
    if person.hair == "bald" or person.hat == "scarf":
        return (), ()
    if person.hair == "rim":
        return (), tuple(_rim(person))
    generator = np.random.default_rng(person.key)
    covered = person.hat in COVERING
    flat = person.hair in ("buzz", "receding")
    up = 0.02 if flat or covered else 0.05 + 0.13 * person.hair_volume
    out = 0.015 if flat else 0.05 + 0.04 * person.hair_volume
    colour = person.hair_colour
    if person.hair == "buzz":
        colour = mix(person.skin, colour, 0.72)
    line = _hairline(person, generator)
    behind: list[Patch] = []
    front = [Patch(_crown(person, line, up, out), colour, 0.4)]
    if person.hair not in SMOOTH:
        front += _strands(person, line, up)
    if person.hair in LENGTHS:
        behind.append(_back(person, up))
        front += _locks(person)
    elif person.hair == "bun":
        behind += _bun(person, up)
    elif person.hair == "tails":
        behind += _tails(person)
    elif person.hair in ("curly", "afro") and not covered:
        behind += _puff(person, up, generator)
        front += _curls(person, line, up, generator)
    return tuple(behind), tuple(front)


def _hairline(person: Person, generator: np.random.Generator) -> np.ndarray:
    """The hairline from the left temple to the right one."""
    if person.hair in PARTED:
        part = generator.uniform(0.1, 0.6)
        left = [(-0.93, -0.3), (-0.86, -0.56), (-part - 0.2, -0.84), (-part, -0.95)]
        right = [(0.2 - part, -0.86), (0.3, -0.7), (0.75, -0.55), (0.94, -0.28)]
        line = np.array(left + right)
        line = line if person.hair_side > 0 else line[::-1] * (-1, 1)
    elif person.hair == "fringe":
        x = np.linspace(-0.9, 0.9, 7)
        y = person.eye_height - 0.31 + 0.05 * x**2 + generator.uniform(-0.02, 0.02, 7)
        line = np.concatenate([[(-0.95, -0.1)], np.stack([x, y], 1), [(0.95, -0.1)]])
    elif person.hair == "spikes":
        x = np.linspace(-0.8, 0.8, 9)
        y = np.resize((-0.84, -0.62), 9) + generator.uniform(-0.06, 0.04, 9)
        line = np.concatenate([[(-0.93, -0.3)], np.stack([x, y], 1), [(0.93, -0.3)]])
    else:
        shape = str(generator.choice(("round", "square", "peak")))
        line = points(HAIRLINES["high" if person.hair == "receding" else shape])
    return line * (person.face, 1)


def _crown(person: Person, line: np.ndarray, up: float, out: float) -> np.ndarray:
    """The hair on top: the silhouette from ear to ear, and back along the hairline."""
    w, low = person.face, 0.02 if person.hair in PULLED or person.hair in LENGTHS else -0.06
    side = [(w + 0.8 * out, low - 0.06), (w + out, -0.42), (0.95 * w + out / 2, -0.84 - up / 2)]
    right = np.array([*side, (0.56 * w, -1.14 - up)])
    outer = np.concatenate([right * (-1, 1), [(0, -1.2 - up)], right[::-1]])
    lean = {"quiff": 0.16, "parted": 0.06}.get(person.hair, 0)
    outer[3:6] += np.outer((0.6, 0.8, 0.6), (person.hair_side * lean, -lean))
    burn = np.array([(0.97 * w, low), (0.94 * w, low - 0.1)])
    inner = np.concatenate([burn * (-1, 1), line, burn[::-1]])
    if person.hair != "spikes":
        inner = curve(inner, False)
    return np.concatenate([curve(outer, False), inner[::-1]])


def _strands(person: Person, line: np.ndarray, up: float) -> list[Patch]:
    """Strokes from the hairline over the crown, lighter on the side of the light."""
    roots = curve(line, False)
    patches = []
    for share in (0.16, 0.3, 0.44, 0.58, 0.72, 0.86):
        x, y = roots[round(share * (len(roots) - 1))]
        top = 0.75 * x + 0.1 * person.face * person.hair_side
        end = (top, -1.14 - up + 0.35 * (x / person.face) ** 2)
        middle = ((x + top) / 2 + 0.1 * x, (y + end[1]) / 2 - 0.03)
        strand = stroke(curve([(x, y - 0.03), middle, end], False), 0.06, 1)
        lit = 0.09 if (share - 0.5) * person.light > 0 else -0.13
        patches.append(Patch(strand, tone(person.hair_colour, lit), 0.4))
    return patches


def _rim(person: Person) -> list[Patch]:
    """Hair above the ears only."""
    side = curve(points("1 -.62  1.09 -.4  1.09 -.1  .96 .03  .9 -.25  .9 -.5", person.face))
    return [Patch(side * (flip, 1), person.hair_colour) for flip in (-1, 1)]


def _fall(person: Person) -> tuple[float, float, float]:
    """How far long hair falls, stands off the face, and waves."""
    longer = 0.4 * (person.hair_volume > 0.5) if person.hair == "fringe" else 0
    wave = 0.07 if person.hair == "wavy" else 0.0
    return LENGTHS[person.hair] + longer, 0.12 + 0.12 * person.hair_volume, wave


def _back(person: Person, up: float) -> Patch:
    """Long hair behind the head."""
    low, off, wave = _fall(person)
    w = person.face
    top = [(0, -1.2 - up), (0.7 * w, -1.06 - up), (w + off, -0.5), (w + off, 0.1)]
    ends = [(w + off - wave, low - 0.1), (0.9 * w, low + 0.06), (0, low)]
    back = mirrored([*top, (w + off + wave, 0.05 + low / 2), *ends])
    return Patch(curve(back), tone(person.hair_colour, -0.3), lift=-0.25)


def _locks(person: Person) -> list[Patch]:
    """Long hair beside the face."""
    low, off, wave = _fall(person)
    w, low, off = person.face, low - 0.05, off + 0.02
    outer = [(0.74 * w, -0.72), (w + 0.6 * off, -0.5), (w + off, 0), (w + off + wave, 0.35)]
    ends = [(w + off - wave, 0.17 + low / 2), (w + off, low - 0.12), (w, low)]
    inner = [(0.92 * w, low - 0.2), (0.93 * w + wave / 2, 0.4), (0.95 * w, 0.05), (0.89 * w, -0.35)]
    lock = curve(outer + ends + inner)
    streak = curve([(w, -0.3), (w + 0.6 * off, 0.2), (w + 0.5 * off, low - 0.3)], False)
    shapes = ((lock, -0.08), (stroke(streak, 0.06, 1), 0.1))
    return [
        Patch(shape * (side, 1), tone(person.hair_colour, lit), 0.2)
        for side in (-1, 1)
        for shape, lit in shapes
    ]


def _bun(person: Person, up: float) -> list[Patch]:
    ball, gloss = ellipse(0, -1.42 - up, 0.34, 0.28), ellipse(0.05, -1.48 - up, 0.2, 0.12)
    colour = person.hair_colour
    return [
        Patch(ball, tone(colour, -0.12), lift=-0.2),
        Patch(gloss, tone(colour, 0.08), lift=-0.2),
    ]


def _tails(person: Person) -> list[Patch]:
    w = person.face
    tail = points(".02 -.35  .26 -.42  .38 0  .3 .6  .14 .95  .12 .3  .04 -.05")
    shapes = (
        (curve(tail + np.array((w, 0))), tone(person.hair_colour, -0.1)),
        (ellipse(w + 0.1, -0.3, 0.06, 0.1), person.cloth_two),
    )
    return [
        Patch(shape * (side, 1), colour, lift=-0.2) for side in (-1, 1) for shape, colour in shapes
    ]


def _puff(person: Person, up: float, generator: np.random.Generator) -> list[Patch]:
    """The round outline of curls, or of an afro."""
    w, colour = person.face, person.hair_colour
    if person.hair == "afro":
        angles = np.linspace(0, 2 * np.pi, 44, endpoint=False)
        reach = (1.02 + 0.3 * person.hair_volume) * (1 + generator.normal(0, 0.012, 44))
        ring = np.stack([np.cos(angles) * (w + 0.28), np.sin(angles)], 1) * reach[:, None]
        return [Patch(curve(ring - (0, 0.42), steps=3), tone(colour, -0.04), lift=-0.1)]
    angles = np.linspace(-0.06, 1.06, 15) * np.pi
    across, down = w + 0.03 + up / 2, 0.92 + up
    return [
        Patch(ellipse(x, y, r, r, 16), tone(colour, lit), lift=-0.1)
        for x, y, r, lit in zip(
            -np.cos(angles) * across,
            -0.3 - np.sin(angles) * down,
            generator.uniform(0.15, 0.23, 15),
            generator.uniform(-0.12, -0.02, 15),
            strict=True,
        )
    ]


def _curls(
    person: Person, line: np.ndarray, up: float, generator: np.random.Generator
) -> list[Patch]:
    """Curls along the hairline and rings on top."""
    w, colour = person.face, person.hair_colour
    sizes = (0.09, 0.13) if person.hair == "curly" else (0.05, 0.07)
    patches = []
    for x, y in curve(line, False)[8:-8:4]:
        radius = generator.uniform(*sizes)
        curl = ellipse(x, y - 0.05, radius, radius, 16)
        patches.append(Patch(curl, tone(colour, generator.uniform(-0.1, 0.06)), 0.5))
    for x, y in generator.uniform((-0.7 * w, -1.1 - up), (0.7 * w, -0.9), (9, 2)):
        arc = stroke(ellipse(x, y, 0.06, 0.05, 16)[8:], 0.026, 0.8)
        patches.append(Patch(arc, tone(colour, 0.1), 0.4))
    return patches
