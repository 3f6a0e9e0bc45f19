"""The face: skin, ears and nose."""

from functools import lru_cache

import numpy as np
from PIL import Image

from .figure import Figure
from .people import Person
from .shapes import Canvas, Colour, curve, darker, ellipse, lighter, mirrored, mix, points, stroke

REACH = 1.4
"""The skin's texture shows the head from -REACH to REACH."""
TEXTURE = 112
"""Pixels of its sides."""


def outline(person: Person, drop: float) -> np.ndarray:
    """The head without hair, (n, 2), the chin lowered by `drop`."""
    w = person.face
    skull = [(0, -1.2), (0.52 * w, -1.13), (0.86 * w, -0.85), (w, -0.4), (w, 0)]
    chin = [(person.jaw * w, 0.62), (person.chin * w, 0.92), (0, 1)]
    return lowered(curve(mirrored([*skull, (person.cheek * w, 0.3), *chin])), drop)


def lowered(shape: np.ndarray, drop: float) -> np.ndarray:
    """Points of the head when the jaw opens. Those at the chin move down by `drop`."""
    down = drop * np.clip(shape[:, 1] / 0.8, 0, 1) ** 2
    return shape + np.stack([np.zeros_like(down), down], 1)


@lru_cache(maxsize=64)
def skin_texture(person: Person) -> Image.Image:
    """The skin over the whole head, lit from one side."""
    y, x = np.mgrid[-REACH : REACH : TEXTURE * 1j, -REACH : REACH : TEXTURE * 1j]

    def spot(across: float, down: float, wide: float, high: float) -> np.ndarray:
        return np.exp(-(((np.abs(x) - across) / wide) ** 2) - ((y - down) / high) ** 2)

    skin = np.zeros((TEXTURE, TEXTURE, 3)) + person.skin

    def tint(colour: Colour, share: np.ndarray) -> None:
        skin[:] = skin + (np.array(colour) - skin) * np.clip(share, 0, 1)[..., None]

    across, down = x / person.face, y / 1.2
    facing = np.sqrt(np.clip(1 - across**2 - down**2, 0, 1))
    lit = person.light * 0.6 * across - 0.35 * down + 0.72 * facing
    tint(darker(person.skin, 0.5), person.shading * np.clip(0.55 - lit, 0, 1) * 0.75)
    tint(lighter(person.skin, 0.5), person.shading * np.clip(lit - 0.6, 0, 1) * 0.8)
    blush, pale = mix(person.skin, (214, 60, 60), 0.45), min(sum(person.skin) / 560, 1) ** 2
    tint(blush, person.blush * pale * spot(person.face * 0.62, 0.26, 0.2, 0.15))
    tint(blush, 0.3 * pale * spot(0, person.nose_length, 0.16, 0.1))
    eye, hollow = person.eye_height, darker(person.skin, 0.4)
    tint(hollow, 0.8 * spot(person.eye_gap, eye - 0.05, person.eye_size * 1.25, 0.15))
    if person.shadow:
        tint(person.shadow, 0.6 * spot(person.eye_gap, eye - 0.06, person.eye_size, 0.1))
    tint(hollow, 0.5 * spot(0, person.mouth_height + person.lower_lip + 0.09, 0.16, 0.05))
    glow = mix(person.skin, (255, 222, 184), 0.4)
    tint(glow, 0.6 * spot(0, eye + 0.15, 0.06, 0.3))
    tint(glow, 0.55 * spot(person.face * 0.55, 0.13, 0.17, 0.1))
    generator = np.random.default_rng(person.key)
    for fx, fy in generator.normal((0, 0.16), (0.33, 0.1), (round(60 * person.freckles), 2)):
        dot = np.exp(-((x - fx) ** 2 + (y - fy) ** 2) / 0.018**2)
        tint(mix(person.skin, (140, 70, 40), 0.6), 0.7 * dot)
    if person.beard == "stubble":
        jaw = np.clip((y - 0.32 + 0.25 * np.abs(across) ** 0.7 * (y < 0.9)) / 0.25, 0, 1)
        lips = spot(0, person.mouth_height, 0.3, 0.12)
        tint(mix(person.skin, person.hair_colour, 0.55), 0.55 * jaw * (1 - lips))
    return Image.fromarray(skin.round().clip(0, 255).astype(np.uint8))


def draw_skin(canvas: Canvas, place: Figure, person: Person, edge: np.ndarray) -> None:
    """Fill the head's placed outline with its skin."""
    corner = np.floor(edge.min(0)).astype(int)
    width, height = np.ceil(edge.max(0)).astype(int) - corner + 1
    matrix, origin = place.affine(lift=0.2)
    inverse = np.linalg.inv(matrix)
    start = inverse @ (corner - origin)
    scale = TEXTURE / (2 * REACH)
    rows = np.concatenate([inverse, start[:, None] + REACH], 1) * scale
    texture = skin_texture(person).transform(
        (int(width), int(height)),
        Image.Transform.AFFINE,
        rows.ravel().tolist(),
        Image.Resampling.BILINEAR,
    )
    canvas.paint(edge, texture, tuple(corner.tolist()))
    if person.outlined:
        ring = np.concatenate([edge, edge[:1]])
        canvas.fill(stroke(ring, 0.022 * place.unit, 0), darker(person.skin, 0.6))


def draw_ears(canvas: Canvas, place: Figure, person: Person) -> None:
    for side in (-1, 1):
        across, size = side * person.face, person.ear
        lobe = ellipse(across * 1.02, 0.02, 0.12 * size, 0.21 * size)
        shade = 0.12 if side * person.light > 0 else 0.2
        if person.outlined:
            rim = ellipse(across * 1.02, 0.02, 0.12 * size + 0.018, 0.21 * size + 0.018)
            canvas.fill(place.head(rim, lift=-0.12), darker(person.skin, 0.6))
        canvas.fill(place.head(lobe, lift=-0.12), darker(person.skin, shade))
        inner = ellipse(across * 1.04, 0.02, 0.06 * size, 0.13 * size)
        canvas.fill(place.head(inner, lift=-0.12), darker(person.skin, shade + 0.16))
        if person.earrings:
            drop = ellipse(across * 1.03, 0.3 * size, 0.045, 0.06)
            canvas.fill(place.head(drop, lift=-0.1), (236, 200, 110))


def draw_nose(canvas: Canvas, place: Figure, person: Person) -> None:
    wide, tip = person.nose, person.nose_length
    shaded = -np.sign(person.light) or 1
    shadow = darker(person.skin, 0.2 + 0.1 * person.shading)
    deep = darker(person.skin, 0.55)
    if person.nose_style == 0:
        ridge = [(0.045, person.eye_height + 0.05), (0.05, tip - 0.2), (0.95 * wide, tip - 0.03)]
        under = [(0.6 * wide, tip + 0.06), (0.02, tip + 0.03), (0.04, tip - 0.12)]
        canvas.fill(place.head(curve(ridge + under) * (shaded, 1), 1, 0.08), shadow)
    elif person.nose_style == 1:
        line = curve([(0.06, tip - 0.25), (wide, tip - 0.02), (0.5 * wide, tip + 0.05)], False)
        placed = place.head(line * (shaded, 1), 1, 0.08)
        canvas.fill(stroke(placed, 0.03 * place.unit, 0.7), deep)
    wings = points("-1 -.04  -.7 .04  -.25 .03  0 .055  .25 .03  .7 .04  1 -.04", wide)
    base = curve(wings, False) + np.array((0, tip))
    canvas.fill(stroke(place.head(base, 1, 0.1), 0.03 * place.unit, 0.6), shadow)
    for side in (-1, 1):
        nostril = ellipse(side * wide * 0.48, tip + 0.03, wide * 0.26, 0.026, 12)
        canvas.fill(place.head(nostril, 1, 0.1), deep)
