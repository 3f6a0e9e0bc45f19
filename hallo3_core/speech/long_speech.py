"""Runs wav2vec2 on hours of speech. It computes the same as one call, in little memory.

The local parts of the network (convolutions, norms, feed-forward) are computed in overlapping
windows. Attention is computed over the whole speech, head by head.
"""

from collections.abc import Iterator
from math import ceil, floor

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Wav2Vec2Model
from transformers.models.wav2vec2.modeling_wav2vec2 import (
    Wav2Vec2Attention,
    Wav2Vec2EncoderLayer,
)

from ..network.config import FPS, SAMPLE_RATE

FRAME_SAMPLES = SAMPLE_RATE // FPS
WINDOW_FRAMES = 300
"""The number of video frames in a window."""


@torch.no_grad()
def long_hidden_states(encoder: Wav2Vec2Model, waveform: Tensor, steps: int) -> Iterator[Tensor]:
    """Yield the hidden states of each layer, (steps, channels), float32 on the CPU.

    `waveform` is (samples,) at 16 kHz. Its convolutional features are interpolated to `steps`.
    """
    hidden = embed_positions(encoder, project(encoder, waveform, steps))
    del waveform
    for layer in encoder.encoder.layers:
        hidden = transform(layer, hidden)
        yield widened(encoder, hidden)


def widened(encoder: Wav2Vec2Model, hidden: Tensor) -> Tensor:
    """Convert a hidden state to features, float32 on the CPU.

    The built-in encoder is narrower than the released one, so its hidden states are widened.
    """
    widen = getattr(encoder, "widen", nn.Identity())
    return widen(hidden).float().cpu()


def project(encoder: Wav2Vec2Model, waveform: Tensor, steps: int) -> Tensor:
    """The input of the first layer, (steps, width): projected convolutional features.

    `waveform` is (samples,). Its features are interpolated to `steps`.
    """
    reach, stride = reach_and_stride(encoder)
    count = (len(waveform) - reach) // stride + 1
    scale = torch.tensor((count - 1) / (steps - 1))
    projected = []
    scale_and_shift = whole_norm(encoder, waveform)
    for first in range(0, steps, WINDOW_FRAMES):
        # in float32: F.interpolate computes its positions in float32, too
        places = torch.arange(first, min(first + WINDOW_FRAMES, steps)) * scale
        start, stop = floor(places[0]), min(ceil(places[-1]) + 1, count)
        samples = waveform[start * stride : (stop - 1) * stride + reach]
        features = convolve(encoder, samples, *scale_and_shift)
        features = interpolate(features, (places - start).to(encoder.device))
        projected.append(encoder.feature_projection(features.transpose(1, 2))[0][0])
    return torch.cat(projected)


def convolve(encoder: Wav2Vec2Model, samples: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The convolutional features (1, channels, features) of a part of a waveform (samples,).

    `scale` and `shift` (1, channels, 1) replace the first layer's norm over time.
    """
    first, *others = encoder.feature_extractor.conv_layers
    found = first.conv(samples[None, None].to(encoder.device, encoder.dtype))
    found = first.activation(found * scale + shift)
    for layer in others:
        found = layer(found)
    return found


def interpolate(features: Tensor, places: Tensor) -> Tensor:
    """Interpolate features (batch, channels, features) linearly at `places`.

    Returns (batch, channels, places).
    """
    left = places.floor().long()
    right = (left + 1).clamp(max=features.shape[2] - 1)
    return torch.lerp(features[..., left], features[..., right], (places - left).to(features))


def reach_and_stride(encoder: Wav2Vec2Model) -> tuple[int, int]:
    """The receptive field of a convolutional feature and the stride of features, in samples."""
    reach, stride = 1, 1
    for kernel, step in zip(encoder.config.conv_kernel, encoder.config.conv_stride, strict=True):
        reach += (kernel - 1) * stride
        stride *= step
    return reach, stride


def whole_norm(encoder: Wav2Vec2Model, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift of the first layer's norm, from the statistics of the whole waveform.

    Each is (1, channels, 1), in the dtype of the encoder.
    """
    layer = encoder.feature_extractor.conv_layers[0]
    norm = layer.layer_norm
    reach, step = layer.conv.kernel_size[0], layer.conv.stride[0]
    total = square = count = 0
    window = WINDOW_FRAMES * FRAME_SAMPLES
    for start in range(0, len(waveform) - reach + 1, window):
        part = waveform[start : start + window + reach - step]
        found = layer.conv(part[None, None].to(encoder.device, encoder.dtype))
        total = total + found.sum(2, dtype=torch.float64)
        square = square + found.square().sum(2, dtype=torch.float64)
        count += found.shape[2]
    mean = total / count
    scale = (square / count - mean**2 + norm.eps).rsqrt() * norm.weight
    shift = norm.bias - mean * scale
    return scale[..., None].to(encoder.dtype), shift[..., None].to(encoder.dtype)


def embed_positions(encoder: Wav2Vec2Model, hidden: Tensor) -> Tensor:
    """Add the convolutional position embedding to (frames, width), then apply the layer norm."""
    around = encoder.config.num_conv_pos_embeddings
    result = torch.empty_like(hidden)
    for start in range(0, len(hidden), WINDOW_FRAMES):
        first = max(start - around, 0)
        seen = hidden[None, first : start + WINDOW_FRAMES + around]
        rows = slice(start - first, start - first + WINDOW_FRAMES)
        position = encoder.encoder.pos_conv_embed(seen)[0, rows]
        now = slice(start, start + WINDOW_FRAMES)
        result[now] = encoder.encoder.layer_norm(hidden[now] + position)
    return result


def transform(layer: Wav2Vec2EncoderLayer, hidden: Tensor) -> Tensor:
    """Apply one layer of the encoder to (frames, width)."""
    attended = attend(layer.attention, hidden)
    for start in range(0, len(hidden), WINDOW_FRAMES):
        now = slice(start, start + WINDOW_FRAMES)
        x = layer.layer_norm(hidden[now] + attended[now])
        attended[now] = layer.final_layer_norm(x + layer.feed_forward(x))
    return attended


def attend(attention: Wav2Vec2Attention, hidden: Tensor) -> Tensor:
    """Self-attention of (frames, width), head by head."""
    result = attention.out_proj.bias.expand_as(hidden).clone()
    for part in torch.arange(hidden.shape[1], device=hidden.device).chunk(attention.num_heads):
        query, key, value = (
            F.linear(hidden, linear.weight[part], linear.bias[part])[None, None]
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        head = F.scaled_dot_product_attention(query, key, value)[0, 0]
        result.addmm_(head, attention.out_proj.weight[:, part].T)
    return result
