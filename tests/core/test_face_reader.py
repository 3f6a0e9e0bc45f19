"""The network that finds drawn faces, compared with what was drawn."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from hallo3_core.evaluation.reader import load_reader, read_faces
from hallo3_core.evaluation.sync import correlation
from hallo3_core.portrait.faces import overlap
from training.world.clips import clip

CLIPS = 8


@pytest.fixture(scope="module")
def clips():
    """People, voices and words that were not used in training, as 3:2 pictures and squares."""
    sizes = [(128, 192), (256, 256)]
    made = (clip("test", index, sizes[index % 2], 49) for index in range(CLIPS + 2))
    return [c for c in made if c.mouth.opening.max() > 0.2][:CLIPS]


def readings(frames: np.ndarray):
    return read_faces(load_reader(), torch.from_numpy(frames) / 255)


def test_openings_follow_what_was_drawn(clips):
    found = [readings(c.frames).opening.numpy() for c in clips]
    r = [correlation(f, c.geometry.mouth_share) for f, c in zip(found, clips, strict=True)]
    assert np.median(r) > 0.95
    assert min(r) > 0.8


def test_they_do_in_blurred_frames(clips):
    for c in clips[:3]:
        blurred = np.stack(
            [Image.fromarray(f).filter(ImageFilter.GaussianBlur(1.2)) for f in c.frames[::2]]
        )
        found = readings(blurred).opening.numpy()
        assert correlation(found, c.geometry.mouth_share[::2]) > 0.8


def test_faces_and_mouths_are_found(clips):
    """The medians over a clip. The overlap is lower for thin mouths."""
    overlaps = {"face": [], "mouth": []}
    for c in clips:
        height, width = c.frames.shape[1:3]
        found = readings(c.frames)
        scale = torch.tensor([width, height, width, height])
        for name, true in (("face", c.geometry.face_box), ("mouth", c.geometry.mouth_box)):
            boxes = (getattr(found, name) * scale).tolist()
            pairs = zip(boxes, true.tolist(), strict=True)
            overlaps[name].append(np.median([overlap(a, b) for a, b in pairs]))
    assert min(overlaps["face"]) > 0.7
    assert np.median(overlaps["mouth"]) > 0.4
