"""The speech encoder under ComfyUI's model management."""

import comfy.model_management
import comfy.model_patcher
from torch import Tensor, nn
from transformers import Wav2Vec2Model

from ...hallo3_core.memory import steady_memory
from ...hallo3_core.speech import Speech, encode_speech


class SpeechEncoder:
    """wav2vec2, loaded when it is needed."""

    def __init__(self, wav2vec2: Wav2Vec2Model):
        module = nn.Module()
        module.wav2vec2 = wav2vec2
        self.patcher = comfy.model_patcher.ModelPatcher(
            module,
            load_device=comfy.model_management.text_encoder_device(),
            offload_device=comfy.model_management.text_encoder_offload_device(),
        )

    def encode(self, waveform: Tensor) -> Speech:
        """Features of a waveform (samples,) at 16 kHz."""
        comfy.model_management.load_models_gpu([self.patcher])
        with steady_memory():
            return encode_speech(self.patcher.model.wav2vec2, waveform).on_disk()
