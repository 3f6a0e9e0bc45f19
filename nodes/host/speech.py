"""The speech encoder under ComfyUI's model management."""

from collections.abc import Callable
from functools import cache

import comfy.model_management
import comfy.model_patcher
from torch import Tensor, nn
from transformers import Wav2Vec2Model

from ...hallo3_core.allocator import steady_memory
from ...hallo3_core.speech.encode import Speech, encode_speech
from ...hallo3_core.store.fingerprint import fingerprint
from .out_of_memory import enough_memory
from .whole import WholePatcher


def load_patcher(
    load: Callable[[], Wav2Vec2Model], disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The encoder in a patcher. It is never a dynamic one, and ComfyUI can load it again."""
    module = nn.Module()
    module.wav2vec2 = load()
    patcher = WholePatcher(
        module,
        load_device=comfy.model_management.text_encoder_device(),
        offload_device=comfy.model_management.text_encoder_offload_device(),
    )
    patcher.cached_patcher_init = (load_patcher, (load,))
    return patcher


class SpeechEncoder:
    """wav2vec2. ComfyUI loads it on the device when it is needed."""

    def __init__(self, load: Callable[[], Wav2Vec2Model]):
        self.patcher = load_patcher(load)
        self.fingerprint = cache(lambda: fingerprint(self.patcher.model.wav2vec2))

    def encode(self, waveform: Tensor) -> Speech:
        """Features of a waveform (samples,) at 16 kHz."""
        with enough_memory("encode the speech"):
            comfy.model_management.load_models_gpu([self.patcher])
            with steady_memory():
                return encode_speech(self.patcher.model.wav2vec2, waveform).on_disk()
