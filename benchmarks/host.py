"""Sampling in a real ComfyUI in this process. It is found as in the tests."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

from hallo3_core.network.config import LATENT_FRAMES, Hallo3Config
from hallo3_core.portrait.encode import Identity
from hallo3_core.portrait.framing import filling
from hallo3_core.settings import Settings
from run import find_comfyui
from tests.host.comfyui import Host


class Inputs:
    """Random latents and conditions of a size. `tokens` are those of silence and of speech."""

    def __init__(self, config: Hallo3Config):
        size = (LATENT_FRAMES, config.latent_height, config.latent_width)
        self.latents = torch.randn(1, config.latent_channels, *size)
        features = torch.randn(config.layers, 1, config.frame_tokens, config.width).unbind()
        portrait = torch.zeros(1, 3, *config.canvas)
        motion = torch.randn_like(self.latents)
        face = torch.randn(1, config.face_channels)
        self.identity = Identity(portrait, motion, face, list(features), filling(config.canvas))
        self.tokens = torch.randn(2, 1, LATENT_FRAMES, config.audio_tokens, config.audio_width)
        self.text = torch.zeros(1, config.text_tokens, config.text_width)


class ComfyUI:
    """ComfyUI with this pack. `load` gives a MODEL; `sample` is as in SamplerCustomAdvanced."""

    def __init__(self, base: Path):
        self.nodes = Host(find_comfyui(), base).nodes.NODE_CLASS_MAPPINGS
        pack = self.nodes["Hallo3LoadDiT"].__module__.rsplit(".", 1)[0]
        self.model: ModuleType = sys.modules[f"{pack}.host.model"]
        self.loading: ModuleType = sys.modules[f"{pack}.host.loading"]
        self.sampling: ModuleType = sys.modules[f"{pack}.host.sampling"]
        self.guider = sys.modules["comfy.samplers"].CFGGuider

    def load(self, file: Path):
        patcher, _ = self.loading.load_dit(file, None)
        return patcher

    def sample(
        self, patcher, inputs: Inputs, sampler: str, steps: int, callback: Callable | None = None
    ) -> torch.Tensor:
        """The latents. `callback` takes the step and its denoised estimate."""

        def steer(tokens: torch.Tensor) -> list:
            keys = (self.model.IDENTITY, self.model.SPEECH, self.model.MOTION)
            seen = self.model.Seen(inputs.identity, inputs.identity.face, None, 1.0)
            given = (seen, self.model.Heard(tokens), inputs.identity.motion)
            return [[inputs.text, dict(zip(keys, given, strict=True))]]

        guider = self.guider(patcher)
        guider.set_conds(steer(inputs.tokens[1]), steer(inputs.tokens[0]))
        guider.set_cfg(Settings.guidance)
        return guider.sample(
            inputs.latents,
            torch.zeros_like(inputs.latents),
            self.sampling.published_sampler(sampler),
            self.sampling.published_sigmas(patcher, steps),
            callback=callback,
        )
