"""The published sampling as ComfyUI's SAMPLER and SIGMAS, and a run of it for a segment."""

import logging
from collections.abc import Callable
from functools import partial

import comfy.model_patcher
import comfy.sample
import comfy.samplers
import latent_preview
import torch
from torch import Tensor

from ...hallo3_core import builtin
from ...hallo3_core.animate import require_numbers
from ...hallo3_core.errors import InputError
from ...hallo3_core.noise import SeededNoise
from ...hallo3_core.sampling.guidance import ALWAYS, Interval, inside
from ...hallo3_core.sampling.samplers import FEW, SAMPLERS, sample, schedule_of
from ...hallo3_core.sampling.schedule import spaced
from ...hallo3_core.settings import Settings
from .guider import guider_of
from .images import intermediate
from .loading import DISTILLED
from .time_left import ClipTime

FOR_FEW_STEPS = (
    f"The built-in model was distilled: set steps to {builtin.STEPS}, guidance to 1 and the "
    f"sampler to {FEW}, or choose the built-in model of 50 steps."
)

SCALES = "cfg", "text_cfg"
"""What a guider multiplies by, if it has it."""

logger = logging.getLogger(__name__)


def published_sigmas(
    model: comfy.model_patcher.ModelPatcher, steps: int, strength: float = 1.0
) -> Tensor:
    """The sigmas of the published timesteps, from the highest to 0. See `spaced`."""
    timesteps = spaced(steps, strength)
    sigmas = model.get_model_object("model_sampling").sigmas.cpu()
    return torch.cat([sigmas[timesteps], torch.zeros(1)])


def published_sampler(name: str, interval: Interval = ALWAYS) -> comfy.samplers.KSAMPLER:
    """One of the core's samplers. Steps outside `interval` have no guidance."""
    return comfy.samplers.KSAMPLER(_sample, {"sampler": name, "interval": interval})


def _sample(
    model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict,
    callback: Callable,
    disable,
    sampler: str,
    interval: Interval,
) -> Tensor:
    """Run one of the core's samplers; ComfyUI calls it as it calls those of k-diffusion.

    In ComfyUI, x is x0 + sigma noise; in the core, it is alpha x0 + sqrt(1 - alpha^2) noise.
    """
    table = model.inner_model.inner_model.model_sampling
    timesteps = table.timestep(sigmas[:-1]).cpu()
    if sigmas[-1] != 0 or (timesteps.diff() >= 0).any():
        raise InputError(
            "Hallo3 Sampler cannot use these sigmas: connect Hallo3 Scheduler, or the low_sigmas "
            "of a node that splits its sigmas."
        )

    guider = model.inner_model
    scales = {name: getattr(guider, name) for name in SCALES if hasattr(guider, name)}
    masked = extra_args.get("denoise_mask") is not None
    stays = torch.zeros_like(x, dtype=torch.bool)

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        if interval != ALWAYS:
            guided = inside(interval, timestep)
            vars(guider).update(scales if guided else dict.fromkeys(scales, 1.0))
        sigma = table.sigmas[timestep].to(x)
        alpha = torch.rsqrt(1 + sigma**2)
        denoised = model(x / alpha, sigma.expand(len(x)), **extra_args)
        if masked:
            torch.eq(denoised, model.latent_image, out=stays)
        return (alpha * x - denoised) / (sigma * alpha)

    draws = SeededNoise(extra_args.get("seed") or 0).stream("steps")
    start = x / (1 + sigmas[0] ** 2).sqrt()
    schedule = schedule_of(sampler, timesteps)
    steps = sample(predict, start, schedule, SAMPLERS[sampler], partial(draws.normal, *x.shape))
    try:
        for i, denoised in enumerate(steps):
            sigma = sigmas[i]
            callback({"i": i, "denoised": denoised, "x": x, "sigma": sigma, "sigma_hat": sigma})
    finally:
        vars(guider).update(scales)  # ComfyUI uses the guider again in the next run
    return torch.where(stays, model.latent_image, denoised) if masked else denoised


def sample_segment(
    model: comfy.model_patcher.ModelPatcher,
    positive: list,
    negative: list,
    latent: dict,
    *,
    settings: Settings,
    index: int,
    clip: ClipTime,
    strength: float = 1.0,
) -> dict:
    """Sample the LATENT of segment `index` as the published program does, with previews.

    If `latent` has a noise mask, only that is made again, and sampling begins as late as `strength`
    says (`Source`). `clip` is told of every step. Raises `InputError` if the numbers overflow or
    there is not enough memory.
    """
    if model.model.model_config.file in DISTILLED and settings.sampler != FEW:
        logger.warning(FOR_FEW_STEPS)
    empty, seed = latent["samples"], (settings.seed + index) % 2**64
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
        require_numbers(denoised, index, model.model.get_dtype_inference())
        picture = previewer and previewer.decode_latent_to_preview_image("JPEG", denoised)
        clip.step()
        clip.bar.update_absolute(clip.steps_done, preview=picture)

    samples = guider_of(model, positive, negative, *settings.guidances).sample(
        comfy.sample.prepare_noise(empty, seed),
        empty,
        published_sampler(settings.sampler, settings.interval),
        published_sigmas(model, settings.steps, strength),
        denoise_mask=latent.get("noise_mask"),
        callback=callback,
        seed=seed,
    )
    return latent | {"samples": intermediate(samples)}
