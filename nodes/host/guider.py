"""Guidance of its own for speech and for text, as ComfyUI's GUIDER."""

import comfy.model_patcher
import comfy.samplers
from torch import Tensor

from .model import SPEECH


class SpeechAndTextGuider(comfy.samplers.CFGGuider):
    """`cfg` is the guidance of the speech, and `text_cfg` that of the prompt.

    Each step calls the denoiser without speech and prompt, with the prompt alone, and with both. If
    the two scales are equal, the second call is not made, and the result is that of CFGGuider.
    """

    def set_conds(self, positive: list, negative: list) -> None:
        silent = negative[0][1][SPEECH]
        text_alone = [[text, options | {SPEECH: silent}] for text, options in positive]
        self.inner_set_conds({"positive": positive, "text": text_alone, "negative": negative})

    def set_cfg(self, cfg: float, text_cfg: float) -> None:
        super().set_cfg(cfg)
        self.text_cfg = text_cfg

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options=None, seed=None) -> Tensor:
        options = model_options or {}
        if self.cfg == self.text_cfg:
            return super().predict_noise(x, timestep, options, seed)
        names = "negative", "text", "positive"
        conds = [self.conds[name] for name in names]
        nothing, text, everything = comfy.samplers.calc_cond_batch(
            self.inner_model, conds, x, timestep, options
        )
        steered = comfy.samplers.cfg_function(
            self.inner_model,
            everything,
            text,
            self.cfg,
            x,
            timestep,
            model_options=options,
            cond=self.conds["positive"],
            uncond=self.conds["text"],
        )
        return steered + (self.text_cfg - 1) * (text - nothing)


def guider_of(
    model: comfy.model_patcher.ModelPatcher,
    positive: list,
    negative: list,
    guidance: float,
    text_guidance: float,
) -> comfy.samplers.CFGGuider:
    """A guider for these scales. Without a prompt, or if they are equal, it is ComfyUI's own."""
    prompted = any(bool(text.any()) for text, _ in positive)
    if guidance == text_guidance or not prompted:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_cfg(guidance)
    else:
        guider = SpeechAndTextGuider(model)
        guider.set_cfg(guidance, text_guidance)
    guider.set_conds(positive, negative)
    return guider
