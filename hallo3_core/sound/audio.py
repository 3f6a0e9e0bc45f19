"""Sound from other programs: a mapping with a waveform and its sample rate."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InputError
from .sound import Sound, check_rate

MOST_CHANNELS = 256
ZERO = {torch.uint8: 128, torch.int16: 0, torch.int32: 0}
"""The value of silence in each integer dtype. Full scale is as many steps from it as this value,
or as the positive half of the dtype's range if it is 0."""

logger = logging.getLogger(__name__)


def sound_of_audio(audio: Mapping, what: str) -> Sound:
    """Read the first sound of a batch, mono or stereo. More than two channels become mono.

    `audio` is as in `read_audio`, which also raises the errors. `what` names the sound at the start
    of an error, such as "The soundtrack".
    """
    waveform, rate = read_audio(audio, what)
    if len(waveform) > 1:
        logger.warning("%s is a batch of %d sounds: only the first is used.", what, len(waveform))
    return Sound(waveform[0], rate).mixed(["NONE"] * waveform.shape[1])


def read_audio(audio: Mapping, what: str) -> tuple[Tensor, int]:
    """Return the waveform (batch, channels, samples), float32 on the CPU, and its rate in Hz.

    `audio` has a "waveform" and a "sample_rate". The waveform has floats, or uint8, int16 or int32
    PCM. Its batch and channel dimensions may be missing. The rate may be any number and is rounded.
    Raises `InputError` if `audio` is not a usable sound.
    """
    if not isinstance(audio, Mapping):
        found = "nothing" if audio is None else f"a {type(audio).__name__}"
        raise InputError(f"{what} is {found}, not a sound: connect one, such as Load Audio's.")
    for key in ("waveform", "sample_rate"):
        if audio.get(key) is None:
            raise InputError(f"{what} has no {key}: connect a sound, such as Load Audio's.")
    waveform = as_floats(audio["waveform"], what)
    if not waveform.numel():
        raise InputError(f"{what} is empty (no samples): connect another sound.")
    broken = (~waveform.isfinite()).sum().item()
    if broken:
        raise InputError(
            f"{what} has {broken:,} samples that are NaN or infinite: export it again."
        )
    return waveform, whole_rate(audio["sample_rate"], what)


def as_floats(waveform, what: str) -> Tensor:
    """Convert a waveform to (batch, channels, samples), float32 on the CPU. Full scale is 1.

    Raises `InputError` if its type, its shape or its number of channels (over 256) is wrong.
    """
    try:
        waveform = torch.as_tensor(waveform).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The waveform of {what.lower()} is a {type(waveform).__name__}: pass a tensor."
        ) from error
    if waveform.dtype in ZERO:
        scale = ZERO[waveform.dtype] or torch.iinfo(waveform.dtype).max + 1
        waveform = (waveform.double() - ZERO[waveform.dtype]) / scale
    if not 1 <= waveform.ndim <= 3 or not waveform.is_floating_point():
        raise InputError(
            f"The waveform of {what.lower()} is {tuple(waveform.shape)} of {waveform.dtype}: pass "
            "floats of shape (batch, channels, samples)."
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
    """Round a sample rate in Hz to an integer. Raises `InputError` if no sound has such a rate."""
    try:
        rate = round(float(rate))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"The sample rate of {what.lower()} is {rate!r}: pass a number, such as 44100."
        ) from error
    check_rate(rate)
    return rate
