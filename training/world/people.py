"""People: all features of a drawn person that do not change, sampled at random."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .shapes import Colour, mix

SKINS = (
    *((252, 226, 208), (247, 214, 190), (243, 202, 170), (234, 188, 152), (224, 172, 132)),
    *((208, 154, 114), (190, 136, 98), (166, 114, 80), (142, 94, 64), (118, 76, 52)),
    *((102, 65, 47), (88, 56, 42)),
)
HAIRS = (
    *((38, 30, 30), (28, 24, 28), (60, 42, 34), (84, 56, 40), (110, 74, 48), (140, 96, 58)),
    *((176, 130, 80), (212, 172, 112), (232, 204, 150), (158, 72, 40), (190, 92, 46)),
    *((130, 130, 134), (198, 198, 202), (236, 234, 230)),
)
DYED = ((196, 70, 110), (70, 110, 180), (60, 140, 120), (130, 80, 170), (220, 120, 90))
IRISES = (
    *((70, 44, 28), (92, 60, 36), (54, 34, 26), (120, 90, 50), (84, 116, 74)),
    *((76, 120, 160), (100, 140, 170), (110, 120, 124)),
)
SHADOWS = ((120, 70, 110), (90, 90, 130), (150, 80, 60), (70, 110, 110))
PAINTED_LIPS = ((176, 36, 52), (200, 70, 90), (150, 40, 70), (214, 96, 96))
CLOTHES = (
    *((58, 82, 122), (172, 64, 62), (62, 118, 104), (226, 190, 92), (112, 84, 132)),
    *((240, 236, 226), (52, 54, 62), (218, 130, 100), (124, 158, 188), (96, 110, 70)),
    *((232, 164, 172), (150, 100, 70), (36, 66, 84), (204, 208, 214), (244, 214, 178)),
)
WALLS = (
    *((214, 226, 232), (238, 222, 202), (198, 214, 196), (230, 204, 204), (190, 196, 220)),
    *((120, 150, 170), (90, 110, 120), (236, 200, 150), (160, 130, 150), (74, 84, 104)),
    *((244, 238, 228), (140, 170, 150), (206, 150, 130), (108, 92, 110), (60, 96, 100)),
)
SHORT_HAIR = ("bald", "buzz", "short", "parted", "quiff", "receding", "spikes", "rim")
CURLY_HAIR = ("curly", "afro")
LONG_HAIR = ("fringe", "bob", "long", "wavy", "bun", "tails")
HATS = ("beanie", "cap", "brim", "scarf", "band")
BEARDS = ("stubble", "full", "goatee", "moustache")
GLASSES = ("round", "square", "half")
RIMS = ((34, 30, 36), (96, 52, 38), (150, 40, 50), (60, 70, 110), (170, 140, 80))
GARMENTS = ("round neck", "v neck", "shirt", "suit", "turtleneck", "hood")
BACKGROUNDS = (
    *("plain", "glow", "stripes", "discs", "room", "shelf", "hills", "window"),
    *("drift", "lights", "clouds"),
)
MOVING = frozenset(("drift", "lights", "clouds"))


@dataclass(frozen=True)
class Person:
    """A person in a place. Lengths are in half face heights unless stated. `ear` is a scale around
    1, and all other numbers are 0 to 1."""

    key: int
    """Seed of details that have no field: freckles, curls, objects in the background."""

    size: float
    """Height of the face as a share of the picture's height."""
    place: tuple[float, float]
    """Middle of the face in picture heights: x from the middle of the picture, y from its top."""
    outlined: bool
    shading: float
    light: float
    """Direction of the light, from -1, left, to 1, right."""

    skin: Colour
    face: float
    """Half the width at the cheeks."""
    jaw: float
    chin: float
    """Widths of jaw and chin as shares of the width at the cheeks."""
    cheek: float
    blush: float
    freckles: float
    ear: float

    eye_gap: float
    eye_height: float
    eye_size: float
    eye_open: float
    eye_tilt: float
    iris: Colour
    lashes: float
    shadow: Colour | None
    """Make-up around the eyes."""

    brow: float
    """Thickness of the brow."""
    brow_arch: float
    brow_tilt: float
    nose: float
    nose_length: float
    nose_style: int

    lips: Colour
    mouth_width: float
    """Half the width at rest as a share of `face`."""
    mouth_height: float
    """How far the mouth is below the middle of the face."""
    mouth_open: float
    """Height of the widest opening."""
    upper_lip: float
    lower_lip: float
    smile: float

    hair: str
    hair_colour: Colour
    hair_volume: float
    hair_side: int
    beard: str | None
    age: float
    """How deep the lines of age are."""
    glasses: str | None
    rims: Colour
    hat: str | None
    hat_colour: Colour
    earrings: bool
    garment: str
    cloth: Colour
    cloth_two: Colour
    shoulders: float
    background: str
    wall: Colour
    wall_two: Colour

    @classmethod
    def sample(cls, generator: np.random.Generator) -> "Person":
        """Draw a person. The order of the draws decides who it is."""
        draw = Draw(generator)
        manly, age = draw.chance(0.5), draw.uniform(0, 1) ** 1.5
        skin = draw.between(SKINS)
        hair_colour = sample_hair_colour(draw, skin, age)
        natural_lips = mix(skin, (150, 40, 48), draw.uniform(0.34, 0.5))
        painted_lips = draw.pick(PAINTED_LIPS)
        return cls(
            **sample_place(draw),
            skin=skin,
            **sample_head(draw, manly),
            **sample_eyes(draw, manly, is_dark(skin)),
            **sample_nose(draw),
            lips=painted_lips if not manly and draw.chance(0.4) else natural_lips,
            **sample_mouth(draw),
            hair_colour=hair_colour,
            age=age,
            **sample_hair(draw, manly),
            **sample_clothes(draw, manly),
            **sample_background(draw),
        )


@dataclass(frozen=True)
class Draw:
    """Random choices."""

    generator: np.random.Generator

    def uniform(self, low: float, high: float) -> float:
        return self.generator.uniform(low, high)

    def chance(self, share: float) -> bool:
        return bool(self.generator.random() < share)

    def pick(self, options: Sequence):
        return options[self.generator.integers(len(options))]

    def between(self, colours: Sequence[Colour]) -> Colour:
        """Near the line from one colour to the next."""
        place = self.uniform(0, len(colours) - 1.001)
        colour = mix(colours[int(place)], colours[int(place) + 1], place % 1)
        return tuple(int(c) for c in np.clip(colour + self.generator.normal(0, 4, 3), 4, 252))


def is_dark(skin: Colour) -> bool:
    return sum(skin) < 480


def sample_hair_colour(draw: Draw, skin: Colour, age: float) -> Colour:
    colour = (
        draw.between(HAIRS[:4]) if is_dark(skin) and draw.chance(0.8) else draw.pick(HAIRS[:11])
    )
    colour = draw.pick(HAIRS[11:]) if age > 0.6 and draw.chance(0.7) else colour
    return draw.pick(DYED) if draw.chance(0.04) else colour


def sample_place(draw: Draw) -> dict:
    return {
        "key": int(draw.generator.integers(2**31)),
        "size": draw.uniform(0.5, 0.73),
        "place": (draw.uniform(-0.1, 0.1), draw.uniform(0.49, 0.55)),
        "outlined": draw.chance(0.25),
        "shading": draw.uniform(0.25, 1),
        "light": draw.uniform(-1, 1),
    }


def sample_head(draw: Draw, manly: bool) -> dict:
    return {
        "face": draw.uniform(0.68, 0.84),
        "jaw": draw.uniform(0.74, 0.92) if manly else draw.uniform(0.68, 0.88),
        "chin": draw.uniform(0.34, 0.5) if manly else draw.uniform(0.26, 0.42),
        "cheek": draw.uniform(0.94, 1.02),
        "blush": draw.uniform(0.1, 0.6),
        "freckles": draw.uniform(0.3, 1) if draw.chance(0.12) else 0.0,
        "ear": draw.uniform(0.8, 1.2),
    }


def sample_eyes(draw: Draw, manly: bool, dark: bool) -> dict:
    return {
        "eye_gap": draw.uniform(0.30, 0.37),
        "eye_height": draw.uniform(-0.2, -0.1),
        "eye_size": draw.uniform(0.145, 0.19),
        "eye_open": draw.uniform(0.42, 0.62),
        "eye_tilt": draw.uniform(-0.02, 0.025),
        "iris": draw.between(IRISES[:3]) if dark and draw.chance(0.85) else draw.pick(IRISES),
        "lashes": draw.uniform(0.02, 0.03) if manly else draw.uniform(0.028, 0.05),
        "shadow": draw.pick(SHADOWS) if not manly and draw.chance(0.35) else None,
        "brow": draw.uniform(0.06, 0.1) if manly else draw.uniform(0.04, 0.065),
        "brow_arch": draw.uniform(0.01, 0.06),
        "brow_tilt": draw.uniform(-0.03, 0.02),
    }


def sample_nose(draw: Draw) -> dict:
    return {
        "nose": draw.uniform(0.11, 0.19),
        "nose_length": draw.uniform(0.22, 0.32),
        "nose_style": int(draw.generator.integers(3)),
    }


def sample_mouth(draw: Draw) -> dict:
    return {
        "mouth_width": draw.uniform(0.37, 0.46),
        "mouth_height": draw.uniform(0.52, 0.6),
        "mouth_open": draw.uniform(0.2, 0.28),
        "upper_lip": draw.uniform(0.035, 0.085),
        "lower_lip": draw.uniform(0.06, 0.11),
        "smile": draw.uniform(-0.01, 0.05),
    }


def sample_hair(draw: Draw, manly: bool) -> dict:
    return {
        "hair": draw.pick(CURLY_HAIR + (SHORT_HAIR if manly else LONG_HAIR)),
        "hair_volume": draw.uniform(0, 1),
        "hair_side": draw.pick((-1, 1)),
        "beard": draw.pick(BEARDS) if manly and draw.chance(0.45) else None,
    }


def sample_clothes(draw: Draw, manly: bool) -> dict:
    return {
        "glasses": draw.pick(GLASSES) if draw.chance(0.22) else None,
        "rims": draw.pick(RIMS),
        "hat": draw.pick(HATS) if draw.chance(0.16) else None,
        "hat_colour": draw.pick(CLOTHES),
        "earrings": not manly and draw.chance(0.4),
        "garment": draw.pick(GARMENTS),
        "cloth": draw.pick(CLOTHES),
        "cloth_two": draw.pick(CLOTHES),
        "shoulders": draw.uniform(1.45, 1.75) if manly else draw.uniform(1.25, 1.5),
    }


def sample_background(draw: Draw) -> dict:
    return {
        "background": draw.pick(BACKGROUNDS),
        "wall": draw.pick(WALLS),
        "wall_two": draw.pick(WALLS),
    }
