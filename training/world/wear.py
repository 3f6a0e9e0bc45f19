"""What is on a face: beard, glasses, and the lines of age."""

import numpy as np

from .face import lowered
from .figure import Figure
from .people import Person
from .shapes import Canvas, curve, darker, mirrored, mix, stroke


def draw_beard(canvas: Canvas, place: Figure, person: Person, drop: float) -> None:
    """Beard and moustache. The mouth is drawn over them; `drop` lowers the chin."""
    w, mouth, nose = person.face, person.mouth_height, person.nose_length
    colour = mix(darker(person.hair_colour, 0.2), person.skin, 0.08)
    half = person.mouth_width * w
    if person.beard == "full":
        beard = curve(
            mirrored(
                [
                    *((0, nose + 0.1), (0.2, nose + 0.09), (half * 1.15, mouth - 0.1)),
                    *((0.72 * w, 0.3), (0.9 * w, 0.05), (1.0 * w, -0.08)),
                    *((person.cheek * w * 1.01, 0.3), (person.jaw * w * 1.02, 0.64)),
                    *((person.chin * w * 1.05, 0.97), (0, 1.08)),
                ]
            )
        )
        canvas.fill(place.head(lowered(beard, drop), 0.15), colour)
    if person.beard == "goatee":
        tuft = curve(
            mirrored([(0, mouth), (half * 0.8, mouth + 0.02), (half * 0.85, 0.85), (0, 1.04)])
        )
        canvas.fill(place.head(lowered(tuft, drop), 0.5), colour)
    if person.beard in ("full", "goatee", "moustache"):
        lip = mouth - person.upper_lip
        moustache = curve(
            mirrored(
                [
                    *((0, nose + 0.1), (half * 0.5, nose + 0.11), (half * 1.12, lip + 0.03)),
                    *((half * 0.6, lip + 0.03), (0, lip + 0.03)),
                ]
            )
        )
        canvas.fill(place.head(moustache, 1, 0.03), darker(colour, 0.12))


def draw_lines(canvas: Canvas, place: Figure, person: Person) -> None:
    """Folds beside the mouth, under the eyes and on the forehead."""
    colour = mix(person.skin, darker(person.skin, 0.42), person.age)
    eye, gap = person.eye_height, person.eye_gap
    fold = curve([(person.nose + 0.03, person.nose_length), (0.3, 0.42), (0.34, 0.55)], False)
    bag = curve([(gap - 0.12, eye + 0.14), (gap, eye + 0.18), (gap + 0.14, eye + 0.14)], False)
    for side in (-1, 1):
        for line in (fold, bag):
            canvas.fill(stroke(place.head(line * (side, 1), 1), 0.022 * place.unit, 0.9), colour)
    if person.age > 0.8:
        for y in (-0.56, -0.66):
            line = curve([(-0.3, y), (0, y - 0.02), (0.3, y)], False)
            canvas.fill(stroke(place.head(line, 1), 0.02 * place.unit, 0.9), colour)


def draw_glasses(canvas: Canvas, place: Figure, person: Person) -> None:
    gap, eye = person.eye_gap, person.eye_height + 0.02
    size = min(1.5 * person.eye_size, gap - 0.05)
    power, tall = {"round": (1.0, 0.95), "half": (0.67, 0.72), "square": (0.4, 0.72)}[
        person.glasses
    ]
    angles = np.linspace(0, 2 * np.pi, 33)[16 if person.glasses == "half" else 0 :]
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    ring = np.sign(circle) * np.abs(circle) ** power * (size, size * tall) + (gap, eye)
    temple = np.array([(gap + size, eye - 0.05), (person.face, eye - 0.08)])
    bridge = curve([(size - gap, eye - 0.02), (0, eye - 0.07), (gap - size, eye - 0.02)], False)
    parts = [place.head(bridge, 1, 0.1)]
    for side in (-1, 1):
        parts += [place.head(ring * (side, 1), 1, 0.1), place.head(temple * (side, 1), 0.6)]
    for part in parts:
        canvas.fill(stroke(part, 0.034 * place.unit, 0), person.rims)
