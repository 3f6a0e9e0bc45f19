from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hallo3_core.errors import InputError
from hallo3_core.framing import FITS, published
from hallo3_core.portrait import face_region, read_image, read_mask

RED = (200, 100, 50)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", RED, ".png", RED),
        ("RGB", RED, ".bmp", RED),
        ("RGBA", (*RED, 255), ".png", RED),
        ("RGBA", (*RED, 0), ".png", (0, 0, 0)),
        ("RGBA", (*RED, 128), ".png", (100, 50, 25)),
        ("L", 77, ".png", (77, 77, 77)),
        ("LA", (80, 128), ".png", (40, 40, 40)),
        ("1", 1, ".png", (255, 255, 255)),
        ("P", 0, ".png", (0, 0, 0)),
        ("CMYK", (55, 155, 205, 0), ".tif", RED),
        ("I;16", 30_000, ".png", (117, 117, 117)),
        ("F", 65_535.0, ".tif", (255, 255, 255)),
        ("F", 0.5, ".tif", (127.5, 127.5, 127.5)),
    ],
)
def test_pictures_of_every_kind(tmp_path: Path, mode, colour, suffix, expected):
    path = tmp_path / f"picture{suffix}"
    Image.new(mode, (20, 30), colour).save(path)
    image = read_image(path)
    assert image.shape == (3, 30, 20)
    assert image.dtype == torch.float32
    assert (image[:, 5, 5] * 255).tolist() == pytest.approx(expected, abs=1)


def test_pictures_are_turned_upright(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path := tmp_path / "turned.jpg", exif=exif)
    upright = read_image(path)
    assert upright.shape == (3, 40, 20)
    assert upright[:, :18].mean() > 0.9
    assert upright[:, 22:].mean() < 0.1


def test_the_first_picture_of_an_animation_is_used(tmp_path):
    first, second = (Image.new("RGB", (20, 20), colour) for colour in ("white", "black"))
    first.save(path := tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert read_image(path).min() == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no picture"),
        (b"no picture at all", "is no picture"),
        (None, "There is no picture"),
    ],
)
def test_files_that_are_no_pictures(tmp_path, content, says):
    path = tmp_path / "picture.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_image(path)


def test_truncated_pictures(tmp_path, picture):
    cut = tmp_path / "cut.png"
    cut.write_bytes(picture.read_bytes()[:-200])
    with pytest.raises(InputError, match="is no picture that can be read"):
        read_image(cut)


def test_tiny_and_huge_pictures(tmp_path, picture, monkeypatch):
    Image.new("RGB", (1, 1)).save(tiny := tmp_path / "tiny.png")
    with pytest.raises(InputError, match=r"1 x 1 pixels.*at least 16"):
        read_image(tiny)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="megapixels: make it smaller"):
        read_image(picture)


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
    """101 x 70 covers 64 x 96 as 138 x 96, of which 37 rows are cut above and below."""
    rows = torch.linspace(0, 1, 101)[None, :, None].expand(3, -1, 70)
    fitted = fit(rows, (64, 96)).add(1).div(2)
    exact = torch.nn.functional.interpolate(rows[None], (138, 96), mode="bicubic", antialias=True)
    assert torch.allclose(fitted, exact[:, :, 37:101], atol=1e-6)


SIZES = [(480, 640), (640, 480), (500, 500), (333, 1000), (1000, 333), (97, 89), (33, 48)]


@pytest.mark.parametrize("picture", SIZES)
@pytest.mark.parametrize("fit", FITS)
def test_what_the_video_shows_is_the_picture(picture, fit):
    """Cut out of the canvas, it is the resized picture or a part of it, to the pixel."""
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
    """Of a tall picture, rows are cut that are far from the face."""
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


def test_masks_must_fit_and_show_a_face(tmp_path):
    Image.new("L", (30, 20), 255).save(mask := tmp_path / "mask.png")
    assert read_mask(mask, (20, 30)).shape == (20, 30)
    with pytest.raises(InputError, match="has 30 x 20 pixels and the portrait 40 x 50"):
        read_mask(mask, (50, 40))
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(mask)
    with pytest.raises(InputError, match="has no white in it"):
        read_mask(mask, (20, 30))
