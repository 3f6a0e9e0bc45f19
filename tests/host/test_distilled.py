"""The distilled built-in model in ComfyUI: its four steps, and LoRAs as the core adds them."""

import pytest
import torch
from comfyui import Host, Parts, build
from direct import UNDISTILLED, change, strong_lora
from test_segments import SEED, core_segments, sample

from hallo3_core import builtin
from hallo3_core.autoencoder.vae import LATENT_SCALE
from hallo3_core.clip.segments import Segment
from hallo3_core.model.lora import add_lora

SECONDS = 0.4
FEW = {"guidance": 1.0, "sampler": "few"}


def latents_of(segments: list[Segment]) -> torch.Tensor:
    return segments[0].latents / LATENT_SCALE


def sampled(host: Host, parts: Parts, **inputs) -> torch.Tensor:
    parts.graph.keep(sample(parts, 0, **inputs))
    return host.run(parts.graph)[-1]["samples"]


@pytest.fixture(scope="module")
def expected(host) -> torch.Tensor:
    """By the core, in four steps."""
    return latents_of(core_segments(host, SECONDS, builtin.STEPS, **FEW))


def test_four_steps(host, expected):
    found = sampled(host, build(SECONDS), steps=builtin.STEPS, **FEW)
    assert (found - expected).abs().max() < 1e-4


def test_four_steps_of_ksampler(host, expected):
    """Euler on the simple schedule is the sampler `few`."""
    parts = build(SECONDS)
    positive, negative, latent = (
        parts.segment("Hallo3SegmentConditioning", 0)[i] for i in range(3)
    )
    settings = {"steps": builtin.STEPS, "cfg": 1.0, "sampler_name": "euler", "denoise": 1.0}
    settings |= {"scheduler": "simple", "seed": SEED}
    given = {"positive": positive, "negative": negative, "latent_image": latent}
    parts.graph.keep(parts.graph("KSampler", model=parts.model, **given, **settings))
    (found,) = host.run(parts.graph)
    assert change(found["samples"], expected) < 1e-3


def test_a_lora_is_added_as_the_core_adds_it(host, expected):
    model, strength, name = builtin.load(), 0.3, strong_lora(host)
    add_lora(model.denoiser, host.base / "models" / "loras" / name, strength)
    with_it = latents_of(core_segments(host, SECONDS, builtin.STEPS, model, **FEW))
    parts = build(SECONDS)
    given = {"model": parts.model, "lora_name": name, "strength_model": strength}
    loaded = parts.graph("LoraLoaderModelOnly", **given)
    found = sampled(host, parts._replace(model=loaded), steps=builtin.STEPS, **FEW)
    assert (found - with_it).abs().max() < 1e-3
    assert (found - expected).abs().max() > 0.05


def test_the_model_before_distillation(host):
    parts = build(SECONDS, model_name=UNDISTILLED)
    found = sampled(host, parts, steps=2)
    expected = latents_of(core_segments(host, SECONDS, 2, builtin.load(distilled=False)))
    assert (found - expected).abs().max() < 1e-4


def test_settings_for_many_steps_are_warned_of(host, caplog):
    sampled(host, build(SECONDS), steps=2)
    assert "set steps to 4, guidance to 1 and the sampler to few" in caplog.text
    caplog.clear()
    sampled(host, build(SECONDS), steps=builtin.STEPS, **FEW)
    sampled(host, build(SECONDS, model_name=UNDISTILLED), steps=2)
    assert "set steps" not in caplog.text
