"""Sound as other programs hand it over: a mapping of a waveform and its rate."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InputError
from .sound import Sound, check_rate

MOST_CHANNELS = 256
ZERO = {torch.uint8: 128, torch.int16: 0, torch.int32: 0}
"""Silence in whole numbers; as many more are full scale, or as many as the type has."""

logger = logging.getLogger(__name__)


def sound_of_audio(audio: Mapping, what: str) -> Sound:
    """The first sound of a batch, mono or stereo; more channels, which have no names, become mono.

    `what` begins the sentence of an error, such as "The soundtrack". See `read_audio`.
    """
    waveform, rate = read_audio(audio, what)
    if len(waveform) > 1:
        logger.warning("%s is a batch of %d sounds: the first is taken.", what, len(waveform))
    return Sound(waveform[0], rate).mixed(["NONE"] * waveform.shape[1])


def read_audio(audio: Mapping, what: str) -> tuple[Tensor, int]:
    """(batch, channels, samples), float32 on the CPU, and samples a second.

    `audio` has a "waveform", of floats or of PCM in whole numbers, also without a batch or
    channels, and a "sample_rate", any number. Raises `InputError` where no sound can be made of it.
    """
    if not isinstance(audio, Mapping):
        found = "nothing" if audio is None else f"a {type(audio).__name__}"
        raise InputError(f"{what} is {found} and not a sound: connect one, such as Load Audio's.")
    for key in ("waveform", "sample_rate"):
        if audio.get(key) is None:
            raise InputError(f"{what} has no {key}: connect a sound, such as Load Audio's.")
    waveform = as_floats(audio["waveform"], what)
    if not waveform.numel():
        raise InputError(f"{what} has no length: connect a sound that has.")
    broken = (~waveform.isfinite()).sum().item()
    if broken:
        raise InputError(
            f"{what} has {broken:,} samples that are no numbers (NaN or infinite): export it again."
        )
    return waveform, whole_rate(audio["sample_rate"], what)


def as_floats(waveform, what: str) -> Tensor:
    """(batch, channels, samples), float32 on the CPU, full scale being 1."""
    try:
        waveform = torch.as_tensor(waveform).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The waveform of {what.lower()} is a {type(waveform).__name__}: a tensor is needed."
        ) from error
    if waveform.dtype in ZERO:
        scale = ZERO[waveform.dtype] or torch.iinfo(waveform.dtype).max + 1
        waveform = (waveform.double() - ZERO[waveform.dtype]) / scale
    if not 1 <= waveform.ndim <= 3 or not waveform.is_floating_point():
        raise InputError(
            f"The waveform of {what.lower()} is {tuple(waveform.shape)} of {waveform.dtype}: "
            "(batch, channels, samples) of floats is needed."
        )
    waveform = waveform.float()[(None,) * (3 - waveform.ndim)]
    channels, samples = waveform.shape[1:]
    if channels > MOST_CHANNELS:
        raise InputError(
            f"{what} has {channels:,} channels of {samples:,} samples: swap the two in its "
            "waveform."
        )
    return waveform


def whole_rate(rate, what: str) -> int:
    """Samples a second as a whole number."""
    try:
        rate = round(float(rate))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"The sample rate of {what.lower()} is {rate!r}: a number is needed, such as 44100."
        ) from error
    check_rate(rate)
    return rate
