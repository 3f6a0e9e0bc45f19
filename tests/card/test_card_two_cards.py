"""Two cards: each has what it uses, the numbers are those of one card, and both end up empty."""

import gc
import importlib
import sys

import pytest
import torch
from comfyui import build
from direct import Direct, change, dynamic_model, hooked, strong_lora
from npu import CARD
from test_factories import flat
from test_segments import sample

pytestmark = pytest.mark.usefixtures("float32")

CARDS = [CARD, torch.device(CARD.type, 1)]


@pytest.fixture(scope="module")
def plain(direct) -> torch.Tensor:
    return direct.sample(steps=1).cpu()


@pytest.fixture(autouse=True)
def nothing_stays(host):
    """Both cards are as empty as before when the models are unloaded."""
    free = importlib.import_module("comfy.model_management").unload_all_models
    free()
    gc.collect()
    before = taken()
    yield
    free()
    gc.collect()
    assert taken() == before


def taken() -> list[int]:
    return [torch.npu.memory_allocated(card) for card in CARDS]


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return (found.cpu() - expected).abs().max().item()


def parameters_on(patcher) -> set[torch.device]:
    return {parameter.device for parameter in patcher.model.parameters()}


@pytest.mark.parametrize(("device", "card"), [("gpu:1", 1), ("default", 0)])
def test_the_card_of_a_model_is_selected(direct, plain, device, card):
    moved = direct.patched("SelectModelDevice", device=device)
    before = taken()
    assert off(direct.sample(moved, steps=1), plain) < 1e-3
    assert parameters_on(moved) == {CARDS[card]}
    assert taken()[1 - card] == before[1 - card]


@pytest.mark.parametrize("anew", ["deepclone_multigpu", "clone"])
def test_a_model_is_made_anew(direct, plain, anew):
    made = getattr(direct.model, anew)(**{"force_deepcopy": True} if anew == "clone" else {})
    assert made.model is not direct.model.model
    assert off(direct.sample(made, steps=1), plain) < 1e-3


class Split:
    """MultiGPU CFG Split, and the tensors that the denoisers keep during a run."""

    def __init__(self, direct: Direct):
        self.model = direct.patched("MultiGPU_WorkUnits", max_gpus=2)
        [clone] = self.model.get_additional_models_with_key("multigpu")
        self.denoisers = [each.model.diffusion_model for each in (self.model, clone)]
        self.seen: list[set] = []
        self.fails = False
        self.model.set_model_sampler_post_cfg_function(self.look)

    def look(self, args: dict) -> torch.Tensor:
        for denoiser in self.denoisers:
            layers = [layer for _, _, made in denoiser.kept.values() for layer in made]
            self.seen.append({tensor.device for layer in layers for tensor in layer})
        if self.fails:
            raise InterruptedError
        return args["denoised"]

    def kept(self) -> list[int]:
        return [len(denoiser.kept) for denoiser in self.denoisers]


def test_each_card_has_a_branch_of_guidance(direct, plain):
    split = Split(direct)
    assert off(direct.sample(split.model, steps=1), plain) < 1e-3
    assert split.seen == [{CARDS[0]}, {CARDS[1]}]
    assert split.kept() == [0, 0]


def test_a_run_that_fails_is_forgotten_on_both(direct):
    split = Split(direct)
    split.fails = True
    with pytest.raises(InterruptedError):
        direct.sample(split.model, steps=1)
    assert split.seen == [{CARDS[0]}, {CARDS[1]}]
    assert split.kept() == [0, 0]


def test_the_vae_on_the_second_card(direct):
    moved = direct.node("SelectVAEDevice", vae=direct.vae, device="gpu:1")
    latents = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    before = taken()
    found = moved.decode(latents)
    encoded = moved.encode(found[0, :1])
    assert parameters_on(moved.patcher) == {CARDS[1]}
    assert taken()[0] == before[0]
    assert off(found, direct.vae.decode(latents)) < 1e-3
    assert off(encoded, direct.vae.encode(found[0, :1])) < 1e-3


def test_a_segment_on_the_second_card(host, monkeypatch):
    """MODEL and VAE are on it, and so are the networks that run once."""
    management = importlib.import_module("comfy.model_management")
    load, loaded = management.load_models_gpu, []

    def watch(models, *args, **kwargs):
        loaded.extend((type(each.model).__name__, each.load_device) for each in models)
        return load(models, *args, **kwargs)

    monkeypatch.setattr(management, "load_models_gpu", watch)
    one, other = build(seconds=0.4), build(seconds=0.4)
    graph = other.graph
    model = graph("SelectModelDevice", model=other.model, device="gpu:1")
    vae = graph("SelectVAEDevice", vae=other.vae, device="gpu:1")
    frames = []
    for parts in (one, other._replace(model=model, vae=vae)):
        loaded.clear()
        latent = sample(parts, 0, steps=1)
        given = {"latent": latent, "vae": parts.vae, "identity": parts.identity}
        parts.graph.keep(parts.graph("Hallo3DecodeVAE", **given))
        frames += host.run(parts.graph)
    assert {*loaded} == {
        (name, CARDS[1]) for name in ("AudioProjector", "Hallo3Model", "Autoencoder")
    }
    assert off(*frames) < 1e-3
    host.executor.reset()


@torch.inference_mode()
def test_companions_are_made_anew(direct):
    companions = direct.model.model.model_config.companions
    run_once = sys.modules[type(companions).__module__].RunOnce
    inputs = direct.identity.motion[:, :, :1], torch.randn(1, 13, 5, 12, 768)
    for patcher, given in zip(companions, inputs, strict=True):
        results = [flat(run_once(patcher, card)(given)) for card in CARDS]
        results.append(flat(run_once(patcher.deepclone_multigpu(CARDS[1]))(given)))
        for one, *others in zip(*results, strict=True):
            assert [other.device for other in others] == [CARDS[1]] * 2
            assert all(off(other, one.cpu()) < 1e-3 for other in others)


def test_a_lora_over_a_range_of_the_steps(host, direct):
    """The LoRA is active in the first of two steps, on both cards.

    Two separate runs give the same.
    """
    euler, lora = direct.node("KSamplerSelect", sampler_name="euler"), strong_lora(host)
    sigmas, given = direct.sigmas(2), {"sampler": euler}
    strong = direct.patched("LoraLoaderModelOnly", lora_name=lora, strength_model=1.0)
    first = direct.sample(strong, sigmas=sigmas[:2], **given).cpu()
    nothing = torch.zeros_like(first)
    expected = direct.sample(latent=first, noise=nothing, sigmas=sigmas[1:], **given).cpu()
    conditions = {
        name: hooked(direct, getattr(direct, name), lora, (0.0, 1.0), (0.5, 0.0))
        for name in ("positive", "negative")
    }
    for model in (direct.model, Split(direct).model):
        found = direct.sample(model, sigmas=sigmas, **conditions, **given)
        assert change(found.cpu(), expected) < 1e-3


def test_a_dynamic_model_is_made_anew_without_that(host, direct, plain, monkeypatch):
    """torch.compile and hooks need a model that is not dynamic."""
    dynamic = dynamic_model(host, monkeypatch)
    compiled = direct.node("TorchCompileModel", model=dynamic, backend="eager")
    assert not compiled.is_dynamic()
    assert off(direct.sample(compiled, steps=1), plain) < 1e-3
    hooks = hooked(direct, direct.positive, strong_lora(host), (0.0, 0.0))
    assert off(direct.sample(dynamic, positive=hooks, steps=1), plain) < 1e-3
    torch.compiler.reset()  # torch keeps compiled code
