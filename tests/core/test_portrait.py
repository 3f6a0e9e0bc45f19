from types import SimpleNamespace

import pytest
import torch
from skimage.color import rgb2lab

from hallo3_core.errors import InputError
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.anchor import anchored
from hallo3_core.portrait.encode import encode_portrait, framed_region
from hallo3_core.portrait.face_mask import box_region, face_box, face_region, region_box
from hallo3_core.portrait.framing import FITS, published


def fit(image, canvas):
    return published(tuple(image.shape[1:]), canvas).apply(image)


def shown(image, canvas):
    return published(tuple(image.shape[1:]), canvas).place


def test_a_square_is_padded_and_others_are_cropped():
    square = fit(torch.ones(3, 70, 70), (32, 48))
    assert square.shape == (1, 3, 32, 48)
    assert (square[..., 8:40] > 0.999).all()
    assert (square[..., :8] == -1).all()
    assert (square[..., 40:] == -1).all()
    assert shown(torch.ones(3, 70, 70), (32, 48)) == (slice(0, 32), slice(8, 40))

    tall = torch.zeros(3, 200, 60)
    tall[:, 80:120] = 1
    fitted = fit(tall, (32, 48))
    assert fitted.shape == (1, 3, 32, 48)
    assert (fitted[0, 0, 2:-2] > 0.9).all()
    assert shown(tall, (32, 48)) == (slice(0, 32), slice(0, 48))


def test_a_cover_that_does_not_divide_is_rounded_down():
    """101 x 70 is resized to 138 x 96 and covers 64 x 96. 37 rows are cut at the top and bottom."""
    rows = torch.linspace(0, 1, 101)[None, :, None].expand(3, -1, 70)
    fitted = fit(rows, (64, 96)).add(1).div(2)
    exact = torch.nn.functional.interpolate(rows[None], (138, 96), mode="bicubic", antialias=True)
    assert torch.allclose(fitted, exact[:, :, 37:101], atol=1e-6)


SIZES = [(480, 640), (640, 480), (500, 500), (333, 1000), (1000, 333), (97, 89), (33, 48)]


@pytest.mark.parametrize("picture", SIZES)
@pytest.mark.parametrize("fit", FITS)
def test_what_the_video_shows_is_the_picture(picture, fit):
    """The visible part of the canvas is the resized picture or a part of it, exactly."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, *picture, generator=generator)
    framing = FITS[fit](picture, (64, 96), (10, 5, 40, 30))
    resized = torch.nn.functional.interpolate(
        image[None],
        framing.size,
        mode="bicubic" if framing.smooth else "bilinear",
        antialias=True,
    )
    rows, columns = framing.place
    top, left = framing.corner
    part = resized[..., rows.start - top : rows.stop - top, :]
    expected = part[..., columns.start - left : columns.stop - left].clamp(0, 1)
    canvas = framing.apply(image)
    assert canvas.shape == (1, 3, 64, 96)
    assert torch.allclose((canvas[..., rows, columns] / 2 + 0.5).clamp(0, 1), expected, atol=1e-6)
    outside = torch.ones(64, 96, dtype=bool)
    outside[rows, columns] = False
    assert (canvas[..., outside] == -1).all()
    height, width = rows.stop - rows.start, columns.stop - columns.start
    assert height % 2 == 0
    assert width % 2 == 0
    if fit == "pad":
        assert height == 64 or width == 96
        assert height / width == pytest.approx(picture[0] / picture[1], rel=0.07)
    if fit == "crop":
        assert (height, width) == (64, 96)


@pytest.mark.parametrize(
    ("face", "corner"),
    [((20, 100, 60, 140), (-88, 0)), ((20, 0, 60, 10), (0, 0)), ((0, 290, 9, 300), (-236, 0))],
)
def test_a_crop_keeps_the_face_in_its_middle(face, corner):
    """The rows of a tall picture that are far from the face are cut."""
    framing = FITS["crop"]((300, 96), (64, 96), face)
    assert framing.size == (300, 96)
    assert framing.corner == corner
    left, top, right, bottom = framing.box(face, (300, 96))
    assert 0 <= left < right <= 96
    assert 0 <= top < bottom <= 64


def test_face_region_grows_about_its_centre_and_stays_inside():
    mask = torch.zeros(100, 200)
    mask[40:60, 100:150] = 1
    rows, columns = face_region(mask).nonzero().unbind(1)
    assert (rows.min(), rows.max() + 1) == (38, 62)
    assert (columns.min(), columns.max() + 1) == (95, 155)

    corner = torch.zeros(100, 200)
    corner[90:100, 0:40] = 1
    rows, columns = face_region(corner).nonzero().unbind(1)
    assert (rows.min(), rows.max() + 1) == (88, 100)
    assert (columns.min(), columns.max() + 1) == (0, 48)

    assert (face_region(torch.ones(10, 10)) == 1).all()

    assert face_region(torch.ones(1, 1), 0.5).sum() == 1
    for growth in (0.4, 5.1, float("nan")):
        with pytest.raises(InputError, match=rf"face box is {growth}: choose 0.5 to 5"):
            face_region(corner, growth)


TALL, CANVAS = (1200, 800), (128, 192)


@pytest.mark.parametrize(
    ("face", "like"),
    [
        (None, "published"),
        ((0, 0, 800, 1200), "published"),  # the whole picture has no face box
        ((300, 500, 500, 700), "published"),
        ((300, 316, 500, 516), "published"),  # 17 of 200 rows are cut, less than a tenth
        ((300, 310, 500, 510), "crop"),  # 23 of 200
        ((240, 60, 480, 340), "crop"),
        ((100, 300, 700, 900), "pad"),  # too tall for 3:2
    ],
)
def test_the_face_stays_in_the_video(face, like):
    """The published fit shows rows 333 to 867 of a 2:3 picture."""
    region = None if face is None else box_region(face, TALL, growth=1)
    framing = FITS["auto"](TALL, CANVAS, face_box(region))
    assert framing == FITS[like](TALL, CANVAS, face)
    if region is not None and face != (0, 0, 800, 1200):
        assert framing.share(face, TALL) > 0.9


def test_how_much_of_a_face_is_shown():
    framing = published(TALL, CANVAS)
    assert framing.size == (288, 192)
    assert framing.corner == (-80, 0)
    assert framing.share((0, 0, 10, 10), TALL) == 0
    assert framing.share((0, 233, 800, 433), TALL) == pytest.approx(0.5, abs=0.01)
    assert framing.share((300, 400, 500, 600), TALL) == pytest.approx(1)


def test_a_face_that_is_cut_away_is_said(recorded_model, caplog):
    """The published fit logs a warning and is not changed. The other fits log nothing."""
    canvas = recorded_model.config.canvas
    image = torch.rand(3, *TALL, generator=torch.Generator().manual_seed(1))
    region = box_region((240, 60, 480, 340), TALL)

    def encoded(fit):
        caplog.clear()
        networks = recorded_model.vae, recorded_model.reference_network
        return encode_portrait(*networks, image, region, SeededNoise(0), fit=fit)

    identity = encoded("published")
    assert caplog.messages == ["The fit published cuts 90 % of the face away: choose auto, or pad."]
    assert torch.equal(identity.portrait, published(TALL, canvas).apply(image))
    for fit in ("auto", "crop", "pad"):
        encoded(fit)
        assert not caplog.messages


@pytest.mark.parametrize(
    ("fit", "box", "size"),
    [
        ("published", (0, 0, 60, 30), (128, 192)),  # the upper half of the face is cut away
        ("crop", (58, 14, 115, 82), (128, 192)),
        ("pad", (26, 6, 52, 36), (128, 86)),
        ("auto", (58, 14, 115, 82), (128, 192)),
    ],
)
def test_the_region_as_the_video_has_it(fit, box, size):
    """The face is at rows 60 to 340 and columns 240 to 480 of 800 x 1200."""
    face = (0, 200, 250, 460) if fit == "published" else (240, 60, 480, 340)
    region = box_region(face, TALL, growth=1)
    shown = framed_region(FITS[fit](TALL, CANVAS, face_box(region)), region)
    assert shown.shape == size
    assert region_box(shown) == box
    assert shown.sum() == (box[2] - box[0]) * (box[3] - box[1])


def test_a_picture_of_no_numbers_is_not_encoded(recorded_model):
    image = torch.rand(3, 40, 60)
    image[1, 2, 3] = float("nan")
    networks = recorded_model.vae, recorded_model.reference_network
    with pytest.raises(InputError, match="The portrait has pixels that are NaN or infinite"):
        encode_portrait(*networks, image, None, SeededNoise(0))


def lab(pictures: torch.Tensor) -> torch.Tensor:
    """The mean and the standard deviation of each channel of Lab, (2, 3)."""
    pixels = torch.from_numpy(rgb2lab(pictures.numpy())).flatten(0, -2)
    return torch.stack([pixels.mean(0), pixels.std(0)])


def test_the_anchor_brings_frames_to_the_colours_of_the_portrait():
    """Frames that are too dark and too red. The bars beside the picture stay black."""
    generator = torch.Generator().manual_seed(0)
    portrait = torch.rand(1, 3, 32, 48, generator=generator) * 0.4 - 0.2
    identity = SimpleNamespace(portrait=portrait, place=(slice(0, 32), slice(8, 40)))
    shown = (portrait.movedim(1, -1)[:, :, 8:40] + 1) / 2
    frames = torch.zeros(2, 32, 48, 3)
    frames[:, :, 8:40] = shown.flip(1) * torch.tensor([0.8, 0.5, 0.5])
    wanted, before = lab(shown), lab(frames[:, :, 8:40])
    assert (before - wanted).abs().max() > 15
    found = anchored(frames, identity, 1.0)
    assert (lab(found[:, :, 8:40]) - wanted).abs().max() < 0.1
    half = anchored(frames, identity, 0.5)
    assert torch.allclose(half, (frames + found) / 2, atol=1e-6)
    assert not found[:, :, :8].any()
    assert anchored(frames, identity, 0.0) is frames


def test_the_anchor_moves_flat_frames_to_the_mean_colour():
    portrait = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2
    identity = SimpleNamespace(portrait=portrait, place=(slice(0, 32), slice(0, 48)))
    frames = torch.full((2, 32, 48, 3), 0.3)
    found = anchored(frames, identity, 1.0)
    assert found.flatten(0, 2).std(0).max() < 1e-5
    assert (lab(found)[0] - lab((portrait.movedim(1, -1) + 1) / 2)[0]).abs().max() < 0.1
