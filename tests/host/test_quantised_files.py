"""Quantised files give the same in ComfyUI and on the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfyui import Host, build, noise_audio
from direct import change, loading, strong_lora
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_segments import SEED, sample

from hallo3_core import builtin
from hallo3_core.animate import ModelAnimator
from hallo3_core.autoencoder.vae import LATENT_SCALE
from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.media.picture import read_image
from hallo3_core.model.convert import convert, plan
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.model.layout import published_weights
from hallo3_core.model.loading import load_transformers
from hallo3_core.model.lora import add_lora
from hallo3_core.network.config import LATENT_FRAMES
from hallo3_core.network.transformer import Denoiser
from hallo3_core.network.weight_formats import BY_NAME
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.quantization.layouts import LAYOUTS
from hallo3_core.quantization.stored import HEADER
from hallo3_core.sound.sound import Sound
from hallo3_core.speech.encode import encode_speech

QUANTISED = [name for name, kind in BY_NAME.items() if kind.layout]
SAMPLED = {"steps": 2, "guidance": 1.0, "sampler": "ddim"}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The built-in model as it was published, if it had been."""
    model = builtin.load()
    networks = (model.denoiser, model.reference_network, model.audio_projector)
    weights = published_weights(*(network.state_dict() for network in networks))
    path = tmp_path_factory.mktemp("published") / "mp_rank_00_model_states.pt"
    torch.save({"module": {name: value.bfloat16() for name, value in weights.items()}}, path)
    return path


@pytest.fixture(scope="module")
def converted(host: Host, source: Path):
    """The denoiser's file in a format, with its companions beside it."""
    made: dict[str, Path] = {}

    def file(name: str) -> Path:
        if name not in made:
            job = plan(source, read_weights(source), name)
            made[name], *_ = convert(job, host.base / "models", lambda done: None)
        return made[name]

    return file


def in_comfyui(host: Host, file: Path, lora: str | None = None, save: str = "") -> torch.Tensor:
    """The latents of a segment, sampled by the nodes."""
    parts = build(seconds=1, model_name=file.name)
    model = parts.model
    if lora:
        model = parts.graph("LoraLoaderModelOnly", model=model, lora_name=lora, strength_model=0.5)
    if save:
        parts.graph("ModelSave", model=model, filename_prefix=f"diffusion_models/{save}")
    parts.graph.keep(sample(parts._replace(model=model), 0, **SAMPLED))
    (latent,) = host.run(parts.graph)
    return latent["samples"]


def by_the_core(host: Host, file: Path, lora: Path | None = None) -> torch.Tensor:
    """The latents that the command line computes, in the scale of ComfyUI's."""
    denoiser, reference, audio = load_transformers(file)
    if lora:
        add_lora(denoiser, lora, 0.5)
    networks = {"denoiser": denoiser, "reference_network": reference, "audio_projector": audio}
    model: Hallo3 = replace(builtin.load(), **networks)
    noise, sound = SeededNoise(SEED), noise_audio(1)
    picture = read_image(host.base / "input" / "portrait.png")
    identity = encode_portrait(model.vae, reference, picture, None, noise)
    speech = encode_speech(
        model.speech_encoder, Sound(sound["waveform"][0], sound["sample_rate"]).prepared()
    )
    animator = ModelAnimator(model, identity, speech, noise, **SAMPLED)
    return animator.sample(0, identity.motion) / LATENT_SCALE


@torch.no_grad()
def prediction(denoiser: Denoiser) -> torch.Tensor:
    """v of noise."""
    torch.manual_seed(2)
    config = denoiser.config
    shape = (1, config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width)
    tokens = torch.randn(1, config.frame_tokens, config.width)
    conditions = denoiser.conditions(
        torch.randn(1, config.text_tokens, config.text_width),
        torch.randn(shape),
        denoiser.reference_keys_values([tokens] * config.layers),
        denoiser.face_keys_values(torch.randn(1, config.face_channels)),
        torch.randn(1, LATENT_FRAMES, config.audio_tokens, config.audio_width),
    )
    return Denoiser.forward(denoiser, torch.randn(shape), torch.tensor([500]), conditions)


@pytest.mark.parametrize("name", QUANTISED)
def test_layers_compute_the_same_in_comfyui(host, source, converted, name):
    """All layers, on the same numbers."""
    file = converted(name)
    patcher, _ = loading(host).load_dit(file, None)
    ours, *_ = load_transformers(file)
    found, expected = map(prediction, (patcher.model.diffusion_model, ours))
    assert change(found, expected) < 1e-4
    assert 1e-3 < change(found, prediction(load_transformers(source)[0])) < 0.5


@pytest.mark.parametrize("name", ["fp8_e4m3fn", "asym_w4a8_int8"])
def test_samples_are_those_of_the_command_line(host, converted, name):
    """Where inputs are rounded to few bits, tiny differences grow to some of the rounding error."""
    file, rounded = converted(name), LAYOUTS[BY_NAME[name].layout.name].products
    assert change(in_comfyui(host, file), by_the_core(host, file)) < (0.02 if rounded else 1e-3)


@pytest.mark.parametrize("name", ["nvfp4", "int8_tensorwise"])
def test_saved_and_loaded_again(host, converted, name):
    """ModelSave keeps the layouts, in the names of the published file."""
    expected = in_comfyui(host, converted(name), save=name)
    (saved,) = (host.base / "output" / "diffusion_models").glob(f"{name}*.safetensors")
    file = saved.rename(converted(name).with_name(f"saved_{name}.safetensors"))
    assert torch.equal(in_comfyui(host, file), expected)


@pytest.mark.parametrize("name", ["mxfp8", "int8_tensorwise"])
def test_a_lora_on_top(host, converted, name):
    """Both round the changed weights to the layout again; ComfyUI rounds with noise."""
    lora = strong_lora(host)
    file, path = converted(name), host.base / "models" / "loras" / lora
    plain, found = in_comfyui(host, file), in_comfyui(host, file, lora)
    expected = by_the_core(host, file, path)
    assert change(found, plain) > 1.5 * change(found, expected)


def test_a_file_of_others(host, converted):
    """Marks only in the header, a scale for the input, and smoothing of the input."""
    file = converted("nvfp4")
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    weights = load_file(file)
    layers = json.loads(metadata[HEADER])["layers"]
    assert len(layers) == sum(name.endswith("comfy_quant") for name in weights)
    kept = {name: value for name, value in weights.items() if not name.endswith("comfy_quant")}
    layer = next(name for name in layers if name.endswith("dense_h_to_4h"))
    kept[f"{layer}.input_scale"] = torch.tensor(0.01)
    other = file.with_name("hallo3_dit_others.safetensors")
    save_file(kept, other, metadata)
    assert torch.equal(in_comfyui(host, other), in_comfyui(host, file))
    kept[f"{layer}.pre_quant_scale"] = torch.full((builtin.CONFIG.width,), 0.5)
    save_file(kept, other, metadata)
    ours, _, _ = load_transformers(other)
    patcher, _ = loading(host).load_dit(other, None)
    smoothed = prediction(ours)
    assert change(prediction(patcher.model.diffusion_model), smoothed) < 1e-4
    assert change(smoothed, prediction(load_transformers(file)[0])) > 1e-3
