"""Training of the small speech encoder: each layer learns to predict the shape of the mouth.

The audio projector then takes its hidden states, as it takes those of the released wav2vec2.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hallo3_core.builtin import SmallSpeechEncoder
from hallo3_core.network.config import AUDIO_LAYERS
from hallo3_core.speech.encode import hidden_states, padded
from hallo3_core.speech.long_speech import FRAME_SAMPLES

from .loop import Loop, Settings
from .pool import sounds

SETTINGS = Settings(steps=6000, rate=2e-3, matrix_rate=5e-3)
CLIPS, FRAMES = 3000, 196
LENGTHS = (49, 98, 196)
BATCH = 4
SHAPES = 3


class MouthReader(nn.Module):
    """The encoder, with a linear layer from each hidden state to the mouth's shape for training."""

    def __init__(self):
        super().__init__()
        self.encoder = SmallSpeechEncoder()
        channels = self.encoder.widen.out_features
        self.heads = nn.ModuleList(nn.Linear(channels, SHAPES) for _ in range(AUDIO_LAYERS))

    def forward(self, waveform: Tensor, frames: int) -> Tensor:
        """The mouth as each layer predicts it, (12, frames, 3), from (samples,) at 16 kHz."""
        states = hidden_states(self.encoder, padded(waveform, 0), frames)
        states = states.to(self.encoder.device)
        return torch.stack([head(states[:, i]) for i, head in enumerate(self.heads)])


def losses(
    reader: MouthReader, pool: tuple[np.ndarray, np.ndarray], step: int
) -> dict[str, Tensor]:
    generator = np.random.default_rng([11, step])
    frames = generator.choice(LENGTHS)
    total = 0
    for _ in range(BATCH):
        clip = generator.integers(len(pool[0]))
        start = generator.integers(FRAMES - frames + 1)
        heard = slice(start * FRAME_SAMPLES, (start + frames) * FRAME_SAMPLES)
        waveform = torch.from_numpy(pool[0][clip, heard].astype(np.float32))
        mouth = torch.from_numpy(pool[1][clip, start : start + frames])
        found = reader(waveform, int(frames))
        total = total + F.mse_loss(found, mouth.expand_as(found).to(found.device)) / BATCH
    return {"mouth": total}


def train(folder: Path, settings: Settings = SETTINGS) -> MouthReader:
    """Train the encoder. Returns the average of it and its heads."""
    torch.manual_seed(0)
    reader = MouthReader()
    pool = sounds(folder / "sounds", "train", CLIPS, FRAMES)
    loop = Loop(folder / "speech_encoder", reader, settings)
    loop.run(lambda step: losses(reader, pool, step))
    return loop.finish()


@torch.no_grad()
def correlation(reader: MouthReader, pool: tuple[np.ndarray, np.ndarray]) -> Tensor:
    """Correlation of the last layer's opening of the mouth with the true one, over all clips."""
    waveforms, mouths = pool
    found = [
        reader(torch.from_numpy(w.astype(np.float32)), mouths.shape[1])[-1, :, 0].cpu()
        for w in waveforms
    ]
    true = torch.from_numpy(mouths[..., 0].copy())
    return torch.corrcoef(torch.stack([torch.stack(found).flatten(), true.flatten()]))[0, 1]
