"""Sounds of noise, as files of many kinds, and how close a sound is to what was written."""

import struct
from pathlib import Path

import av
import numpy as np
import torch

RATE = 44_100
MASK_5_1 = 0x3F
GUID = b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"


def voice(seconds: float = 2.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """(samples, 1): low noise within 0.6."""
    samples = np.random.default_rng(seed).standard_normal(int(seconds * rate))
    smooth = np.convolve(samples, np.ones(20) / 20, "same")
    return (0.6 * smooth / np.abs(smooth).max())[:, None].astype(np.float32)


def write(
    path: Path,
    samples: np.ndarray,
    codec: str,
    rate: int = RATE,
    *,
    start: float = 0,
    gap: tuple[float, float] = (0, 0),
) -> Path:
    """(samples, channels) as a file that begins at `start` s; a `gap` begins and lasts so long."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[samples.shape[1]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 128_000
        for first in range(0, len(samples), 1024):
            packed = np.ascontiguousarray(samples[first : first + 1024]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.rate = rate
            late = start + (gap[1] if gap[1] and first >= gap[0] * rate else 0)
            frame.pts = first + round(late * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000, mask: int | None = None) -> Path:
    """(samples, channels) as PCM of 16 bits, whose channels have names if there is a mask."""
    channels, data = samples.shape[1], (samples * 32_767).round().astype("<i2").tobytes()
    kind = 1 if mask is None else 0xFFFE
    form = struct.pack("<HHIIHH", kind, channels, rate, 2 * channels * rate, 2 * channels, 16)
    if mask is not None:
        form += struct.pack("<HHI", 22, 16, mask) + GUID
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def lag(found: torch.Tensor, expected: np.ndarray) -> int:
    """Samples by which (samples,) comes later than (samples, 1)."""
    size = 2 ** (len(found) + len(expected)).bit_length()
    spectra = np.conj(np.fft.rfft(expected[:, 0], size)) * np.fft.rfft(found.numpy(), size)
    shift = int(np.fft.irfft(spectra).argmax())
    return shift if shift < size // 2 else shift - size


def correlation(found: torch.Tensor, expected: np.ndarray) -> float:
    return np.corrcoef(found.numpy(), expected[: len(found), 0])[0, 1]
