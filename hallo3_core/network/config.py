"""The sizes of a Hallo3 model, and the frame arithmetic that all models share."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

from ..errors import InputError

FPS = 25
SAMPLE_RATE = 16_000

LATENT_FRAMES = 13
TIME_COMPRESSION = 4
SPACE_COMPRESSION = 8
Size = tuple[int, int]
"""Height and width."""
PATCH = 2

SEGMENT_FRAMES = (LATENT_FRAMES - 1) * TIME_COMPRESSION + 1
MOTION_FRAMES = 2
NEW_FRAMES = SEGMENT_FRAMES - MOTION_FRAMES

AUDIO_LAYERS = 12
AUDIO_WINDOW = 5


def frame_count(samples: int, rate: int) -> int:
    """Number of video frames that cover `samples` samples of sound at `rate` Hz."""
    return -(-samples * FPS // rate)


def segment_count(frames: int) -> int:
    """Number of segments that cover `frames` video frames."""
    return -(-frames // NEW_FRAMES)


def new_frame_count(frames: int, index: int) -> int:
    """Number of new frames in segment `index` of a video of `frames` frames: 47, or the rest."""
    return min(frames - index * NEW_FRAMES, NEW_FRAMES)


@dataclass(frozen=True)
class Hallo3Config:
    """Sizes of the networks. The defaults are those of the released model."""

    layers: int = 42
    heads: int = 48
    head_width: int = 64
    time_width: int = 512
    text_tokens: int = 226
    text_width: int = 4096
    latent_channels: int = 16
    latent_height: int = 60
    latent_width: int = 90
    audio_channels: int = 768
    audio_hidden: int = 512
    audio_tokens: int = 32
    audio_width: int = 768
    face_channels: int = 512
    face_tokens: int = 4
    face_width: int = 1024

    @property
    def width(self) -> int:
        return self.heads * self.head_width

    @property
    def canvas(self) -> Size:
        """Height and width of the canvas in pixels."""
        return self.latent_height * SPACE_COMPRESSION, self.latent_width * SPACE_COMPRESSION

    @property
    def grid(self) -> Size:
        """Rows and columns of patch tokens in a latent frame."""
        return self.latent_height // PATCH, self.latent_width // PATCH

    @property
    def frame_tokens(self) -> int:
        rows, columns = self.grid
        return rows * columns

    @classmethod
    def from_shapes(
        cls,
        denoiser: Mapping[str, tuple[int, ...]],
        audio_projector: Mapping[str, tuple[int, ...]],
        rotary_rows: int = 0,
        latent_size: tuple[int, int] | None = None,
    ) -> "Hallo3Config":
        """Derive the sizes from the parameter shapes of a denoiser and an audio projector.

        The position table has a row for each text and image token. `rotary_rows` is the number of
        image rows, if the checkpoint has a rotary table. Otherwise (0) 226 rows are text.
        `latent_size` is the height and width of the latent grid. Without it, a 2:3 canvas is
        assumed. Raises `InputError` if the number of tokens does not fit a 2:3 canvas, and
        `KeyError` if a parameter is missing.
        """
        rows = denoiser["embed.position"][1]
        text_tokens = rows - rotary_rows if rotary_rows else cls.text_tokens
        latent_size = latent_size or _two_by_three((rows - text_tokens) // LATENT_FRAMES)
        width, latent_channels = denoiser["embed.patch.weight"][:2]
        head_width = denoiser["layers.0.query_norm.weight"][0]
        audio_width = audio_projector["norm.weight"][0]
        face_width = denoiser["face_projector.norm.weight"][0]
        return cls(
            layers=len({name.split(".")[1] for name in denoiser if name.startswith("layers.")}),
            heads=width // head_width,
            head_width=head_width,
            time_width=denoiser["embed.time_in.weight"][0],
            text_tokens=text_tokens,
            text_width=denoiser["embed.text.weight"][1],
            latent_channels=latent_channels // 2,
            latent_height=latent_size[0],
            latent_width=latent_size[1],
            audio_channels=audio_projector["linear_1.weight"][1] // (AUDIO_WINDOW * AUDIO_LAYERS),
            audio_hidden=audio_projector["linear_1.weight"][0],
            audio_tokens=audio_projector["linear_3.weight"][0] // audio_width,
            audio_width=audio_width,
            face_channels=denoiser["face_projector.linear.weight"][1],
            face_tokens=denoiser["face_projector.linear.weight"][0] // face_width,
            face_width=face_width,
        )


def _two_by_three(frame_tokens: int) -> tuple[int, int]:
    unit = isqrt(max(frame_tokens, 0) // 6)
    if unit == 0 or 6 * unit * unit != frame_tokens:
        raise InputError(
            f"The position table has {frame_tokens} tokens for each latent frame, which do not "
            "make a 2:3 canvas: choose a model that has one."
        )
    return 2 * unit * PATCH, 3 * unit * PATCH
