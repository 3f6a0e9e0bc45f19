"""Measures the built-in model on pictures of two people of the test split.

Each of the two has a half of the picture as region, and an own speech: does each mouth follow its
own speech, and does a listener keep the mouth shut?
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hallo3_core import builtin
from hallo3_core.animate import animate
from hallo3_core.evaluation.reader import Reader, drawn_reader
from hallo3_core.evaluation.sync import correlation
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.settings import distilled
from hallo3_core.speech.dialogue import Dialogue, Speaker
from hallo3_core.speech.encode import encode_speech

from .measure import FRAMES, talks, to_bytes
from .measured import DRAWN, array_of, clip_file, folder_of, heading, keep, line, middle
from .sheet import strips
from .world.clips import motion_of, person_of
from .world.pair import beside, centred, draw_pair, still_pair
from .world.speech import Utterance
from .world.visemes import mouth_of

PAIRS = 10
SIZE = 512, 768
"""Of the pictures of pairs."""


@dataclass(frozen=True)
class Case:
    """Who of the two speaks, and with which strength."""

    speaks: tuple[bool, bool] = (True, True)
    strength: float = 1.0


CASES = {
    "both": Case(),
    "left": Case((True, False)),
    "right": Case((False, True)),
    "strength 0.5": Case(strength=0.5),
    "strength 1.5": Case(strength=1.5),
}


@dataclass(frozen=True)
class Talk:
    """Two people of the test split, by their numbers, and their speeches."""

    numbers: tuple[int, int]
    speeches: tuple[Utterance, Utterance]

    @property
    def truth(self) -> np.ndarray:
        """(2, frames): how far each mouth should open, 0 to 1."""
        return np.stack([mouth_of(speech, FRAMES).opening for speech in self.speeches])

    @property
    def people(self):
        return beside(*(centred(person_of("test", number)) for number in self.numbers))


def pair_talks(count: int) -> list[Talk]:
    """Each clip of the test split in which somebody talks is in one pair."""
    spoken = list(islice(talks(), 2 * count))
    both = zip(spoken[::2], spoken[1::2], strict=True)
    return [Talk(*zip(*rows, strict=True)) for rows in both]


def drawn(talk: Talk) -> np.ndarray:
    """The true frames, (frames, height, width, 3) uint8."""
    rows = zip(talk.numbers, talk.speeches, strict=True)
    motions = [motion_of("test", number, speech, FRAMES) for number, speech in rows]
    mouths = [mouth_of(speech, FRAMES) for speech in talk.speeches]
    frames = [
        draw_pair(talk.people, [m[i] for m in motions], [m[i] for m in mouths], (128, 192))[0]
        for i in range(FRAMES)
    ]
    return np.stack(frames)


def animated(model: Hallo3, talk: Talk, case: Case) -> np.ndarray:
    """The frames (frames, height, width, 3) uint8 that the model makes of a still picture.

    Who does not speak hears silence.
    """
    picture = torch.tensor(still_pair(talk.people, SIZE)).movedim(-1, 0) / 255
    noise = SeededNoise(talk.numbers[0])
    identity = encode_portrait(model.vae, model.reference_network, picture, None, noise)
    right = torch.zeros(SIZE)
    right[:, SIZE[1] // 2 :] = 1
    speakers = []
    for speech, speaks, region in zip(talk.speeches, case.speaks, (1 - right, right), strict=True):
        heard = encode_speech(model.speech_encoder, torch.from_numpy(speech.waveform))
        if not speaks:
            heard = replace(heard, features=heard.silence.expand_as(heard.features))
        speakers.append(Speaker(heard, region))
    options = distilled(builtin.STEPS) | {"speech_strength": case.strength}
    segments = animate(model, identity, Dialogue(tuple(speakers)), noise, **options)
    return np.concatenate([to_bytes(segment.frames) for segment in segments])[:FRAMES]


def openings(reader: Reader, frames: np.ndarray, device: torch.device) -> np.ndarray:
    """(2, frames): the opening of both mouths, as shares of the height of their faces."""
    pictures = torch.from_numpy(frames).to(device) / 255
    half: list[Tensor] = list(pictures.split(frames.shape[2] // 2, dim=2))
    return np.stack([reader(part).opening.cpu().numpy() for part in half])


def pair_file(folder: Path, name: str, talk: Talk) -> Path:
    return clip_file(folder, f"pair {name}", talk.numbers[0])


def measure(model: Hallo3, name: str, talk: Talk, folder: Path, reader: Reader) -> np.ndarray:
    """The opening of both mouths, (2, frames). A clip that is in `folder` is not made again."""

    def made() -> dict[str, np.ndarray]:
        frames = drawn(talk) if name == DRAWN else animated(model, talk, CASES[name])
        return {"frames": frames, "opening": openings(reader, frames, model.device)}

    file = pair_file(folder, name, talk)
    keep(file, made)
    return array_of(file, "opening")


def follows(opening: np.ndarray, truth: np.ndarray) -> list[float]:
    """The correlation of the left mouth and of the right one with a speech, each (2, frames)."""
    return [correlation(*row) for row in zip(opening, truth, strict=True)]


def row(name: str, values: list[float]) -> str:
    return line(name, *(f"{number:.3f}" for number in (middle(values), min(values), max(values))))


def listeners(found: dict[str, np.ndarray]) -> list[float]:
    """How far each listener's mouth opens, as a share of how far it does when both speak."""
    spoken = found["both"].mean(axis=1)
    return [found["right"][0].mean() / spoken[0], found["left"][1].mean() / spoken[1]]


def report(model: Hallo3, run: Path, count: int = PAIRS) -> Iterator[str]:
    """The table as lines: median, lowest and highest over both people of all pairs."""
    folder, reader = folder_of(model, run), drawn_reader(model.device)
    all_talks = pair_talks(count)
    clips = [
        {name: measure(model, name, talk, folder, reader) for name in (DRAWN, *CASES)}
        for talk in all_talks
    ]
    pairs = list(zip(clips, all_talks, strict=True))
    yield from heading("of both people of the pairs", "median", "lowest", "highest")
    for name, case in ((DRAWN, DRAWN), ("both speak", "both")):
        own = [r for found, talk in pairs for r in follows(found[case], talk.truth)]
        other = [r for found, talk in pairs for r in follows(found[case], talk.truth[::-1])]
        yield row(f"{name}: r with the own speech", own)
        yield row(f"{name}: r with the other's speech", other)
    only = [
        r
        for found, talk in pairs
        for side, case in enumerate(("left", "right"))
        for r in follows(found[case][[side]], talk.truth[[side]])
    ]
    yield row("one speaks: r with the own speech", only)
    yield row("opening of a listener, share", [share for c in clips for share in listeners(c)])
    for case in (DRAWN, "strength 0.5", "both", "strength 1.5"):
        yield row(f"mean opening, {case}", [mean for c in clips for mean in c[case].mean(axis=1)])
    yield ""
    both = (pair_file(folder, "both", talk) for talk in all_talks)
    yield str(strips(both, folder / "pairs.png"))
