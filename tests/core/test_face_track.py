"""The track of a face, its crops, and pasting them back."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hallo3_core.errors import InputError
from hallo3_core.portrait.face_mask import region_box
from hallo3_core.portrait.faces import Face
from hallo3_core.portrait.squares import crop, paste
from hallo3_core.portrait.track import (
    EVERY,
    FaceTrack,
    follow,
    smooth,
    track_face,
    track_of_boxes,
    track_of_region,
)
from photograph import astronaut

FACE = 170.0, 60.0, 280.0, 200.0
"""The face in the picture of the astronaut."""


def photograph(scale: float) -> tuple[torch.Tensor, FaceTrack]:
    """A frame (1, height, width, 3) and the track of its face."""
    side = round(512 * scale)
    picture = F.interpolate(astronaut()[None], (side, side), mode="bicubic", antialias=True)
    box = tuple(edge * scale for edge in FACE)
    frames = picture.clamp(0, 1).movedim(1, -1).contiguous()
    return frames, track_of_boxes([box], (side, side)).grown(1.5)


def psnr(found: torch.Tensor, expected: torch.Tensor) -> float:
    return -10 * (found - expected).square().mean().log10().item()


def same_outside(found: torch.Tensor, expected: torch.Tensor, track: FaceTrack) -> bool:
    """Whether all pixels outside the squares are the same to the bit."""
    inside = torch.zeros(expected.shape[:3], dtype=torch.bool)
    for number in range(len(track)):
        inside[number, *track.window(number)] = True
    return torch.equal(found[~inside], expected[~inside]) and bool(inside.any())


@pytest.mark.parametrize("larger", [1, 4], ids=["as they were", "four times as large"])
def test_crops_that_are_pasted_unchanged_change_nothing_that_is_seen(larger):
    """The face has 200 pixels, the crop 512."""
    frames, track = photograph(200 / 140)
    assert track.boxes[0, 2] - track.boxes[0, 0] == pytest.approx(300)
    crops = crop(frames, track)
    assert crops.shape == (1, 512, 512, 3)
    if larger > 1:
        large = F.interpolate(crops.movedim(-1, 1), scale_factor=larger, mode="bicubic")
        crops = large.movedim(1, -1).clamp(0, 1)
    pasted = paste(frames, crops, track, feather=0.0, match_colours=0.0)
    window = (0, *track.window(0))
    assert psnr(pasted[window], frames[window]) > 45
    assert psnr(paste(frames, crops, track)[window], frames[window]) > 50
    assert same_outside(pasted, frames, track)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_outside_the_square_every_pixel_stays(dtype):
    frames = torch.rand(3, 60, 80, 3, generator=torch.manual_seed(0)).to(dtype)
    boxes = [(20.0 + i, 10.0, 50.0 + i, 40.0) for i in range(3)]
    track = track_of_boxes(boxes, (60, 80)).grown(1.23)
    pasted = paste(frames, 1 - crop(frames, track, size=64), track)
    assert pasted.dtype == dtype
    assert same_outside(pasted, frames, track)
    assert (pasted[:, 25, 36] - frames[:, 25, 36]).abs().max() > 0.1


def test_the_mask_is_0_at_the_edge_and_1_in_the_middle():
    track = FaceTrack(torch.tensor([[10.0, 10.0, 50.0, 50.0]]), (60, 60))
    assert track.window(0) == (slice(10, 50), slice(10, 50))
    mask = track.mask(0, feather=0.25)
    assert mask[20, 20] == 1
    assert mask[0].max() < 0.01
    assert (mask[20, 10:30] == 1).all()
    assert torch.equal(mask, mask.T)
    assert (track.mask(0, feather=0.0) == 1).all()


def test_a_square_past_the_edge_is_filled_and_pasted_inside_only():
    frames = torch.rand(1, 40, 50, 3, generator=torch.manual_seed(0))
    track = FaceTrack(torch.tensor([[-20.0, 15.5, 20.0, 55.5]]), (40, 50))
    crops = crop(frames, track, size=40)
    assert psnr(crops[0, :24, 20:], frames[0, 16:, :20]) < 60  # half a pixel lower
    assert torch.allclose(crops[0, :20, 2], crops[0, :20, 12], atol=1e-5)
    pasted = paste(frames, torch.zeros_like(crops), track, match_colours=0.0)
    assert same_outside(pasted, frames, track)
    assert pasted[0, 35, 0].max() == 0
    outside = FaceTrack(torch.tensor([[60.0, 60.0, 80.0, 80.0]]), (40, 50))
    assert torch.equal(paste(frames, crop(frames, outside, size=32), outside), frames)


def test_a_crop_is_a_part_of_the_enlarged_frame():
    """Pixels beside the square count at its edges, so the square leaves no seam."""
    frames = torch.rand(1, 40, 40, 3, generator=torch.manual_seed(0))
    part = FaceTrack(torch.tensor([[10.0, 10.0, 30.0, 30.0]]), (40, 40))
    whole = crop(frames, FaceTrack(torch.tensor([[0.0, 0.0, 40.0, 40.0]]), (40, 40)), size=80)
    assert torch.allclose(crop(frames, part, size=40), whole[:, 20:60, 20:60], atol=1e-5)


def test_colours_become_those_of_the_frame():
    frames, track = photograph(1)
    rows, columns = track.window(0)
    tinted = crop(frames, track) * torch.tensor([0.5, 0.8, 0.9]) + 0.1
    errors = []
    for strength in (0.0, 0.5, 1.0):
        pasted = paste(frames, tinted, track, match_colours=strength)
        difference = (pasted - frames)[0, rows, columns].mean((0, 1))
        errors.append(difference.abs().max().item())
    assert errors[0] > 0.05
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.05)
    assert errors[2] < 0.001
    almost_flat = 0.7 + 0.001 * (crop(frames, track) - 0.5)
    pasted = paste(frames, almost_flat, track, feather=0.0)
    assert pasted[0, rows, columns].flatten(0, 1).std(0).max() < 0.002


def test_parts_of_a_video_are_as_the_whole():
    frames = torch.rand(7, 40, 50, 3, generator=torch.manual_seed(0))
    boxes = [(10.0 + i, 5.0, 30.0 + 2 * i, 25.0) for i in range(7)]
    track = track_of_boxes(boxes, (40, 50))
    crops = crop(frames, track, size=32)
    pasted = paste(frames, 1 - crops, track)
    for part in (slice(0, 3), slice(3, 7)):
        assert torch.equal(crop(frames[part], track, part.start, size=32), crops[part])
        assert torch.equal(paste(frames[part], 1 - crops[part], track, part.start), pasted[part])


FRAMES = 100
TIME = np.arange(FRAMES) / 25
PATH = np.stack([160 + 60 * np.sin(TIME * np.pi), 120 + 30 * np.cos(TIME * 2)], axis=1)
"""The centre of a face that moves to and fro, once in two seconds."""


def moving(missing: range = range(0)) -> list[torch.Tensor]:
    """A white square of 60 pixels that moves along the path. In some frames it is hidden."""
    pictures = []
    for number, (x, y) in enumerate(PATH.round().astype(int)):
        picture = torch.zeros(240, 320, 3)
        if number not in missing:
            picture[y - 30 : y + 30, x - 30 : x + 30] = 1
        pictures.append(picture)
    return pictures


class Seen:
    """Finds the white square, up to three pixels beside it, and counts how often it looks."""

    def __init__(self):
        self.count, self.draws = 0, np.random.default_rng(0)

    def __call__(self, picture: torch.Tensor) -> list[Face]:
        self.count += 1
        if not picture.any():
            return []
        left, top, right, bottom = region_box(picture[0])
        dx, dy, grown = self.draws.uniform(-3, 3, 3)
        return [Face((left + dx, top + dy, right + dx + grown, bottom + dy + grown))]


def centres(track: FaceTrack) -> np.ndarray:
    return ((track.boxes[:, :2] + track.boxes[:, 2:]) / 2).numpy()


def jumps(values: np.ndarray) -> float:
    """The largest second difference."""
    return np.abs(np.diff(values, n=2, axis=0)).max()


def test_a_moving_face_is_followed_without_lag():
    find = Seen()
    track = track_face(iter(moving()), find)
    assert len(track) == FRAMES
    assert track.frame == (240, 320)
    assert find.count == -(-FRAMES // EVERY) + 1
    x = centres(track)[:, 0]
    errors = [np.abs(np.roll(x, -shift) - PATH[:, 0])[10:-10].mean() for shift in range(-3, 4)]
    assert np.argmin(errors) == 3
    assert errors[3] < 2.5
    assert np.abs(centres(track) - PATH).max() < 8
    sides = track.boxes[:, 2:] - track.boxes[:, :2]
    assert torch.allclose(sides[:, 0], sides[:, 1], atol=1e-3)
    assert (sides - 60).abs().max() < 4
    assert jumps(track.boxes.numpy()) < 2 * jumps(PATH)


def test_steady_motion_stays_as_it_is_to_both_ends():
    line = 3 + 0.7 * np.arange(50)
    assert np.allclose(smooth(line), line)
    assert np.allclose(smooth(np.array([5.0])), 5)
    noisy = line + np.random.default_rng(0).normal(0, 2, 50)
    assert jumps(smooth(noisy)) < jumps(noisy) / 20


def test_missing_faces_are_between_the_others():
    """Hidden for half a second, on the left."""
    hidden = range(31, 45)
    found = centres(track_face(moving(hidden), Seen()))[hidden.start : hidden.stop]
    expected = np.linspace(PATH[30], PATH[45], 16)[1:-1]
    assert np.abs(found - expected).max() < 10
    first = [None, None, (10.0, 10.0, 20.0, 20.0), None]
    assert torch.allclose(track_of_boxes(first, (40, 40)).boxes, torch.tensor([10.0, 10, 20, 20]))


def test_the_same_face_is_followed_when_another_becomes_larger():
    left = [(10.0 + i, 10.0, 50.0 + i, 50.0) for i in range(5)]
    right = [(100.0, 10.0, 120.0 + 15 * i, 30.0 + 15 * i) for i in range(5)]
    both = [
        sorted(map(Face, pair), key=lambda f: -f.area) for pair in zip(left, right, strict=True)
    ]
    assert follow(both, 0) == left
    assert follow(both, 1) == right
    both[2] = [Face(left[2])]
    assert follow([[], *both], 1) == [None, *right[:2], None, *right[3:]]


def test_without_a_face_it_is_the_square_in_the_middle(caplog):
    with caplog.at_level(logging.WARNING):
        track = track_face(torch.zeros(4, 40, 60, 3), Seen())
    assert torch.equal(track.boxes, torch.tensor([[10.0, 0.0, 50.0, 40.0]]).expand(4, -1))
    (message,) = caplog.messages
    assert message.startswith("No face was found: the square in the middle")


def test_a_region_stays_where_it_is():
    region = torch.zeros(40, 60)
    region[10:30, 20:34] = 1
    track = track_of_region(region, 3)
    assert torch.equal(track.boxes, torch.tensor([[17.0, 10.0, 37.0, 30.0]]).expand(3, -1))
    assert track.grown(1.5).boxes[2].tolist() == [12, 5, 42, 35]


def test_wrong_inputs():
    track = track_of_region(torch.ones(40, 60), 3)
    frames = torch.rand(3, 40, 60, 3)
    crops = crop(frames, track, size=32)
    with pytest.raises(InputError, match=r"^The frames have 40 x 40 pixels, .* had 60 x 40: conn"):
        crop(frames[:, :, :40], track)
    with pytest.raises(InputError, match=r"^There are more frames than the 3 of the track: "):
        paste(frames, crops, track, start=1)
    with pytest.raises(InputError, match=r"^There are 2 crops for 3 frames: what is between "):
        paste(frames, crops[:2], track)
    with pytest.raises(InputError, match=r"^The crops have 16 x 32 pixels, but must be square: "):
        paste(frames, crops[:, :, :16], track)
    with pytest.raises(InputError, match=r"^The video has no frames: "):
        track_face([], Seen())
    with pytest.raises(InputError, match=r"^There is no face 1: only one was found"):
        track_face(moving()[:2], Seen(), 1)
