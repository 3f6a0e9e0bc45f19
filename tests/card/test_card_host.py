"""ComfyUI on a card computes the numbers of the CPU, and leaves nothing on the card."""

import copy
import gc
import importlib
import inspect
import shutil
import sys

import npu
import numpy as np
import pytest
import torch
from comfyui import Host, Out, Parts, build, switch_previews_on
from direct import UNDISTILLED_FILE, Direct, change, loading, strong_lora
from quick import animator_of, quick_pictures
from test_animate_portrait import animated
from test_segments import core_segments, sample
from test_stock_nodes import custom_sampling

from hallo3_core import animate, builtin
from hallo3_core.autoencoder.vae import LATENT_SCALE
from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.clip.segments import Segment
from hallo3_core.model.convert import convert, plan

pytestmark = pytest.mark.usefixtures("float32")

SECONDS, STEPS = 0.4, 2


@pytest.fixture(scope="module")
def expected(host) -> Segment:
    """A segment of ten frames, made by the core on the CPU."""
    [segment] = core_segments(host, SECONDS, STEPS)
    return segment


@pytest.fixture(scope="module")
def plain(direct) -> torch.Tensor:
    return direct.sample(steps=1, guidance=1.0).cpu()


def management():
    return importlib.import_module("comfy.model_management")


def kept() -> list[int]:
    """The number of keys and values that each loaded denoiser keeps."""
    networks = [entry.model.model for entry in management().current_loaded_models]
    denoisers = [getattr(network, "diffusion_model", None) for network in networks]
    return [len(denoiser.kept) for denoiser in denoisers if denoiser]


class Watch:
    """Records the calls of ComfyUI's progress bar. Presses Cancel once, after a number of steps."""

    def __init__(self, host: Host, cancel_after: int):
        self.host, self.cancel_after = host, cancel_after
        self.steps: list[int] = []
        self.pictures: list[np.ndarray] = []

    def __call__(self, value: int, total: int, preview, node_id=None) -> None:
        self.steps.append(value)
        if preview:
            self.pictures.append(np.asarray(preview[1]) / 255)
        if value == self.cancel_after:
            self.cancel_after = None
            assert kept() != [0]
            self.host.nodes.interrupt_processing()


@pytest.fixture
def watch(host, monkeypatch):
    switch_previews_on(monkeypatch)
    hook = importlib.import_module("comfy.utils").set_progress_bar_global_hook
    watch = Watch(host, cancel_after=3)
    hook(watch)
    yield watch
    hook(None)


@pytest.fixture
def clip(host, monkeypatch) -> list[Segment]:
    """Two segments made by the core. The second has three frames.

    Quick pictures replace decoding, in the core and in the nodes.
    """

    def decode(vae, latents: torch.Tensor, count: int, tiles: int) -> torch.Tensor:
        return quick_pictures(latents / LATENT_SCALE, count)

    def decode_latent(vae, samples: torch.Tensor, count: int) -> torch.Tensor:
        return quick_pictures(samples, count)

    monkeypatch.setattr(animate, "decode_images", decode)
    monkeypatch.setattr(inspect.getmodule(animator_of(host)), "decode_latent", decode_latent)
    return core_segments(host, 2.0, STEPS)


def test_animate_portrait_is_interrupted_and_goes_on(host, clip, watch):
    """It is interrupted between steps of the second segment.

    The first segment is not sampled again.
    """
    parts = build(seconds=2.0)
    parts.graph.keep(parts.model)
    parts.graph.keep(animated(parts, STEPS))
    with pytest.raises(InterruptedError):
        host.run(parts.graph)
    assert watch.steps == [1, 2, 2, 3]  # the finished segment is shown after its last step
    assert kept() == [0]
    model, frames = host.run(parts.graph)
    assert watch.steps[4:] == [2, 3, 4, 4]
    assert (frames - torch.cat([segment.frames for segment in clip])).abs().max() < 1e-3

    previewer = sys.modules["latent_preview"].get_previewer("cpu", model.model.latent_format)
    _, picture, _ = previewer.decode_latent_to_preview_image("JPEG", clip[0].latents)
    assert watch.pictures[1].shape == (16, 24, 3)
    assert np.abs(watch.pictures[1] - np.asarray(picture) / 255).max() <= 1.01 / 255


@pytest.fixture(scope="module")
def sampled(host) -> tuple[Parts, Out]:
    """A graph, and its LATENT."""
    parts = build(SECONDS)
    return parts, sample(parts, 0, steps=STEPS)


def test_a_segment_and_the_samplers_of_comfyui(host, expected, sampled):
    parts, latent = sampled
    given = {"latent": latent, "vae": parts.vae, "identity": parts.identity}
    custom = custom_sampling(parts, parts.model, steps=STEPS)
    for out in (latent, custom, parts.graph("Hallo3DecodeVAE", **given)):
        parts.graph.keep(out)
    ours, theirs, frames = host.run(parts.graph)
    for found in (ours["samples"], theirs["samples"]):
        assert found.device.type == "cpu"
        assert (found - expected.latents / LATENT_SCALE).abs().max() < 1e-3
    assert frames.shape == (10, 128, 192, 3)
    assert (frames - expected.frames).abs().max() < 1e-3


def test_a_latent_is_saved_and_free_leaves_nothing_on_the_card(host, sampled):
    parts, latent = sampled
    parts.graph.keep(parts.graph("SaveLatent", samples=latent, filename_prefix="on_card"))
    host.run(parts.graph)
    assert torch.npu.memory_allocated(0) > 2**20
    host.kept.clear()
    free(host)
    assert torch.npu.memory_allocated(0) == 0

    [file] = (host.base / "output").glob("on_card*.latent")
    shutil.copy(file, host.base / "input" / "on_card.latent")
    again = build(SECONDS)
    again.graph.keep(again.graph("LoadLatent", latent="on_card.latent"))
    again.graph.keep(sample(again, 0, steps=STEPS))
    loaded, anew = host.run(again.graph)
    assert torch.equal(loaded["samples"], anew["samples"])


def free(host: Host) -> None:
    """Do what the server does on /free."""
    management().unload_all_models()
    host.executor.reset()
    gc.collect()


@pytest.fixture(scope="module")
def on_cpu(direct):
    """The same MODEL without the card."""
    return direct.model.deepclone_multigpu(torch.device("cpu"))


def test_ksampler(direct, on_cpu):
    settings = {"steps": 1, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple"}
    settings |= {"positive": direct.positive, "negative": direct.negative}
    settings |= {"latent_image": direct.latent}
    found, expected = (
        direct.node("KSampler", model=model, **settings)["samples"]
        for model in (direct.model, on_cpu)
    )
    assert change(found, expected) < 1e-3


def test_a_prompt_and_a_lora(host, direct, on_cpu, plain):
    prompt = direct.node("Hallo3EncodePrompt", text="A person speaks.")
    lora = {"lora_name": strong_lora(host), "strength_model": 1.0}
    given = {"identity": direct.identity, "speech": direct.speech, "segment_index": 0}
    given |= {"model": direct.model, "positive": prompt}
    positive = direct.node("Hallo3SegmentConditioning", **given)
    found, expected = (
        direct.sample(
            direct.node("LoraLoaderModelOnly", model=model, **lora),
            positive=positive,
            steps=1,
            guidance=1.0,
        ).cpu()
        for model in (direct.model, on_cpu)
    )
    assert change(found, expected) < 1e-3
    assert change(found, plain) > 0.05


@pytest.fixture(scope="module")
def latents(expected) -> torch.Tensor:
    """The latents of a part of a segment: 9 frames of 64 x 96 pixels."""
    return (expected.latents / LATENT_SCALE)[:, :, :3, :8, :12]


def test_the_stock_vae_nodes(host, direct, latents):
    """They give the same as on the CPU, with and without tiles."""
    nodes, tiles = host.nodes, {"tile_size": 64, "overlap": 16}
    tiles |= {"temporal_size": 64, "temporal_overlap": 8}
    on_the_cpu = copy.copy(direct.vae)
    on_the_cpu.device = torch.device("cpu")
    on_the_cpu.patcher = direct.vae.patcher.deepclone_multigpu(on_the_cpu.device)
    on_the_cpu.first_stage_model = on_the_cpu.patcher.model

    def results(vae) -> list[torch.Tensor]:
        given = {"samples": latents}
        [images] = nodes.VAEDecode().decode(vae, given)
        [tiled] = nodes.VAEDecodeTiled().decode(vae, given, **tiles)
        [encoded] = nodes.VAEEncode().encode(vae, images)
        [encoded_in_tiles] = nodes.VAEEncodeTiled().encode(vae, images, **tiles)
        return [images, tiled, encoded["samples"], encoded_in_tiles["samples"]]

    found, expected = results(direct.vae), results(on_the_cpu)
    for one, other in zip(found, expected, strict=True):
        assert one.device.type == "cpu"
        assert (one - other).abs().max() < 1e-3
    with torch.no_grad():
        pixels = builtin.load().vae.decode(latents).sample[:, :, -9:]
    assert (found[0] - (pixels[0].movedim(0, -1) / 2 + 0.5).clamp(0, 1)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("state", "least", "most"), [("LOW_VRAM", 0.3, 0.7), ("NO_VRAM", 0, 0), ("HIGH_VRAM", 1, 1)]
)
def test_a_state_of_the_memory(host, direct, plain, monkeypatch, state, least, most):
    """--lowvram on a card with memory for half of the MODEL, --novram, and --highvram."""
    monkeypatch.setattr(management(), "vram_state", management().VRAMState[state])
    management().unload_all_models()
    model, _ = loading(host).load_dit(UNDISTILLED_FILE, torch.float32)
    if state == "LOW_VRAM":
        room = management().minimum_inference_memory() + model.model_size() / 2
        npu.accelerator().set_limit(0, torch.npu.memory_allocated(0) + round(room))
    found = direct.sample(model, steps=1, guidance=1.0).cpu()
    assert least <= model.loaded_size() / model.model_size() <= most
    assert (found - plain).abs().max() < 1e-3


def first_segment(direct: Direct, model) -> torch.Tensor:
    """The first segment, with the audio projector of the MODEL itself."""
    given = {"identity": direct.identity, "speech": direct.speech, "segment_index": 0}
    positive = direct.node("Hallo3SegmentConditioning", model=model, **given)
    return direct.sample(model, positive=positive, steps=1, guidance=1.0).cpu()


@pytest.mark.parametrize(("dtype", "most"), [("bf16", 0.05), ("fp16", 0.01), ("fp8_e4m3fn", 0.3)])
def test_weights_of_every_dtype(host, direct, plain, dtype, most):
    module = loading(host)
    model, _ = module.load_dit(UNDISTILLED_FILE, module.DTYPES[dtype])
    assert 0 < change(first_segment(direct, model), plain) < most


@pytest.mark.parametrize(("dtype", "most"), [("bf16", 1e-3), ("fp8_e4m3fn", 0.1)])
def test_converted_files(host, direct, plain, tmp_path, dtype, most):
    """`convert` makes them from a checkpoint like the published one."""
    model, source = direct.model.model, tmp_path / "mp_rank_00_model_states.pt"
    state = model.diffusion_model.state_dict()
    weights = model.model_config.process_unet_state_dict_for_saving(state)
    torch.save({"module": {key: value.bfloat16().cpu() for key, value in weights.items()}}, source)
    dit, *_ = convert(plan(source, read_weights(source), dtype), tmp_path, lambda done: None)
    made, _ = loading(host).load_dit(dit, None)
    assert change(first_segment(direct, made), plain) < most
