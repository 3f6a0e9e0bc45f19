"""Pictures and masks as input: files of every kind, tensors of every dtype."""

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

from hallo3_core.errors import InputError
from hallo3_core.media import picture as pictures
from hallo3_core.media.picture import (
    one_mask,
    one_picture,
    read_image,
    read_mask,
    rgb_images,
    to_bytes,
)

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
        ("F", 1e6, ".tif", (255, 255, 255)),
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
        (b"", "cannot be read as a picture"),
        (b"no picture at all", "cannot be read as a picture"),
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
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_image(cut)


def test_tiny_and_huge_pictures(tmp_path, picture, monkeypatch):
    Image.new("RGB", (1, 1)).save(tiny := tmp_path / "tiny.png")
    with pytest.raises(InputError, match=r"1 x 1 pixels.*at least 16"):
        read_image(tiny)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="megapixels: make it smaller"):
        read_image(picture)


def test_no_filter_of_warnings_changes_meanwhile(picture, monkeypatch):
    """Warning filters belong to the process, so a change would affect other threads."""
    monkeypatch.setattr(warnings, "catch_warnings", None)
    before = list(warnings.filters)
    read_image(picture)
    assert warnings.filters == before


def test_numbers_that_are_none_in_a_file(tmp_path):
    pixels = np.ones((20, 20), np.float32)
    pixels[3, 4] = np.nan
    Image.fromarray(pixels).save(path := tmp_path / "nan.tif")
    with pytest.raises(InputError, match=r"nan\.tif has pixels that are NaN or infinite"):
        read_image(path)


def wide_gamut(green: tuple[float, float]) -> bytes:
    """A profile like sRGB, but with a purer green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    place = profile.index(b"gXYZ")
    start = int.from_bytes(profile[place + 4 : place + 8], "big") + 8
    for i, value in enumerate((*green, 0.05)):
        profile[start + 4 * i : start + 4 * i + 4] = round(value * 65536).to_bytes(4, "big")
    return bytes(profile)


def test_colours_are_those_of_the_profile(tmp_path):
    """Converting to another profile and back gives the same colours. Transparency stays."""
    srgb, profile = ImageCms.createProfile("sRGB"), wide_gamut((0.30, 0.72))
    rows, columns = np.mgrid[0:60, 0:90]
    pixels = np.stack([columns + 60, rows * 2 + 70, columns + rows + 50], axis=2).astype(np.uint8)
    wide = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    there = ImageCms.profileToProfile(Image.fromarray(pixels), srgb, wide, outputMode="RGB")
    assert np.abs(np.asarray(there).astype(int) - pixels).max() > 10
    there.save(path := tmp_path / "wide.png", icc_profile=profile)
    assert np.abs(to_bytes(read_image(path)).astype(int) - pixels).max() <= 2
    there.putalpha(255)
    there.save(path, icc_profile=profile)
    assert np.abs(to_bytes(read_image(path)).astype(int) - pixels).max() <= 2
    there.putalpha(0)
    there.save(path, icc_profile=profile)
    assert read_image(path).max() == 0


@pytest.mark.parametrize("profile", [b"no profile at all", "grey"])
def test_a_profile_that_is_of_no_use(tmp_path, caplog, profile):
    """It is ignored with a warning. The profile of sRGB changes nothing."""
    picture = Image.new("RGB", (20, 20), RED)
    if profile == "grey":
        picture, profile = picture.convert("L"), wide_gamut((0.30, 0.72))
    picture.save(path := tmp_path / "picture.png", icc_profile=profile)
    expected = np.asarray(picture.convert("RGB"))
    assert (to_bytes(read_image(path)) == expected).all()
    assert "The colour profile of" in caplog.text
    caplog.clear()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.convert("RGB").save(path, icc_profile=srgb)
    assert (to_bytes(read_image(path)) == expected).all()
    assert not caplog.text


HEIF_OPENER = """
from PIL import Image

def register_heif_opener():
    picture = Image.new("RGB", (20, 30), "white")
    Image.register_open("HEIF", lambda file, name: picture, lambda start: start[4:8] == b"ftyp")
"""


def test_pictures_of_phones(tmp_path, monkeypatch):
    """pillow-heif reads HEIC. Here a stand-in replaces its module."""
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x24ftypheic" + b"\0" * 100)
    find_spec = pictures.importlib.util.find_spec
    monkeypatch.setattr(
        pictures.importlib.util,
        "find_spec",
        lambda name: None if name == "pillow_heif" else find_spec(name),
    )
    with pytest.raises(
        InputError, match="is a HEIC picture: run `pip install pillow-heif`, or save"
    ):
        read_image(path)
    monkeypatch.undo()

    (tmp_path / "pillow_heif.py").write_text(HEIF_OPENER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pillow_heif", raising=False)
    for table in ("OPEN", "ID"):
        monkeypatch.setattr(Image, table, getattr(Image, table).copy())
    assert read_image(path).shape == (3, 30, 20)
    del sys.modules["pillow_heif"]  # the stand-in


def test_masks_must_fit_and_show_a_face(tmp_path):
    Image.new("L", (30, 20), 255).save(mask := tmp_path / "mask.png")
    assert read_mask(mask, (20, 30)).shape == (20, 30)
    with pytest.raises(InputError, match="has 30 x 20 pixels, but the portrait has 40 x 50"):
        read_mask(mask, (50, 40))
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(mask)
    with pytest.raises(InputError, match="is empty: paint the face white"):
        read_mask(mask, (20, 30))


PIXELS = torch.rand(1, 20, 30, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("images", "within"),
    [
        (PIXELS, 0),
        (PIXELS.half(), 1e-3),
        (PIXELS.bfloat16(), 5e-3),
        (PIXELS.double(), 1e-7),
        ((PIXELS * 255).round().byte(), 3e-3),
        (PIXELS.flip(2).flip(2).requires_grad_(), 0),
        (torch.cat([PIXELS, torch.ones(1, 20, 30, 1)], dim=3), 0),
    ],
)
def test_images_of_every_dtype(images, within):
    picture = one_picture(images)
    assert type(picture) is Tensor
    assert picture.shape == (3, 20, 30)
    assert picture.dtype == torch.float32
    assert not picture.requires_grad
    assert (picture - PIXELS[0].movedim(-1, 0)).abs().max() <= within


def test_images_of_other_channels_and_values():
    """Grey pictures, transparent pictures on black, and values outside of [0, 1]."""
    assert torch.equal(one_picture(PIXELS[..., :1])[2], PIXELS[0, ..., 0])
    half = torch.full((1, 20, 30, 1), 0.5)
    transparent = one_picture(torch.cat([PIXELS, half], dim=3))
    assert torch.equal(transparent, PIXELS[0].movedim(-1, 0) * 0.5)
    assert one_picture(PIXELS * 1.5 - 0.25).min() == 0
    assert one_picture(PIXELS * 1.5 - 0.25).max() == 1
    frames = rgb_images(PIXELS.expand(5, -1, -1, -1), "The frames", last=2)
    assert frames.shape == (2, 20, 30, 3)


def with_pixel(value: float) -> Tensor:
    images = PIXELS.clone()
    images[0, 3, 4, 1] = value
    return images


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (None, "The portrait is a NoneType, not a picture: connect an RGB image"),
        (PIXELS.numpy(), "The portrait is a ndarray, not a picture"),
        (PIXELS[0], "The portrait is an array of 20 x 30 x 3, not of batch x height x width"),
        (PIXELS.movedim(-1, 1), "The portrait is an array of 1 x 3 x 20 x 30, not"),
        (PIXELS[:0], "an array of 0 x 20 x 30 x 3"),
        (PIXELS.expand(2, -1, -1, -1), "a batch of 2 images of 3 channels"),
        (PIXELS[:, :1, :1], "The portrait has 1 x 1 pixels: use a picture with at least 16"),
        (PIXELS.repeat(1, 1, 70, 1), "The portrait has 2100 x 20 pixels, which is too long"),
        (with_pixel(float("nan")), "The portrait has pixels that are NaN or infinite"),
        (with_pixel(float("inf")), "The portrait has pixels that are NaN or infinite"),
        (with_pixel(float("nan")).half(), "The portrait has pixels that are NaN or infinite"),
        (
            PIXELS / PIXELS.max() * 255,
            "The portrait has values up to 255, but black must be 0 and white 1: divide",
        ),
    ],
)
def test_images_that_are_none(images, says):
    with pytest.raises(InputError, match=says) as error:
        one_picture(images)
    assert "\n" not in str(error.value)


MASK = torch.zeros(20, 30)
MASK[5:9, 7:12] = 1


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        MASK[None],
        MASK[None, None],
        MASK.half(),
        MASK.bool(),
        (MASK * 255).byte(),
    ],
)
def test_masks_of_every_dtype(mask):
    taken = one_mask(mask, (20, 30))
    assert type(taken) is Tensor
    assert taken.dtype == torch.float32
    assert torch.equal(taken, MASK)


def test_nothing_painted_is_no_mask():
    """Load Image gives such a mask if nothing was painted.

    An empty mask with the size of the picture is an error.
    """
    assert one_mask(torch.zeros(1, 64, 64).half(), (20, 30)) is None
    assert one_mask(torch.zeros(1, 64, 64), (64, 64)) is None
    with pytest.raises(InputError, match="The mask is empty: paint the face white, or leave"):
        one_mask(torch.zeros(1, 20, 30), (20, 30))
    with pytest.raises(
        InputError, match="The mask has 64 x 64 pixels, but the portrait has 30 x 20"
    ):
        one_mask(torch.ones(1, 64, 64), (20, 30))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (None, "The mask is a NoneType, not a MASK"),
        (MASK.expand(3, -1, -1), "The mask is a batch of 3 masks: connect one"),
        (MASK / MASK, "The mask has pixels that are NaN or infinite"),
    ],
)
def test_masks_that_are_none(mask, says):
    with pytest.raises(InputError, match=says):
        one_mask(mask, (20, 30))
