"""The published sampling as ComfyUI's SAMPLER and SIGMAS, and a whole run of it."""

from collections.abc import Callable
from functools import partial

import comfy.model_patcher
import comfy.sample
import comfy.samplers
import latent_preview
import torch
from torch import Tensor

from ...hallo3_core.animate import require_numbers
from ...hallo3_core.errors import InputError
from ...hallo3_core.noise import SeededNoise
from ...hallo3_core.sampling.guidance import ALWAYS, Interval, inside
from ...hallo3_core.sampling.samplers import SAMPLERS, sample
from ...hallo3_core.sampling.schedule import Schedule
from .time_left import ClipTime


def published_sigmas(model: comfy.model_patcher.ModelPatcher, steps: int) -> Tensor:
    """sigma of the published timesteps, from the highest to 0."""
    timesteps = Schedule.published(steps).timesteps
    sigmas = model.get_model_object("model_sampling").sigmas.cpu()
    return torch.cat([sigmas[timesteps], torch.zeros(1)])


def published_sampler(name: str, interval: Interval = ALWAYS) -> comfy.samplers.KSAMPLER:
    """One of the core's samplers; guidance is left out of the steps that are not in `interval`."""
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
    """One of the core's samplers, as k-diffusion calls them.

    ComfyUI's x is x0 + sigma noise, the core's alpha x0 + sqrt(1 - alpha^2) noise.
    """
    table = model.inner_model.inner_model.model_sampling
    timesteps = table.timestep(sigmas[:-1]).cpu()
    if sigmas[-1] != 0 or (timesteps.diff() >= 0).any():
        raise InputError(
            "The Hallo3 Sampler cannot follow these sigmas: connect Hallo3 Scheduler, or the low "
            "sigmas of a split of it."
        )

    guider = model.inner_model
    guidance = getattr(guider, "cfg", 1.0)
    masked = extra_args.get("denoise_mask") is not None
    stays = torch.zeros_like(x, dtype=torch.bool)

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        if interval != ALWAYS:
            guider.cfg = guidance if inside(interval, timestep) else 1.0
        sigma = table.sigmas[timestep].to(x)
        alpha = torch.rsqrt(1 + sigma**2)
        denoised = model(x / alpha, sigma.expand(len(x)), **extra_args)
        if masked:
            torch.eq(denoised, model.latent_image, out=stays)
        return (alpha * x - denoised) / (sigma * alpha)

    draws = SeededNoise(extra_args.get("seed") or 0).stream("steps")
    start = x / (1 + sigmas[0] ** 2).sqrt()
    steps = sample(
        predict, start, Schedule.over(timesteps), SAMPLERS[sampler], partial(draws.normal, *x.shape)
    )
    try:
        for i, denoised in enumerate(steps):
            sigma = sigmas[i]
            callback({"i": i, "denoised": denoised, "x": x, "sigma": sigma, "sigma_hat": sigma})
    finally:
        if interval != ALWAYS:
            guider.cfg = guidance  # ComfyUI keeps the guider for the next run
    return torch.where(stays, model.latent_image, denoised) if masked else denoised


def sample_segment(
    model: comfy.model_patcher.ModelPatcher,
    positive: list,
    negative: list,
    latent: dict,
    *,
    seed: int,
    steps: int,
    guidance: float,
    sampler: str,
    interval: Interval,
    index: int,
    clip: ClipTime,
) -> dict:
    """A LATENT sampled as published, with progress and preview; `seed` is the segment's own.

    `clip` is told of every step. Raises `InputError` if segment `index` overflows or does not fit
    into memory.
    """
    empty = latent["samples"]
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
        require_numbers(denoised, index, model.model.get_dtype_inference())
        picture = previewer and previewer.decode_latent_to_preview_image("JPEG", denoised)
        clip.step()
        clip.bar.update_absolute(clip.steps_done, preview=picture)

    samples = comfy.sample.sample_custom(
        model,
        comfy.sample.prepare_noise(empty, seed),
        guidance,
        published_sampler(sampler, interval),
        published_sigmas(model, steps),
        positive,
        negative,
        empty,
        callback=callback,
        seed=seed,
    )
    return latent | {"samples": samples}
