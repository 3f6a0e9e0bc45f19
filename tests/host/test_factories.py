"""ComfyUI can load every patcher again, and the new one computes the same."""

import copy
import importlib
import sys

import pytest
import torch
from direct import (
    UNDISTILLED_FILE,
    Direct,
    change,
    dynamic_model,
    hooked,
    loading,
    strong_lora,
)

from hallo3_core.settings import Settings

CPU, OTHER_CPU = torch.device("cpu"), torch.device("cpu", 0)
"""For ComfyUI these are two devices, for torch one: they stand for two cards."""


@pytest.fixture(scope="module")
def direct(host) -> Direct:
    return Direct(host)


@pytest.fixture(scope="module")
def plain(direct) -> torch.Tensor:
    return direct.sample()


def kept(*patchers) -> list[int]:
    return [len(patcher.model.diffusion_model.kept) for patcher in patchers]


@pytest.mark.parametrize("anew", ["deepclone_multigpu", "clone"])
def test_a_model_is_made_anew(direct, plain, anew):
    made = getattr(direct.model, anew)(**{"force_deepcopy": True} if anew == "clone" else {})
    assert made.model is not direct.model.model
    old, new = (set(map(id, each.model.parameters())) for each in (direct.model, made))
    assert not old & new
    assert made.model.model_config.companions is direct.model.model.model_config.companions
    assert change(direct.sample(made), plain) < 1e-3
    assert kept(direct.model, made) == [0, 0]


@torch.inference_mode()
def test_a_model_on_another_card_uses_its_companions_there(direct, monkeypatch):
    """The audio projector runs on the device of the MODEL."""
    made = direct.model.deepclone_multigpu(OTHER_CPU)
    used = []
    management = importlib.import_module("comfy.model_management")
    load = management.load_models_gpu

    def watch(models, *args, **kwargs):
        used.extend((type(m.model).__name__, m.load_device) for m in models)
        return load(models, *args, **kwargs)

    monkeypatch.setattr(management, "load_models_gpu", watch)
    condition = sys.modules[direct.nodes["Hallo3SegmentConditioning"].__module__].condition
    positive, *_ = condition(made, direct.identity, direct.speech, 0, None, None, Settings())
    assert used == [("AudioProjector", OTHER_CPU)]
    tokens = [each[0][1]["hallo3_speech"].tokens for each in (positive, direct.positive)]
    assert torch.equal(*tokens)
    projector = direct.model.model.model_config.companions.audio_projector
    assert projector.load_device == CPU
    assert projector.load_device is not OTHER_CPU


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_guidance_is_split_between_two_cards(direct, monkeypatch, guidance):
    """MultiGPU CFG Split: each branch is in its own clone, which deletes what it has kept."""
    management = importlib.import_module("comfy.model_management")
    monkeypatch.setattr(management, "get_all_torch_devices", lambda **_: [CPU, OTHER_CPU])
    split = direct.patched("MultiGPU_WorkUnits", max_gpus=2)
    (clone,) = split.get_additional_models_with_key("multigpu")
    kind = type(clone.model.diffusion_model)
    rows, forward = [], kind.forward

    def count(self, x, *inputs, **others):
        rows.append((self is clone.model.diffusion_model, len(x)))
        return forward(self, x, *inputs, **others)

    monkeypatch.setattr(kind, "forward", count)
    found = direct.sample(split, guidance=guidance)
    assert change(found, direct.sample(guidance=guidance)) < 1e-3
    branches = [(False, 1), (True, 1)] if guidance > 1 else [(False, 1)]
    assert sorted(rows[: 2 * len(branches)]) == sorted(2 * branches)
    assert kept(direct.model, clone) == [0, 0]


def test_a_run_that_fails_is_forgotten_on_every_card(direct, monkeypatch):
    management = importlib.import_module("comfy.model_management")
    monkeypatch.setattr(management, "get_all_torch_devices", lambda **_: [CPU, OTHER_CPU])
    split = direct.patched("MultiGPU_WorkUnits", max_gpus=2)

    def fail(args):
        assert kept(*patchers) != [0, 0]
        raise InterruptedError

    split.set_model_sampler_post_cfg_function(fail)
    patchers = direct.model, split.get_additional_models_with_key("multigpu")[0]
    with pytest.raises(InterruptedError):
        direct.sample(split)
    assert kept(*patchers) == [0, 0]


@pytest.mark.parametrize("device", ["cpu", "gpu:1", "default"])
def test_the_device_of_a_model_is_selected(direct, plain, monkeypatch, device):
    management = importlib.import_module("comfy.model_management")
    monkeypatch.setattr(management, "get_all_torch_devices", lambda **_: [CPU, OTHER_CPU])
    moved = direct.patched("SelectModelDevice", device=device)
    assert moved.load_device == (OTHER_CPU if device == "gpu:1" else CPU)
    assert change(direct.sample(moved), plain) < 1e-3


@pytest.fixture
def lora(host) -> str:
    return strong_lora(host)


def test_a_lora_over_a_range_of_the_steps(direct, lora):
    """The same as sampling the first half with the LoRA, and the second half without."""
    euler = direct.node("KSamplerSelect", sampler_name="euler")
    sigmas = direct.sigmas(4)
    with_lora = direct.patched("LoraLoaderModelOnly", lora_name=lora, strength_model=1.0)
    first = direct.sample(with_lora, sigmas=sigmas[:3], sampler=euler)
    nothing = torch.zeros_like(first)
    expected = direct.sample(latent=first, noise=nothing, sigmas=sigmas[2:], sampler=euler)

    strengths = (0.0, 1.0), (0.5, 0.0)
    found = direct.sample(
        positive=hooked(direct, direct.positive, lora, *strengths),
        negative=hooked(direct, direct.negative, lora, *strengths),
        sigmas=sigmas,
        sampler=euler,
    )
    assert change(expected, direct.sample(sigmas=sigmas, sampler=euler)) > 0.05
    assert change(found, expected) < 1e-3
    assert kept(direct.model) == [0]


def test_a_lora_on_one_branch_of_guidance(direct, lora):
    """Each branch has its own keys of the portrait, although the portrait is the same."""
    one_step = {"sampler": direct.node("KSamplerSelect", sampler_name="euler"), "steps": 1}
    with_lora = direct.patched("LoraLoaderModelOnly", lora_name=lora, strength_model=1.0)
    speech = direct.sample(with_lora, guidance=1.0, **one_step)
    silence = direct.sample(positive=direct.negative, guidance=1.0, **one_step)
    hooks = hooked(direct, direct.positive, lora, (0.0, 1.0))
    found = direct.sample(positive=hooks, guidance=3.5, **one_step)
    assert change(found, silence + 3.5 * (speech - silence)) < 1e-3


@torch.inference_mode()
def test_companions_are_made_anew(direct):
    identity = direct.identity
    companions = direct.model.model.model_config.companions
    module = sys.modules[type(companions).__module__]
    inputs = identity.motion[:, :, :1], torch.randn(1, 13, 5, 12, 768)
    for patcher, given in zip(companions, inputs, strict=True):
        made = patcher.deepclone_multigpu(OTHER_CPU)
        assert made.model is not patcher.model
        assert made.load_device == OTHER_CPU
        results = [module.RunOnce(each)(given) for each in (patcher, made)]
        for old, new in zip(*map(flat, results), strict=True):
            assert torch.equal(old, new)


def flat(value) -> list[torch.Tensor]:
    return [value] if torch.is_tensor(value) else [t for part in value for t in flat(part)]


def test_the_vae_is_made_anew(direct):
    """Select VAE Device does this for another card."""
    moved = copy.copy(direct.vae)
    moved.patcher = direct.vae.patcher.deepclone_multigpu(OTHER_CPU)
    moved.first_stage_model = moved.patcher.model
    assert moved.first_stage_model is not direct.vae.first_stage_model
    picture = torch.rand(1, 128, 192, 3)
    assert torch.equal(moved.encode(picture), direct.vae.encode(picture))


def test_the_speech_encoder_is_made_anew(direct):
    encoder = direct.node("Hallo3LoadSpeechEncoder")
    other = copy.copy(encoder)
    other.patcher = encoder.patcher.clone(force_deepcopy=True)
    assert other.patcher.model is not encoder.patcher.model
    waveform = torch.randn(16_000)
    old, new = (each.encode(waveform).features[:] for each in (encoder, other))
    assert torch.equal(old, new)


@pytest.fixture
def dynamic(host, monkeypatch):
    device = torch.device("cuda", 0)
    monkeypatch.setattr(loading(host), "get_torch_device", lambda: device)
    return dynamic_model(host, monkeypatch)


def test_a_dynamic_model_is_made_anew_without_that(direct, plain, dynamic):
    """Select Model Device (cpu), torch.compile and hooks need this."""
    moved = direct.node("SelectModelDevice", model=dynamic, device="cpu")
    assert not moved.is_dynamic()
    assert change(direct.sample(moved), plain) < 1e-3
    compiled = direct.node("TorchCompileModel", model=dynamic, backend="inductor")
    assert not compiled.is_dynamic()
    delegate = dynamic.get_non_dynamic_delegate()
    for patcher in (compiled, delegate):
        assert patcher.model is not dynamic.model
        patcher.load_device = CPU
    delegate.load_device = CPU
    assert change(direct.sample(delegate), plain) < 1e-3


def test_the_fingerprint_knows_every_network(host, direct, monkeypatch):
    """Finished segments of one model are never used for another model."""
    module = loading(host)
    read, found = module.read_networks, [direct.model.model.model_config.weights_fingerprint()]
    for index in range(3):

        def changed(file, index=index):
            config, states = read(file)
            next(iter(states[index].values())).flatten()[0] += 1
            return config, states

        monkeypatch.setattr(module, "read_networks", changed)
        patcher, _ = module.load_dit(UNDISTILLED_FILE, None)
        found.append(patcher.model.model_config.weights_fingerprint())
    assert len(set(found)) == 4
