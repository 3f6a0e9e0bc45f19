"""wav2vec2 over hours of speech: what a single call computes, in memory of a few tensors.

All that is local in the network (convolutions, norms, feed-forward) is done in overlapping windows,
and attention over the whole speech head by head.
"""

from collections.abc import Iterator
from math import ceil, floor

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Wav2Vec2Model
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2EncoderLayer

from ..network.config import FPS, SAMPLE_RATE

FRAME_SAMPLES = SAMPLE_RATE // FPS
WINDOW = 300
"""Frames of a window."""


@torch.no_grad()
def long_hidden_states(encoder: Wav2Vec2Model, waveform: Tensor, steps: int) -> Iterator[Tensor]:
    """Hidden states of every layer in turn, each (steps, channels), float32 on the CPU.

    `waveform` (samples,) at 16 kHz; its convolutional features are interpolated to `steps`.
    """
    hidden = embed_positions(encoder, project(encoder, waveform, steps))
    del waveform
    for layer in encoder.encoder.layers:
        hidden = transform(layer, hidden)
        yield widened(encoder, hidden)


def widened(encoder: Wav2Vec2Model, hidden: Tensor) -> Tensor:
    """A hidden state as features, float32 on the CPU; the built-in encoder is a narrow one."""
    widen = getattr(encoder, "widen", nn.Identity())
    return widen(hidden).float().cpu()


def project(encoder: Wav2Vec2Model, waveform: Tensor, steps: int) -> Tensor:
    """The convolutional features at `steps` places, as the first layer's width."""
    reach, stride = reach_and_stride(encoder)
    count = (len(waveform) - reach) // stride + 1
    scale = torch.tensor((count - 1) / (steps - 1))
    projected = []
    scale_and_shift = whole_norm(encoder, waveform)
    for first in range(0, steps, WINDOW):
        # in float32, which is how torch finds its places in a single call
        places = torch.arange(first, min(first + WINDOW, steps)) * scale
        start, stop = floor(places[0]), min(ceil(places[-1]) + 1, count)
        samples = waveform[start * stride : (stop - 1) * stride + reach]
        features = convolve(encoder, samples, *scale_and_shift)
        features = interpolate(features, (places - start).to(encoder.device))
        projected.append(encoder.feature_projection(features.transpose(1, 2))[0][0])
    return torch.cat(projected)


def convolve(encoder: Wav2Vec2Model, samples: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The convolutional features (1, channels, frames) of a part of a waveform.

    `scale` and `shift` (1, channels, 1) stand for the first layer's norm over time.
    """
    first, *others = encoder.feature_extractor.conv_layers
    found = first.conv(samples[None, None].to(encoder.device, encoder.dtype))
    found = first.activation(found * scale + shift)
    for layer in others:
        found = layer(found)
    return found


def interpolate(features: Tensor, places: Tensor) -> Tensor:
    """(batch, channels, frames) at places between the frames, linearly."""
    left = places.floor().long()
    right = (left + 1).clamp(max=features.shape[2] - 1)
    return torch.lerp(features[..., left], features[..., right], (places - left).to(features))


def reach_and_stride(encoder: Wav2Vec2Model) -> tuple[int, int]:
    """How many samples a convolutional feature sees, and how far apart features are."""
    reach, stride = 1, 1
    for kernel, step in zip(encoder.config.conv_kernel, encoder.config.conv_stride, strict=True):
        reach += (kernel - 1) * stride
        stride *= step
    return reach, stride


def whole_norm(encoder: Wav2Vec2Model, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift that are the first layer's norm over time, over all of a waveform.

    Each (1, channels, 1).
    """
    layer = encoder.feature_extractor.conv_layers[0]
    norm = layer.layer_norm
    reach, step = layer.conv.kernel_size[0], layer.conv.stride[0]
    total = square = count = 0
    window = WINDOW * FRAME_SAMPLES
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
    """(frames, width) with the convolutional position embedding, normed."""
    around = encoder.config.num_conv_pos_embeddings
    result = torch.empty_like(hidden)
    for start in range(0, len(hidden), WINDOW):
        first = max(start - around, 0)
        seen = hidden[None, first : start + WINDOW + around]
        rows = slice(start - first, start - first + WINDOW)
        position = encoder.encoder.pos_conv_embed(seen)[0, rows]
        now = slice(start, start + WINDOW)
        result[now] = encoder.encoder.layer_norm(hidden[now] + position)
    return result


def transform(layer: Wav2Vec2EncoderLayer, hidden: Tensor) -> Tensor:
    """A layer of the encoder on (frames, width)."""
    attended = attend(layer.attention, hidden)
    for start in range(0, len(hidden), WINDOW):
        now = slice(start, start + WINDOW)
        x = layer.layer_norm(hidden[now] + attended[now])
        attended[now] = layer.final_layer_norm(x + layer.feed_forward(x))
    return attended


def attend(attention: nn.Module, hidden: Tensor) -> Tensor:
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
