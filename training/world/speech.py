"""Speech from espeak-ng: a waveform, and phonemes with their times.

All sound is mono, float32, at 16 kHz. Times are in seconds from its start.
"""

import _ctypes
import ctypes
from dataclasses import dataclass, replace

import espeakng_loader
import numpy as np
from scipy.signal import resample_poly

from hallo3_core.errors import InputError
from hallo3_core.network.config import SAMPLE_RATE

from .languages import LANGUAGES, Split

ESPEAK_RATE = 22_050
SYNCHRONOUS, PHONEMES_IN_IPA, UTF_8 = 2, 3, 1
WORDS_A_MINUTE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
PHONEME = 7

VOICES: dict[Split, str] = {
    "train": "m1 m2 m3 m5 m8 f1 f3 klatt klatt2 klatt4 klatt6 Alex Andrea Andy Denis Diogo Gene "
    "Henrique Hugo Jacky Lee Mario Michael Mike Nguyen anika announcer aunty belinda benjamin "
    "caleb david ed edward grandma gustave iven john marcelo max michel miguel norbert pedro "
    "quincy rob robert sandro shelby steph travis zac",
    "validation": "m6 f4 klatt5 Annie boris pablo",
    "test": "m4 m7 f2 f5 klatt3 Alicia Marco adam linda paul",
}
"""espeak's voice variants in each split."""


@dataclass(frozen=True)
class Voice:
    """A voice of espeak: language and variant, words a minute, pitch and its range (0 to 99)."""

    language: str
    variant: str
    rate: int
    pitch: int
    range: int

    @classmethod
    def sample(cls, split: Split, language: str, generator: np.random.Generator) -> "Voice":
        variant = str(generator.choice(VOICES[split].split()))
        rate, pitch, span = generator.integers((115, 15, 20), (225, 85, 80)).tolist()
        return cls(language, variant, rate, pitch, span)


@dataclass(frozen=True)
class Phoneme:
    """A sound in IPA ("" is a pause), its start and duration in seconds."""

    name: str
    start: float
    duration: float


@dataclass(frozen=True)
class Utterance:
    """All that is heard (samples,), only its voice (samples,), and the phonemes.

    Phonemes may begin before the waveform or end after it.
    """

    waveform: np.ndarray
    voice: np.ndarray
    phonemes: tuple[Phoneme, ...]


class Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


Receiver = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event)
)


class Espeak:
    """A copy of espeak's library for one speech.

    The library keeps random states from sentence to sentence and cannot reset them. Only a fresh
    copy speaks a sentence the same way each time. Raises `InputError` on Windows.
    """

    def __init__(self, voice: Voice):
        if not hasattr(_ctypes, "dlclose"):
            raise InputError("The drawn world speaks on Linux and macOS only: use one of them.")
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        ctypes.CDLL(None).srand(1)
        voices = espeakng_loader.get_data_path().encode()
        self.library.espeak_Initialize(SYNCHRONOUS, 0, voices, PHONEMES_IN_IPA)
        self.receiver = Receiver(self._receive)
        self.library.espeak_SetSynthCallback(self.receiver)
        self.library.espeak_SetVoiceByName(f"{voice.language}+{voice.variant}".encode())
        for parameter, value in ((WORDS_A_MINUTE, voice.rate), (PITCH, voice.pitch)):
            self.library.espeak_SetParameter(parameter, value, 0)
        self.library.espeak_SetParameter(RANGE, voice.range, 0)

    def __enter__(self) -> "Espeak":
        return self

    def __exit__(self, *error) -> None:
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)

    def _receive(self, samples, count: int, events) -> int:
        if count:
            self.samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for event in events:
            if event.type == 0:
                return 0
            if event.type == PHONEME:
                self.events.append((event.name.decode(errors="ignore"), event.sample))

    def say(self, text: str) -> tuple[np.ndarray, list[Phoneme]]:
        """A sentence, in [-1, 1], and its phonemes."""
        self.samples, self.events = [], []
        letters = text.encode()
        self.library.espeak_Synth(letters, len(letters) + 1, 0, 1, 0, UTF_8, None, None)
        samples = np.concatenate(self.samples)
        ends = [sample for _, sample in self.events[1:]] + [len(samples)]
        phonemes = [
            Phoneme(name, start / ESPEAK_RATE, (end - start) / ESPEAK_RATE)
            for (name, start), end in zip(self.events, ends, strict=True)
        ]
        return resample_poly(samples / np.float32(2**15), 320, 441), phonemes


def talk(split: Split, seconds: float, generator: np.random.Generator) -> Utterance:
    """Sentences of the split in one of its voices, cut out of a longer speech, without noise."""
    samples = round(seconds * SAMPLE_RATE)
    language = LANGUAGES[generator.integers(len(LANGUAGES))]
    lead = generator.uniform(0, 2.5)
    pieces, phonemes, length = [], [], 0
    with Espeak(Voice.sample(split, language.voice, generator)) as espeak:
        while length < samples + lead * SAMPLE_RATE:
            sound, spoken = espeak.say(language.sentence(split, generator))
            pause = round(generator.exponential(0.3) * SAMPLE_RATE)
            spoken.append(Phoneme("", len(sound) / SAMPLE_RATE, pause / SAMPLE_RATE))
            start = length / SAMPLE_RATE - lead
            phonemes += [replace(phoneme, start=phoneme.start + start) for phoneme in spoken]
            pieces += [sound * generator.uniform(0.4, 1), np.zeros(pause)]
            length += len(sound) + pause
    first = round(lead * SAMPLE_RATE)
    voice = np.concatenate(pieces)[first : first + samples].astype(np.float32)
    heard = tuple(p for p in phonemes if p.start + p.duration > 0 and p.start < seconds)
    return Utterance(voice, voice, heard)


def silence(seconds: float) -> Utterance:
    nothing = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    return Utterance(nothing, nothing, ())


def noise(samples: int, generator: np.random.Generator) -> np.ndarray:
    """White, pink or brown noise, or mains hum, with a root mean square of 1."""
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    kind = generator.integers(4)
    if kind < 3:
        sound = np.fft.irfft(spectrum / np.maximum(frequencies, 20) ** (kind / 2), samples)
    else:
        times = np.arange(samples) / SAMPLE_RATE
        base, phases = generator.choice((50, 60)), generator.uniform(0, 2 * np.pi, 6)
        sound = sum(np.sin(2 * np.pi * base * n * times + p) / n for n, p in enumerate(phases, 1))
    return (sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def record(speech: Utterance, generator: np.random.Generator) -> Utterance:
    """The speech with a random gain, and with noise in some clips."""
    voice = speech.voice
    level = np.sqrt(np.mean(voice**2)) or 0.1
    waveform = voice.copy()
    if generator.random() < (0.4 if voice.any() else 0.6):
        ratio = 10 ** (-generator.uniform(5, 35) / 20)
        waveform = waveform + noise(len(voice), generator) * level * ratio
    peak = np.abs(waveform).max() or 1
    gain = np.float32(10 ** generator.uniform(-1.1, -0.05) / peak)
    return Utterance(waveform * gain, voice * gain, speech.phonemes)
