"""The denoiser computes only what the mathematics needs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hallo3_core.network.config import LATENT_FRAMES, PATCH, Hallo3Config
from hallo3_core.network.transformer import Denoiser


def least(config: Hallo3Config) -> int:
    """FLOPs of a call that reuses constant keys and values. Only text and image have queries."""
    width, layers = config.width, config.layers
    image = LATENT_FRAMES * config.frame_tokens
    tokens = config.text_tokens + image
    keys = tokens + config.frame_tokens
    per_frame = config.face_tokens + config.audio_tokens
    attention = 4 * width * (tokens * keys + image * per_frame)
    matrices = 2 * width**2 * (tokens * (3 + 1 + 8) + image * 4)
    patch = PATCH**2 * config.latent_channels
    ends = 2 * width * (config.text_tokens * config.text_width + image * 3 * patch)
    return layers * (attention + matrices) + ends


@pytest.mark.parametrize("config", [Hallo3Config(), Hallo3Config(layers=8, heads=8)])
def test_a_call_computes_the_least_there_is(config):
    shape = (1, config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width)
    with torch.device("meta"), torch.no_grad():
        denoiser = Denoiser(config)
        tokens = torch.empty(1, config.frame_tokens, config.width)
        audio = torch.empty(1, LATENT_FRAMES, config.audio_tokens, config.audio_width)
        conditions = denoiser.conditions(
            torch.empty(1, config.text_tokens, config.text_width),
            torch.empty(shape),
            denoiser.reference_keys_values([tokens] * config.layers),
            denoiser.face_keys_values(torch.empty(1, config.face_channels)),
            audio,
        )
        with FlopCounterMode(display=False) as counter:
            denoiser(torch.empty(shape), torch.zeros(1), conditions)
    assert counter.get_total_flops() == pytest.approx(least(config), rel=0.01)
