"""Numbers of every frame of a video, in one pass."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab
from torch import Tensor

from ..errors import InputError
from ..portrait.faces import Finder, choose
from .likeness import cut_face, distance, outside_mouth
from .reader import Faces, Reader
from .sharpness import cpbd

BATCH = 64
SOME = 10
"""Of so many frames one is looked at for what takes long."""
LUMINANCE = np.float32([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Tracks:
    """One entry a frame, NaN where there is none.

    `opening` of the mouth is a share of the face's height; `distance` from the portrait's face is
    in [0, 1]; `colour` (frames, 3) is the face's mean in Lab; `jump` from the frame before and
    `flicker`, the second difference, are mean luminances in 0 to 255. Of every tenth frame
    `sharpness` is CPBD, and `likeness` the cosine of the face embedding's angle to the portrait's,
    where there are embeddings. `face` (frames, 4) are boxes as shares of the picture.
    """

    opening: np.ndarray
    distance: np.ndarray
    colour: np.ndarray
    jump: np.ndarray
    flicker: np.ndarray
    sharpness: np.ndarray
    likeness: np.ndarray
    face: np.ndarray

    def __len__(self) -> int:
        return len(self.opening)


def track(
    reader: Reader,
    frames: Iterable[np.ndarray],
    portrait: np.ndarray | None = None,
    finder: Finder | None = None,
    device: torch.device | str = "cpu",
) -> Tracks:
    """Of frames (height, width, 3) uint8; the first stands for a portrait that is not given.

    Faces are read and compared on `device`, and all else on the CPU.
    """
    frames, parts = iter(frames), []
    watcher = None
    while part := list(islice(frames, BATCH)):
        if watcher is None:
            likeness = part[0] if portrait is None else portrait
            watcher = Watcher(reader, likeness, finder, torch.device(device))
        parts.append(watcher.see(np.stack(part)))
    if not parts:
        raise InputError("The video has no frames: choose another.")
    return Tracks(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))


class Watcher:
    """Sees a video part by part, and remembers what the next part is compared with."""

    def __init__(
        self,
        reader: Reader,
        portrait: np.ndarray,
        finder: Finder | None,
        device: torch.device,
    ):
        self.reader, self.finder, self.device = reader, finder, device
        self.frames = 0
        self.portrait, *_ = self.cut(portrait[None])
        self.embedding = self.embed(portrait)
        self.last: np.ndarray | None = None

    def cut(self, pictures: np.ndarray) -> tuple[Tensor, Tensor, Faces]:
        """The faces cut out, what is kept of them without the mouth, and where they are."""
        frames = torch.from_numpy(pictures).to(self.device) / 255
        found = self.reader(frames)
        return (
            cut_face(frames, found.face),
            outside_mouth(found.face, found.mouth),
            found,
        )

    def embed(self, picture: np.ndarray) -> Tensor | None:
        """The embedding of the largest face, if there is a finder that has it."""
        if self.finder is None:
            return None
        face = choose(self.finder(torch.from_numpy(picture).movedim(-1, 0) / 255), 0)
        return face.embedding if face else None

    def likeness(self, picture: np.ndarray) -> float:
        embedding = self.embed(picture)
        if embedding is None or self.embedding is None:
            return np.nan
        return F.cosine_similarity(embedding, self.embedding).item()

    def see(self, pictures: np.ndarray) -> Tracks:
        count = len(pictures)
        faces, kept, found = self.cut(pictures)
        grey = pictures @ LUMINANCE
        known = grey if self.last is None else np.concatenate([self.last, grey])
        some = slice(-self.frames % SOME, None, SOME)
        sharpness, likeness = np.full((2, count), np.nan)
        sharpness[some] = [cpbd(picture) for picture in grey[some]]
        likeness[some] = [self.likeness(picture) for picture in pictures[some]]
        self.last = known[-2:]
        self.frames += count
        return Tracks(
            found.opening.cpu().numpy(),
            distance(faces, self.portrait, kept).cpu().numpy(),
            rgb2lab(faces.mean((2, 3)).cpu().numpy()),
            _ending(np.abs(np.diff(known, axis=0)).mean((1, 2)), count),
            _ending(np.abs(np.diff(known, n=2, axis=0)).mean((1, 2)), count),
            sharpness,
            likeness,
            found.face.cpu().numpy(),
        )


def _ending(values: np.ndarray, count: int) -> np.ndarray:
    """The last `count` of them, with NaN before them if they are fewer."""
    return np.pad(values, (max(count - len(values), 0), 0), constant_values=np.nan)[-count:]
