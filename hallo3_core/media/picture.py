"""Reading of pictures and masks: from files, or from tensors of any dtype on any device.

The results are pictures (3, height, width) in [0, 1] and masks (height, width), both float32 on
the CPU.
"""

import importlib
import importlib.util
import io
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError
from ..network.config import Size
from .outputs import check_file, write_file

SMALLEST_SIDE = 16
LONGEST = 100
"""The largest ratio of the longer side to the shorter side."""
MOST_PIXELS = 89_478_485
"""The limit of pixels, which is also Pillow's."""
WHITES = (1, 255, 65535)
"""Values of white in a floating-point picture: the first that no pixel exceeds. If all are
exceeded, white is the largest pixel."""
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Bytes 8 to 12 of a HEIC file."""
NOT_PAINTED = (64, 64)
"""The size of the empty mask that ComfyUI's Load Image gives if no mask was painted."""

logger = logging.getLogger(__name__)


def read_image(path: Path) -> Tensor:
    """Read any picture that Pillow can read, (3, height, width), float32 in [0, 1].

    It is turned upright, converted to sRGB, and put on black where it is transparent. Raises
    `InputError` if it cannot be read, is too large, too small or too long, or is not finite.
    """
    try:
        image = _open(path)
        if image.width * image.height > MOST_PIXELS:
            raise Image.DecompressionBombError
        picture = torch.from_numpy(_to_rgb(ImageOps.exif_transpose(image), path))
    except FileNotFoundError:
        raise InputError(f"There is no picture {path}: check the path.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = MOST_PIXELS / 1e6
        raise InputError(f"{path} has more than {limit:.0f} megapixels: make it smaller.") from None
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise InputError(
            f"{path} cannot be read as a picture ({error}): save it as PNG or JPEG."
        ) from error
    return check_picture(picture.permute(2, 0, 1), str(path))


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        with path.open("rb") as file:
            if file.read(12)[8:] not in HEIF:
                raise
    if importlib.util.find_spec("pillow_heif") is None:
        raise InputError(
            f"{path} is a HEIC picture: run `pip install pillow-heif`, or save it as PNG or JPEG."
        )
    importlib.import_module("pillow_heif").register_heif_opener()
    return Image.open(path)


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray:
    """Convert to (height, width, 3), float32 in [0, 1]."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.float32)
        most = grey.max()
        white = 65535 if image.mode != "F" else next((w for w in WHITES if not most > w), most)
        return np.repeat(grey[..., None] / white, 3, axis=2).clip(0, 1)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode == "LA" else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    elif image.mode not in ("L", "CMYK"):
        image = image.convert("RGB")
    image = _to_srgb(image, path)
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size), alpha)
    return np.asarray(image, dtype=np.float32) / 255


def _to_srgb(image: Image.Image, path: Path) -> Image.Image:
    """Convert from the colour profile of the picture to sRGB. Without one, it is sRGB already."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                "RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            image = converted or image
        except (OSError, ImageCms.PyCMSError) as error:
            logger.warning("The colour profile of %s cannot be used (%s).", path, error)
    return image.convert("RGB")


def read_mask(path: Path, size: Size) -> Tensor:
    """Read a black and white picture as a mask of a portrait of `size`.

    Raises `InputError` if it cannot be read, has another size, or is empty.
    """
    return _check_mask(read_image(path).mean(0), size, f"The face mask {path}")


def one_picture(images: Tensor) -> Tensor:
    """Read the portrait from a batch of one image. Raises `InputError` as `rgb_images` does."""
    pictures = rgb_images(images, "The portrait")
    if len(pictures) != 1:
        raise InputError(
            f"The portrait is a batch of {len(images)} images of {images.shape[-1]} channels: "
            "connect one RGB image."
        )
    return check_picture(pictures[0].movedim(-1, 0).contiguous())


def rgb_images(images: Tensor, name: str, last: int | None = None) -> Tensor:
    """Convert images (batch, height, width, channels) to RGB: 3 channels, float32 on the CPU.

    They may be grey, RGB or RGBA. RGBA is put on black. They may be bytes, or floats in [0, 1];
    other floats are clamped. `last` selects only the last images of the batch. `name` names the
    images in errors. Raises `InputError` if they are not such a tensor, are NaN or infinite, or
    have a mean above 1.
    """
    if not isinstance(images, Tensor):
        raise InputError(
            f"{name} is a {type(images).__name__}, not a picture: connect an RGB image."
        )
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or not len(images):
        shape = " x ".join(map(str, images.shape))
        raise InputError(
            f"{name} is an array of {shape}, not of batch x height x width x 3: connect an RGB "
            "image."
        )
    images = _to_floats(images[-last:] if last else images)
    if images.shape[-1] == 4:
        images = images[..., :3] * images[..., 3:]
    if not images.isfinite().all():
        raise no_numbers(name)
    if images.numel() and images.mean() > 1:
        raise InputError(
            f"{name} has values up to {images.max():g}, but black must be 0 and white 1: divide it "
            "by the value of white, such as 255."
        )
    return images.clamp(0, 1).expand(-1, -1, -1, 3)


def one_mask(mask: Tensor, size: Size) -> Tensor | None:
    """Read the mask of a portrait of `size`: (height, width), or a batch of one such mask.

    Returns None for the empty mask that Load Image gives if nothing is painted. Raises `InputError`
    if it is not a tensor, is several masks, has another size, is not finite, or is empty.
    """
    if not isinstance(mask, Tensor) or mask.ndim < 2:
        raise InputError(f"The mask is a {type(mask).__name__}, not a MASK: connect a mask.")
    masks = _to_floats(mask).reshape(-1, *mask.shape[-2:])
    if masks.shape[1:] == NOT_PAINTED and not masks.any():
        return None
    if len(masks) != 1:
        raise InputError(f"The mask is a batch of {len(masks)} masks: connect one.")
    return _check_mask(masks[0], size, "The mask")


def check_picture(picture: Tensor, name: str = "The portrait") -> Tensor:
    """Convert a picture of any device and dtype to float32 on the CPU, and check it.

    `name` names the picture in errors. Raises `InputError` if it is too small, too long, or not
    finite.
    """
    picture = _to_floats(picture)
    height, width = picture.shape[1:]
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{name} has {width} x {height} pixels: use a picture with at least {SMALLEST_SIDE} "
            "on each side."
        )
    if max(height, width) > LONGEST * min(height, width):
        raise InputError(
            f"{name} has {width} x {height} pixels, which is too long: crop it to the part with "
            "the face."
        )
    if not picture.isfinite().all():
        raise no_numbers(name)
    return picture


def _check_mask(mask: Tensor, size: Size, name: str) -> Tensor:
    if mask.shape != size:
        found, wanted = (f"{width} x {height}" for height, width in (mask.shape, size))
        raise InputError(
            f"{name} has {found} pixels, but the portrait has {wanted}: make the mask from the "
            "portrait itself."
        )
    if not mask.isfinite().all():
        raise no_numbers(name)
    if not (mask > 0.5).any():
        raise InputError(f"{name} is empty: paint the face white, or leave the mask out.")
    return mask


def size_of(picture: Tensor) -> Size:
    """Height and width of a picture or a mask, (..., height, width)."""
    height, width = picture.shape[-2:]
    return height, width


def no_numbers(name: str) -> InputError:
    """The error for a picture or mask with pixels that are NaN or infinite."""
    return InputError(f"{name} has pixels that are NaN or infinite: check what made it.")


def _to_floats(values: Tensor) -> Tensor:
    """Convert to float32 on the CPU. Bytes are divided by 255."""
    white = 255 if values.dtype == torch.uint8 else 1
    return values.detach().to("cpu", torch.float32) / white


def to_uint8(values: Tensor) -> Tensor:
    """Round values in [0, 1], of any shape and on any device, to uint8."""
    return (values * 255).round().byte()


def to_bytes(picture: Tensor) -> np.ndarray:
    """Convert a picture (3, height, width) on any device to (height, width, 3), uint8."""
    return to_uint8(picture).permute(1, 2, 0).contiguous().cpu().numpy()


def check_picture_file(path: Path, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Raise `InputError` if no picture can or may be written to `path`; see `check_file`."""
    picture_format(path)
    check_file(path, inputs, overwrite)


def picture_format(path: Path) -> str:
    """Pillow's name of the format of a file name. Raises `InputError` if it cannot be written."""
    found = Image.registered_extensions().get(path.suffix.lower())
    if found not in Image.SAVE:
        raise InputError(f"{path} has no extension of a picture format: name it .png or .jpg.")
    return found


def save_picture(picture: Tensor, path: Path, overwrite: bool = False) -> None:
    """Write a picture (3, height, width) to `path`. Raises `InputError` if it cannot be written."""
    content = io.BytesIO()
    Image.fromarray(to_bytes(picture)).save(content, picture_format(path))
    write_file(path, content.getvalue(), overwrite)
