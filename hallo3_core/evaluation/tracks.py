"""Measures every frame of a video, in one pass."""

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
"""Sharpness and likeness take long. They are measured in one of this many frames."""
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Tracks:
    """The measures of each frame. An entry is NaN if it was not measured.

    - `opening` (frames,): the opening of the mouth as a share of the height of the face.
    - `distance` (frames,): the distance from the portrait's face, in [0, 1].
    - `colour` (frames, 3): the mean colour of the face in Lab.
    - `jump` (frames,): the mean absolute difference of the luminance from the previous frame, in 0
      to 255.
    - `flicker` (frames,): the same for the second difference over three frames.
    - `sharpness` (frames,): CPBD of every tenth frame.
    - `likeness` (frames,): the cosine similarity of the face embedding and the portrait's, in every
      tenth frame, if there are embeddings.
    - `face` (frames, 4): the face boxes as shares of the picture.
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
    """Measure frames (height, width, 3) uint8.

    Without a `portrait` (height, width, 3) uint8, the first frame is the portrait. Without a
    `finder`, there are no embeddings. Faces are found and compared on `device`, the rest is
    computed on the CPU. Raises `InputError` if there are no frames.
    """
    frames, parts = iter(frames), []
    watcher = None
    while part := list(islice(frames, BATCH)):
        if watcher is None:
            likeness = part[0] if portrait is None else portrait
            watcher = Watcher(reader, likeness, finder, torch.device(device))
        parts.append(watcher.see(np.stack(part)))
    if not parts:
        raise InputError("The video has no frames: choose another video.")
    return Tracks(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))


class Watcher:
    """Measures a video part by part. It keeps the frames that the next part is compared with."""

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
        """The face squares, their masks without the mouth, and the faces in the pictures."""
        frames = torch.tensor(pictures, device=self.device) / 255
        found = self.reader(frames)
        return (
            cut_face(frames, found.face),
            outside_mouth(found.face, found.mouth),
            found,
        )

    def embed(self, picture: np.ndarray) -> Tensor | None:
        """The embedding of the largest face. None without a finder, a face or an embedding."""
        if self.finder is None:
            return None
        face = choose(self.finder(torch.from_numpy(picture).movedim(-1, 0) / 255), 0)
        return face.embedding if face else None

    def likeness(self, picture: np.ndarray) -> float:
        """The cosine similarity to the portrait's embedding. NaN if one of the two is missing."""
        embedding = self.embed(picture)
        if embedding is None or self.embedding is None:
            return np.nan
        return F.cosine_similarity(embedding, self.embedding).item()

    def see(self, pictures: np.ndarray) -> Tracks:
        """Measure the next frames (frames, height, width, 3) uint8."""
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
    """The last `count` values. If there are fewer, NaN is added before them."""
    return np.pad(values, (max(count - len(values), 0), 0), constant_values=np.nan)[-count:]
