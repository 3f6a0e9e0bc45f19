"""ComfyUI's own nodes on our MODEL, VAE and conditioning."""

import importlib
import re
import shutil
from dataclasses import replace

import pytest
import torch
from comfyui import Host, Out, Parts, build
from direct import Direct, change
from safetensors.torch import save_file
from test_segments import SEED, STEPS, sample

from hallo3_core import builtin
from hallo3_core.checkpoints.names import ROTARY_TABLE
from hallo3_core.model.layout import published_weights
from hallo3_core.network.config import LATENT_FRAMES


def conditioned(parts: Parts) -> Out:
    return parts.segment("Hallo3SegmentConditioning")


def custom_sampling(parts: Parts, model: Out, steps: int = STEPS, guidance: float = 3.5) -> Out:
    graph, segment = parts.graph, conditioned(parts)
    guider = graph("CFGGuider", model=model, positive=segment, negative=segment[1], cfg=guidance)
    return graph(
        "SamplerCustomAdvanced",
        noise=graph("RandomNoise", noise_seed=SEED),
        guider=guider,
        sampler=graph("Hallo3Sampler", sampler="sde-dpm++2m"),
        sigmas=graph("Hallo3Scheduler", model=model, steps=steps),
        latent_image=segment[2],
    )


def latents(host: Host, parts: Parts, *outs: Out) -> list[torch.Tensor]:
    for out in outs:
        parts.graph.keep(out)
    return [latent["samples"] for latent in host.run(parts.graph)]


def test_custom_sampling_equals_sample_segment(host, parts):
    ours, theirs = latents(host, parts, sample(parts, 0), custom_sampling(parts, parts.model))
    assert ours.shape == (1, 16, 13, 16, 24)
    assert (ours - theirs).abs().max() < 1e-4
    assert ours.std() > 0.3


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde"])
def test_ksampler(host, parts, sampler):
    segment = conditioned(parts)
    out = parts.graph(
        "KSampler",
        model=parts.model,
        positive=segment,
        negative=segment[1],
        latent_image=segment[2],
        seed=SEED,
        steps=2,
        cfg=3.5,
        sampler_name=sampler,
        scheduler="simple",
        denoise=1.0,
    )
    frames = parts.graph("VAEDecode", samples=out, vae=parts.vae)
    parts.graph.keep(out)
    parts.graph.keep(frames)
    latent, images = host.run(parts.graph)
    assert latent["samples"].isfinite().all()
    assert images.shape == (49, 128, 192, 3)


def test_easy_cache(host, parts):
    model = parts.graph(
        "EasyCache",
        model=parts.model,
        reuse_threshold=0.2,
        start_percent=0.0,
        end_percent=1.0,
        verbose=False,
    )
    (samples,) = latents(host, parts, custom_sampling(parts, model))
    assert samples.isfinite().all()


@pytest.fixture
def one_layer(host) -> str:
    """A file of the built-in model with its first layer alone. Layers are compiled one by one."""
    model, config = builtin.load(), replace(builtin.CONFIG, layers=1)
    states = []
    for network in (model.denoiser, model.reference_network, model.audio_projector):
        state = network.state_dict()
        states.append({name: state[name] for name in state if not re.match(r"layers\.[1-9]", name)})
    weights = published_weights(*states)
    rows = LATENT_FRAMES * config.frame_tokens
    weights[ROTARY_TABLE] = torch.zeros(rows, config.head_width)
    file = host.base / "models" / "diffusion_models" / "one_layer.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"module": weights}, file)
    return file.name


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile takes a compiler")
def test_torch_compile(host, one_layer, monkeypatch):
    """One step without guidance, which would be compiled again."""
    # without vectors: it takes long to find those of the CPU
    monkeypatch.setattr("torch._inductor.config.cpp.vec_isa_ok", False)
    parts, settings = build(seconds=1, model_name=one_layer), {"steps": 1, "guidance": 1.0}
    compiled = parts.graph("TorchCompileModel", model=parts.model, backend="inductor")
    plain, faster = latents(
        host, parts, sample(parts, 0, **settings), custom_sampling(parts, compiled, **settings)
    )
    assert plain.std() > 0.3
    assert (plain - faster).abs().max() < 1e-3


def test_torch_compile_of_later_steps_and_guidance(host):
    """Later steps use what the first one has kept. All is traced but not compiled, for time."""
    direct = Direct(host)
    compiled = direct.patched("TorchCompileModel", backend="eager")
    plain, traced = (direct.sample(model, steps=3) for model in (direct.model, compiled))
    assert change(traced, plain) < 1e-3
    torch.compiler.reset()


def test_a_lora_in_our_names(host, parts):
    """Rank 1 on the first layer's queries, keys and values."""
    folder = host.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    name = "diffusion_model.layers.0.query_key_value"
    lora = {f"{name}.lora_up.weight": torch.ones(384, 1) * 0.1}
    lora[f"{name}.lora_down.weight"] = torch.ones(1, 128) * 0.1
    save_file(lora, folder / "test.safetensors")
    changed = parts.graph(
        "LoraLoaderModelOnly", model=parts.model, lora_name="test.safetensors", strength_model=1.0
    )
    plain, with_lora, plain_again = latents(
        host,
        parts,
        custom_sampling(parts, parts.model),
        custom_sampling(parts, changed),
        sample(parts, 0),
    )
    assert (plain - with_lora).abs().max() > 1e-3
    assert (plain - plain_again).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp8_e4m3fn"])
def test_weights_of_every_dtype(host, dtype):
    """The files of the built-in model have bf16 weights."""
    parts = build(seconds=1)
    exact = sample(parts, 0, steps=2)
    kept = parts.graph("Hallo3LoadDiT", model_name="built-in tiny model", weight_dtype=dtype)
    other = sample(parts._replace(model=kept), 0, steps=2)
    expected, found = latents(host, parts, exact, other)
    error = ((found - expected).norm() / expected.norm()).item()
    assert (error == 0) == (dtype == "bf16")
    assert error < (0.3 if dtype == "fp8_e4m3fn" else 0.05)


def test_frames_are_upscaled_and_interpolated(host):
    """As in the workflow 5 Finish, with small networks of the same classes. Two frames."""
    parts = build(seconds=1.96)
    esrgan = importlib.import_module("spandrel.architectures.ESRGAN.__arch.RRDB")
    upscaler = esrgan.RRDBNet(num_filters=8, num_blocks=1, scale=2)
    interpolator = importlib.import_module("comfy_extras.frame_interpolation_models.ifnet").IFNet
    files = {"upscale_models": upscaler, "frame_interpolation": interpolator(channels=(8,) * 5)}
    for folder, network in files.items():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.01)
        path = host.base / "models" / folder / "small.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(network.state_dict(), path)
    graph = parts.graph
    latent = sample(parts, 1, steps=1)
    frames = graph("Hallo3DecodeVAE", latent=latent, vae=parts.vae, identity=parts.identity)
    larger = graph(
        "ImageUpscaleWithModel",
        upscale_model=graph("UpscaleModelLoader", model_name="small.safetensors"),
        image=frames,
    )
    smoother = graph(
        "FrameInterpolate",
        interp_model=graph("FrameInterpolationModelLoader", model_name="small.safetensors"),
        images=larger,
        multiplier=2,
    )
    graph.keep(frames)
    graph.keep(smoother)
    before, after = host.run(graph)
    assert before.shape == (2, 128, 192, 3)
    assert after.shape == (3, 256, 384, 3)


def test_stock_vae_encode(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    scaled = parts.graph(
        "ImageScale",
        image=image,
        upscale_method="bilinear",
        width=192,
        height=128,
        crop="disabled",
    )
    (samples,) = latents(host, parts, parts.graph("VAEEncode", pixels=scaled, vae=parts.vae))
    assert samples.shape == (1, 16, 1, 16, 24)


def test_guidance_over_a_part_of_the_steps(host, parts):
    """As in the core. The other steps do not compute the unconditional branch."""
    whole = sample(parts, 0, steps=4)
    part = sample(parts, 0, steps=4, guidance_start=0.0, guidance_end=0.5)
    without = sample(parts, 0, steps=4, guidance=1.0)
    none = sample(parts, 0, steps=4, guidance_start=1.0, guidance_end=1.0)
    for latent in (whole, part, without, none):
        parts.graph.keep(latent)
    whole, part, without, none = (kept["samples"] for kept in host.run(parts.graph))
    assert torch.equal(none, without)
    assert not torch.equal(part, whole)
    assert not torch.equal(part, without)


def test_a_guider_is_left_as_it_was(host, parts):
    """ComfyUI uses it again in the next run, if only the noise is different."""
    graph, segment = parts.graph, conditioned(parts)
    positive, negative = segment, segment[1]
    guider = graph("CFGGuider", model=parts.model, positive=positive, negative=negative, cfg=3.5)
    sampler = graph("Hallo3Sampler", sampler="ddim", guidance_start=0.0, guidance_end=0.5)
    sampled = graph(
        "SamplerCustomAdvanced",
        noise=graph("RandomNoise", noise_seed=1),
        guider=guider,
        sampler=sampler,
        sigmas=graph("Hallo3Scheduler", model=parts.model, steps=2),
        latent_image=segment[2],
    )
    for kept in (guider, sampled):
        graph.keep(kept)
    found, _ = host.run(graph, fresh=True)
    assert found.cfg == 3.5
