"""The built-in model: small networks with the same inputs and outputs as the released model.

It needs no download and runs on a laptop. It was trained only on drawn people with synthetic voices
(docs/training.md). It has not learned photographs, prompts or face embeddings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel, Wav2Vec2Config, Wav2Vec2Model

from ..autoencoder.vae import autoencoder
from ..model.hallo3 import Hallo3
from ..model.loading import load_transformers
from ..network.config import Hallo3Config
from ..text import TextEncoder

DRAWN_ONLY = (
    "The built-in model knows only drawn faces: for a photograph take the released one, which "
    "`python -m hallo3_core download` brings."
)
"""The warning to a user who gives the built-in model another picture."""

WEIGHTS = Path(__file__).parent / "weights"
TRANSFORMER_FILE = "diffusion_models/hallo3_dit_bf16.safetensors"
DISTILLED_FILE = "distilled_denoiser.safetensors"
TWO_PEOPLE_FILE = "two_people_denoiser.safetensors"
STEPS = 4
"""The number of steps that the distilled denoiser was trained for."""
VAE_FILE = "vae.safetensors"
SPEECH_ENCODER_FILE = "speech_encoder.safetensors"
SEED = 3

CONFIG = Hallo3Config(
    layers=4,
    heads=2,
    time_width=64,
    latent_height=16,
    latent_width=24,
    audio_hidden=32,
    audio_tokens=4,
    audio_width=32,
    face_width=32,
)


VAE = {
    "block_out_channels": (16, 32, 64, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
"""The sizes of the autoencoder."""


class SmallSpeechEncoder(Wav2Vec2Model):
    """A narrow wav2vec2. `widen` maps its hidden states to the channels of the released encoder."""

    def __init__(self):
        super().__init__(
            Wav2Vec2Config(
                hidden_size=64,
                num_hidden_layers=12,
                num_attention_heads=2,
                intermediate_size=128,
                conv_dim=(32,) * 7,
                num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=4,
                hidden_dropout=0.0,
                attention_dropout=0.0,
                activation_dropout=0.0,
                layerdrop=0.0,
                apply_spec_augment=False,
            )
        )
        self.widen = nn.Linear(64, CONFIG.audio_channels)


def text_encoder() -> TextEncoder:
    """A small T5 encoder with random weights. It reads bytes, so it needs no vocabulary file."""
    with _seeded():
        encoder = T5EncoderModel(
            T5Config(
                vocab_size=384,
                d_model=CONFIG.text_width,
                d_kv=16,
                num_heads=2,
                d_ff=32,
                num_layers=1,
            )
        )
    return TextEncoder(ByT5Tokenizer(), encoder.eval())


def load(distilled: bool = True, people: int = 1) -> Hallo3:
    """Load the built-in model in float32 on the CPU.

    With `distilled`, its denoiser is for `STEPS` steps of the sampler `few`, without guidance. If
    there are two `people`, it was trained further on pictures of two who speak. Without
    `distilled`, it is the teacher, for as many steps as the released model.
    """
    transformers = load_transformers(WEIGHTS / TRANSFORMER_FILE)
    vae, speech_encoder = autoencoder(**VAE), SmallSpeechEncoder()
    vae.load_state_dict(load_file(WEIGHTS / VAE_FILE))
    speech_encoder.load_state_dict(load_file(WEIGHTS / SPEECH_ENCODER_FILE))
    if distilled:
        file = DISTILLED_FILE if people == 1 else TWO_PEOPLE_FILE
        transformers[0].load_state_dict(load_file(WEIGHTS / file))
    for network in (*transformers, vae, speech_encoder):
        network.eval().requires_grad_(False)
    return Hallo3(*transformers, vae, speech_encoder, text_encoder)


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield
