"""Projectors that turn speech features and a face embedding into tokens for cross-attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import AUDIO_LAYERS, AUDIO_WINDOW, Hallo3Config
from .layers import Operations


class AudioProjector(nn.Module):
    """Turns the speech windows of a segment into audio tokens, one group per latent frame."""

    def __init__(self, config: Hallo3Config, operations: Operations = nn, **factory):
        super().__init__()
        features = AUDIO_WINDOW * AUDIO_LAYERS * config.audio_channels
        flat = config.audio_tokens * config.audio_width
        self.tokens = config.audio_tokens
        self.linear_1 = operations.Linear(features, config.audio_hidden, **factory)
        self.linear_2 = operations.Linear(config.audio_hidden, config.audio_hidden, **factory)
        self.linear_3 = operations.Linear(config.audio_hidden, flat, **factory)
        self.downsample = operations.Conv1d(flat, flat, kernel_size=2, stride=2, **factory)
        self.norm = operations.LayerNorm(config.audio_width, **factory)

    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows (batch, 49, 5, 12, channels) into tokens (batch, 13, tokens, width)."""
        x = F.relu(self.linear_1(windows.flatten(2)))
        x = F.relu(self.linear_2(x))
        x = self.linear_3(x).transpose(1, 2)
        for _ in range(2):
            x = torch.cat([x[..., :1], self.downsample(x[..., 1:])], dim=-1)
        return self.norm(x.transpose(1, 2).unflatten(-1, (self.tokens, -1)))


class FaceProjector(nn.Module):
    """Turns a face embedding into face tokens."""

    def __init__(self, config: Hallo3Config, operations: Operations, **factory):
        super().__init__()
        flat = config.face_tokens * config.face_width
        self.tokens = config.face_tokens
        self.linear = operations.Linear(config.face_channels, flat, **factory)
        self.norm = operations.LayerNorm(config.face_width, **factory)

    def forward(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (batch, channels) into tokens (batch, tokens, width)."""
        return self.norm(self.linear(embedding).unflatten(-1, (self.tokens, -1)))
