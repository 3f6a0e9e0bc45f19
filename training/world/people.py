"""People: everything about a drawn person that stays the same, drawn from a generator."""

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
    """A person in a place. Lengths are in half face heights unless said otherwise; `ear` scales
    around 1, the rest is 0 to 1."""

    key: int
    """Seeds what has no field of its own: freckles, curls, the objects behind."""

    size: float
    """Face height, as a share of the picture's."""
    place: tuple[float, float]
    """Middle of the face: x from the picture's middle in picture heights, y in picture heights."""
    outlined: bool
    shading: float
    light: float
    """Where the light comes from, -1 left to 1 right."""

    skin: Colour
    face: float
    """Half the width at the cheeks."""
    jaw: float
    chin: float
    """Widths there, as shares of the cheeks'."""
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
    """Thickness."""
    brow_arch: float
    brow_tilt: float
    nose: float
    nose_length: float
    nose_style: int

    lips: Colour
    mouth_width: float
    """Half the width at rest, as a share of `face`."""
    mouth_height: float
    """Where the mouth is, below the middle of the face."""
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
        uniform, chance = generator.uniform, lambda share: bool(generator.random() < share)

        def pick(options):
            return options[generator.integers(len(options))]

        def between(colours) -> Colour:
            place = uniform(0, len(colours) - 1.001)
            colour = mix(colours[int(place)], colours[int(place) + 1], place % 1)
            return tuple(int(c) for c in np.clip(colour + generator.normal(0, 4, 3), 4, 252))

        manly, age = chance(0.5), uniform() ** 1.5
        skin = between(SKINS)
        dark = sum(skin) < 480
        hair_colour = between(HAIRS[:4]) if dark and chance(0.8) else pick(HAIRS[:11])
        hair_colour = pick(HAIRS[11:]) if age > 0.6 and chance(0.7) else hair_colour
        hair_colour = pick(DYED) if chance(0.04) else hair_colour
        natural = mix(skin, (150, 40, 48), uniform(0.34, 0.5))
        painted = pick(((176, 36, 52), (200, 70, 90), (150, 40, 70), (214, 96, 96)))
        styles = CURLY_HAIR + (SHORT_HAIR if manly else LONG_HAIR)
        return cls(
            key=int(generator.integers(2**31)),
            size=uniform(0.5, 0.73),
            place=(uniform(-0.1, 0.1), uniform(0.49, 0.55)),
            outlined=chance(0.25),
            shading=uniform(0.25, 1),
            light=uniform(-1, 1),
            skin=skin,
            face=uniform(0.68, 0.84),
            jaw=uniform(0.74, 0.92) if manly else uniform(0.68, 0.88),
            chin=uniform(0.34, 0.5) if manly else uniform(0.26, 0.42),
            cheek=uniform(0.94, 1.02),
            blush=uniform(0.1, 0.6),
            freckles=uniform(0.3, 1) if chance(0.12) else 0.0,
            ear=uniform(0.8, 1.2),
            eye_gap=uniform(0.30, 0.37),
            eye_height=uniform(-0.2, -0.1),
            eye_size=uniform(0.145, 0.19),
            eye_open=uniform(0.42, 0.62),
            eye_tilt=uniform(-0.02, 0.025),
            iris=between(IRISES[:3]) if dark and chance(0.85) else pick(IRISES),
            lashes=uniform(0.02, 0.03) if manly else uniform(0.028, 0.05),
            shadow=pick(((120, 70, 110), (90, 90, 130), (150, 80, 60), (70, 110, 110)))
            if not manly and chance(0.35)
            else None,
            brow=uniform(0.06, 0.1) if manly else uniform(0.04, 0.065),
            brow_arch=uniform(0.01, 0.06),
            brow_tilt=uniform(-0.03, 0.02),
            nose=uniform(0.11, 0.19),
            nose_length=uniform(0.22, 0.32),
            nose_style=int(generator.integers(3)),
            lips=painted if not manly and chance(0.4) else natural,
            mouth_width=uniform(0.37, 0.46),
            mouth_height=uniform(0.52, 0.6),
            mouth_open=uniform(0.2, 0.28),
            upper_lip=uniform(0.035, 0.085),
            lower_lip=uniform(0.06, 0.11),
            smile=uniform(-0.01, 0.05),
            hair=pick(styles),
            hair_colour=hair_colour,
            hair_volume=uniform(0, 1),
            hair_side=pick((-1, 1)),
            beard=pick(BEARDS) if manly and chance(0.45) else None,
            age=age,
            glasses=pick(GLASSES) if chance(0.22) else None,
            rims=pick(RIMS),
            hat=pick(HATS) if chance(0.16) else None,
            hat_colour=pick(CLOTHES),
            earrings=not manly and chance(0.4),
            garment=pick(GARMENTS),
            cloth=pick(CLOTHES),
            cloth_two=pick(CLOTHES),
            shoulders=uniform(1.45, 1.75) if manly else uniform(1.25, 1.5),
            background=pick(BACKGROUNDS),
            wall=pick(WALLS),
            wall_two=pick(WALLS),
        )
