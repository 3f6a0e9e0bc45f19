"""Backgrounds: still scenes and moving ones."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .people import MOVING, Person
from .shapes import Colour, darker, lighter, mix


def background(person: Person, size: tuple[int, int], seconds: float) -> Image.Image:
    """The scene at a time, as a picture of (height, width)."""
    if person.background in MOVING:
        return _moving(person, size, seconds)
    return _still(person, size)


def gradient(size: tuple[int, int], top: Colour, bottom: Colour) -> Image.Image:
    height, width = size
    share = np.linspace(0, 1, height)[:, None]
    column = np.array(top) + (np.array(bottom) - top) * share
    return Image.fromarray(np.broadcast_to(column[:, None], (height, width, 3)).astype(np.uint8))


@lru_cache(maxsize=16)
def _still(person: Person, size: tuple[int, int]) -> Image.Image:
    scene = Scene(person, size)
    SCENES[person.background](scene)
    return scene.picture


class Scene:
    """A picture to draw a scene on, with lengths in picture heights."""

    def __init__(self, person: Person, size: tuple[int, int]):
        self.height, self.width = size
        self.wall, self.second = person.wall, person.wall_two
        self.generator = np.random.default_rng(person.key)
        self.picture = gradient(size, lighter(self.wall, 0.12), darker(self.wall, 0.12))
        self.pen = ImageDraw.Draw(self.picture)
        self.wide = self.width / self.height

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        edges = [edge * self.height for edge in (left, top, right, bottom)]
        self.pen.rounded_rectangle(edges, 0.01 * self.height, colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.pen.circle((x * self.height, y * self.height), radius * self.height, colour)

    def polygon(self, corners: np.ndarray, colour: Colour) -> None:
        self.pen.polygon((corners * self.height).ravel().tolist(), colour)


def _plain(scene: Scene) -> None:
    pass


def _glow(scene: Scene) -> None:
    y, x = np.mgrid[0 : scene.height, 0 : scene.width]
    distance = (x / scene.width - 0.5) ** 2 + (y / scene.height - 0.4) ** 2
    dark, light = np.array(darker(scene.wall, 0.25)), np.array(lighter(scene.wall, 0.3))
    colours = dark + np.exp(-5 * distance)[..., None] * (light - dark)
    scene.picture.paste(Image.fromarray(colours.astype(np.uint8)))


def _stripes(scene: Scene) -> None:
    step, tilt = scene.generator.uniform((0.08, -0.4), (0.2, 0.4))
    stripe = np.array([(0, 0), (step, 0), (step + tilt, 1), (tilt, 1)])
    for left in np.arange(-0.5, scene.wide + 0.5, 2 * step):
        scene.polygon(stripe + np.array((left, 0)), mix(scene.wall, scene.second, 0.35))


def _discs(scene: Scene) -> None:
    for x, y, radius, share in scene.generator.uniform(
        (0, 0, 0.04, 0.15), (scene.wide, 1, 0.2, 0.5), (14, 4)
    ):
        scene.disc(x, y, radius, mix(scene.wall, scene.second, share))


def _room(scene: Scene) -> None:
    left = scene.generator.uniform(0, scene.wide - 0.3)
    scene.box(left, 0.08, left + 0.3, 0.42, darker(scene.second, 0.4))
    scene.box(left + 0.02, 0.1, left + 0.28, 0.4, lighter(scene.second, 0.5))
    floor = darker(mix(scene.wall, (120, 80, 50), 0.5), 0.2)
    scene.box(-1, 0.75, scene.wide + 1, 2, floor)


def _shelf(scene: Scene) -> None:
    for board in (0.3, 0.58, 0.86):
        x = -0.05
        while x < scene.wide:
            thick, tall = scene.generator.uniform((0.02, 0.06), (0.12, 0.22))
            cover = tuple(scene.generator.integers(40, 220, 3).tolist())
            cover = mix(scene.wall, mix(scene.second, cover, 0.5), 0.6)
            scene.box(x, board - tall, x + thick, board, cover)
            x += thick + scene.generator.choice((0.004, 0.004, 0.1))
        scene.box(-1, board, scene.wide + 1, board + 0.025, darker(scene.wall, 0.4))
    scene.picture = scene.picture.filter(ImageFilter.GaussianBlur(scene.height / 150))


def _hills(scene: Scene) -> None:
    size = scene.height, scene.width
    scene.picture.paste(gradient(size, lighter(scene.wall, 0.2), lighter(scene.wall, 0.6)))
    x = np.linspace(0, scene.wide, 40)
    for level, share in ((0.45, 0.2), (0.6, 0.4), (0.75, 0.6)):
        rates, phases = scene.generator.uniform(3, 9, 3), scene.generator.uniform(0, 6, 3)
        ridge = level + 0.05 * np.sin(x[:, None] * rates + phases).sum(1)
        hill = np.concatenate([np.stack([x, ridge], 1), [(scene.wide, 1), (0, 1)]])
        scene.polygon(hill, mix(lighter(scene.wall, 0.3), scene.second, share))


def _window(scene: Scene) -> None:
    left = scene.generator.uniform(-0.1, scene.wide - 0.5)
    frame = lighter(scene.wall, 0.6)
    scene.box(left, 0.05, left + 0.6, 0.85, frame)
    scene.box(left + 0.02, 0.07, left + 0.58, 0.83, mix((180, 214, 236), scene.second, 0.2))
    scene.box(left + 0.285, 0.05, left + 0.315, 0.85, frame)
    scene.box(left, 0.42, left + 0.6, 0.44, frame)


SCENES: dict[str, Callable[[Scene], None]] = {
    "plain": _plain,
    "glow": _glow,
    "stripes": _stripes,
    "discs": _discs,
    "room": _room,
    "shelf": _shelf,
    "hills": _hills,
    "window": _window,
}


def _moving(person: Person, size: tuple[int, int], seconds: float) -> Image.Image:
    """Soft discs that drift, drawn small and enlarged."""
    height, width = size
    rows, columns = small = height // 6, width // 6
    generator = np.random.default_rng(person.key)
    lights, clouds = person.background == "lights", person.background == "clouds"
    wall = darker(person.wall, 0.5) if lights else person.wall
    picture = gradient(small, lighter(wall, 0.2), wall)
    pen = ImageDraw.Draw(picture, "RGBA")
    wide, largest = columns / rows, 0.16 if lights else 0.3
    for _ in range(12):
        x, y, radius = generator.uniform((0, 0, 0.05), (wide, 1, largest))
        across, down = (x, y) + generator.normal(0, 0.06, 2) * seconds
        middle = (across % (wide + 0.7) - 0.35) * rows, (down % 1.7 - 0.35) * rows
        tint, alpha = generator.integers(90, 255, 3).tolist(), int(generator.integers(60, 150))
        colour = lighter(wall, 0.7) if clouds else mix(person.wall_two, tuple(tint), 0.4)
        pen.circle(middle, radius * rows, (*colour, alpha))
    half = picture.filter(ImageFilter.BoxBlur(rows / 60)).resize(
        (width // 2, height // 2), Image.Resampling.BILINEAR
    )
    return half.resize((width, height), Image.Resampling.NEAREST)
