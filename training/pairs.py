"""Shots of two drawn people side by side, each with an own speech, and the training on them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hallo3_core import builtin
from hallo3_core.network.config import FPS, SEGMENT_FRAMES, Hallo3Config

from .denoiser import DISTILLED, freeze, losses, with_face_of
from .distill import roll_out, roll_out_in
from .drawn import FRAMES, DrawnShots, mouth_region
from .examples import VARIANTS, Example, Examples, Shot
from .loop import Loop, Settings
from .networks import Batch, Networks
from .pool import to_pixels
from .window import SIZE, Window
from .world.clips import motion_of, person_of, speech_of
from .world.drawing import Frame
from .world.languages import Split
from .world.motion import Motion
from .world.pair import Pair, beside, centred, draw_pair
from .world.people import Person
from .world.speech import Utterance, silence
from .world.visemes import Mouth, mouth_of

FIRST_PERSON = 10_000
"""Number of the first person. Those of `DrawnShots` are lower."""
LISTENERS = 0.33
"""Share of the shots in which one of the two is silent."""
SHIFT = 0.05
"""Farthest that a person is from the middle of a half, in picture heights."""

PAIRS = replace(
    DISTILLED, name="pairs", settings=Settings(1300, 8e-4, warmup=30), batch=4, strangers=0.9
)
SINGLES = 4
"""Single people in a batch."""
BANDS = 4, 12
"""Rows and columns of a window on a pair, in tokens: both mouths."""
WHOLE_EVERY = 8
"""Two steps in so many see the whole picture: one of pairs, and one of single people."""


class PairShots(DrawnShots):
    """`count` shots of two people each."""

    def __getitem__(self, index: int) -> Shot:
        return shot(self.split, index, self.config)

    def title(self, index: int) -> str:
        return f"pair {super().title(index)}"


@dataclass(frozen=True)
class Scene:
    """Two people, what they say, and how they move, `FRAMES` frames long."""

    people: Pair
    speeches: tuple[Utterance, Utterance]
    motions: tuple[Motion, Motion]
    mouths: tuple[Mouth, Mouth]

    def frame(self, place: int, size: tuple[int, int]) -> tuple[np.ndarray, tuple[Frame, Frame]]:
        """The picture (height, width, 3) uint8, and the frames of both, as `draw_pair` gives."""
        poses = tuple(motion[place] for motion in self.motions)
        mouths = tuple(mouth[place] for mouth in self.mouths)
        return draw_pair(self.people, poses, mouths, size, place / FPS)


def scene(split: Split, index: int, generator: np.random.Generator) -> Scene:
    """The scene with an index. In a third of them one person, left or right, is silent."""
    numbers = [FIRST_PERSON + 2 * index, FIRST_PERSON + 2 * index + 1]
    silent = int(generator.integers(2)) if generator.random() < LISTENERS else None
    people: list[Person] = []
    for number in numbers:
        person = centred(person_of(split, number))
        people.append(replace(person, place=(generator.uniform(-SHIFT, SHIFT), person.place[1])))
    speeches = tuple(
        silence(FRAMES / FPS) if side == silent else speech_of(split, number, FRAMES)
        for side, number in enumerate(numbers)
    )
    rows = list(zip(numbers, speeches, strict=True))
    motions = tuple(motion_of(split, number, speech, FRAMES) for number, speech in rows)
    return Scene(beside(*people), speeches, motions, tuple(mouth_of(s, FRAMES) for s in speeches))


def shot(split: Split, index: int, config: Hallo3Config) -> Shot:
    """A shot. Its two portraits are its first frame and a random frame of the clip.

    They are shown whole: a picture of two people has no face region. `waveform` is (2, samples),
    the speech of the left person and of the right one.
    """
    generator = np.random.default_rng([41, index])
    made = scene(split, index, generator)
    start = int(generator.integers(FRAMES - SEGMENT_FRAMES + 1))
    shown = [made.frame(start + i, config.canvas) for i in range(SEGMENT_FRAMES)]
    other, _ = made.frame(int(generator.integers(FRAMES)), config.canvas)
    pictures = [picture for picture, _ in shown]
    lips = [mouth_region([both[side] for _, both in shown], config.canvas) for side in (0, 1)]
    return Shot(
        to_pixels(np.stack(pictures)),
        to_pixels(np.stack([pictures[0], other])).movedim(1, 0),
        torch.ones(VARIANTS, *config.canvas),
        torch.from_numpy(np.stack([speech.waveform for speech in made.speeches])),
        start,
        torch.zeros(config.face_channels),
        torch.maximum(*lips),
    )


class Joined(Examples):
    """Pairs made of examples of one person: the middle half of one beside that of another.

    They are many more than the drawn pairs, but each half has its own wall. In the share
    `strangers`, each has the other's face in the motion frames.
    """

    def __init__(self, singles: Examples, strangers: float):
        self.files, self.singles, self.strangers = singles.files, singles, strangers

    def draw(self, generator: np.random.Generator) -> Example:
        left, right = self.singles.draw(generator), self.singles.draw(generator)
        if generator.random() < self.strangers:
            left, right = with_face_of(right, left), with_face_of(left, right)
        return joined(left, right)


def joined(left: Example, right: Example) -> Example:
    """An example of the middle half of each, in which each half hears its own speech.

    Its `speech` is (2, 49, 5, 12, channels). Its region is the whole picture.
    """
    width = left.video.shape[-1]
    middle = slice(width // 4, width // 4 + width // 2)
    pictures = {
        name: torch.cat([getattr(each, name)[..., middle] for each in (left, right)], dim=-1)
        for name in ("video", "reference", "motion", "lips")
    }
    speech = torch.stack([left.speech, right.speech])
    return replace(left, **pictures, speech=speech, region=torch.ones_like(left.region))


def draws(
    networks: Networks, singles: Examples, pairs: Examples, steps: int
) -> Callable[[int], tuple[Batch, Window | None]]:
    """The batches of the training, in turn: pairs, and single people.

    They are as `roll_out` makes them for a student of `steps` steps. Most see only windows.
    """
    both, alone = (Joined(singles, PAIRS.strangers), pairs), replace(PAIRS, batch=SINGLES)

    def draw(step: int) -> tuple[Batch, Window | None]:
        whole, single, drawn = step % WHOLE_EVERY >= WHOLE_EVERY - 2, step % 2, step // 2 % 2
        examples, stage = (singles, alone) if single else (both[drawn], PAIRS)
        if whole:
            half = replace(stage, batch=stage.batch // 2)
            return roll_out(networks, examples, half, steps, step), None
        return roll_out_in(networks, examples, stage, steps, SIZE if single else BANDS, step)

    return draw


def train(networks: Networks, singles: Examples, pairs: Examples, folder: Path) -> Networks:
    """Continue the training of the distilled denoiser. Returns the averaged networks.

    It does not forget single people, because it sees them at every second step.
    """
    freeze(networks, PAIRS)
    loop = Loop(folder / PAIRS.name, networks, PAIRS.settings)
    draw = draws(networks, singles, pairs, builtin.STEPS)
    loop.run(lambda step: losses(networks, *draw(step)))
    return loop.finish()
