"""Silence around a sound, and its loudness."""

from itertools import chain

import torch
from torch import Tensor
from torchaudio.functional import loudness

from ..errors import InputError
from ..network.config import SAMPLE_RATE
from .sound import SampleFile, Sound

TARGET = -23.0
"""Loudness in LUFS, as EBU R 128 asks for."""
SHORTEST = 0.4
"""Seconds. The loudness of a shorter sound is not defined."""
LONGEST_SILENCE = 60.0


def with_silence(sound: Sound, before: float, after: float) -> Sound:
    """The sound with so many seconds of silence before and after it.

    Raises `InputError` if a time is negative or longer than a minute.
    """
    for seconds in (before, after):
        if not 0 <= seconds <= LONGEST_SILENCE:
            raise InputError(f"The silence is {seconds:g} s long: give 0 to {LONGEST_SILENCE:g}.")
    if not before and not after:
        return sound
    ends = [torch.zeros(sound.channels, round(s * sound.rate)) for s in (before, after)]
    return Sound(SampleFile(chain([ends[0]], sound.pieces(), [ends[1]])), sound.rate)


def normalized(sound: Sound) -> Sound:
    """The sound at a loudness of -23 LUFS. Silence, and sound below 0.4 s, is not changed.

    It is measured at full scale: the measure ignores what is below -70 LUFS.
    """
    waveform = sound.mono(SAMPLE_RATE)
    peak = waveform.abs().max() if len(waveform) else torch.zeros(())
    found = measured(waveform / peak) if peak > 0 else None
    if found is None:
        return sound
    factor = 10 ** ((TARGET - found) / 20) / peak.item()
    return Sound(SampleFile(piece * factor for piece in sound.pieces()), sound.rate)


def measured(waveform: Tensor) -> float | None:
    """The loudness of a waveform (samples,) at 16 kHz in LUFS, by ITU-R BS.1770.

    None if the waveform is silent or too short.
    """
    if len(waveform) < SHORTEST * SAMPLE_RATE:
        return None
    found = loudness(waveform[None], SAMPLE_RATE).item()
    return found if -70 < found < 70 else None
