"""What the MODEL and the VAE tell ComfyUI of their memory, against what they take; and /free."""

import importlib
import inspect
import sys
import weakref

import pytest
import torch
from comfyui import Host, Parts
from test_segments import sample
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hallo3_core.config import MOTION_FRAMES, Hallo3Config
from hallo3_core.transformer import Conditions, Denoiser
from hallo3_core.vae import autoencoder, decode

MIB = 2**20
BF16 = torch.bfloat16
ROWS = (1, 16, 13, 60, 90)


class Peak(TorchDispatchMode):
    """Bytes of tensors that are alive at once, beside a network's own weights."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.weights = [parameter.untyped_storage() for parameter in network.parameters()]
        self.alive = dict.fromkeys((storage._cdata for storage in self.weights), 0)
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.see(tensor.untyped_storage())
        self.bytes = max(self.bytes, sum(self.alive.values()))
        return result

    def see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, storage._cdata)


def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Its memory is its result; PyTorch has it on the CPU and on GPUs, but not without a device."""
    return torch.empty_like(query)


@pytest.fixture
def full_size(host: Host, parts: Parts, monkeypatch):
    """The MODEL at full size in bf16, without weights, on a device with flash attention."""
    parts.graph.keep(parts.model)
    (patcher,) = host.run(parts.graph)
    management = importlib.import_module("comfy.model_management")
    monkeypatch.setattr(management, "pytorch_attention_flash_attention", lambda: True)
    config = type(patcher.model.model_config)(Hallo3Config())
    config.set_inference_dtype(BF16, None)
    return config.get_model(device="meta")


@pytest.mark.parametrize("rows", [1, 2])
def test_a_denoiser_call(full_size, rows):
    """All layers are alike, so two of them show the peak; what is kept is of all 42."""
    config = Hallo3Config(layers=2)
    with torch.device("meta"), torch.no_grad():
        denoiser = Denoiser(config, dtype=BF16)
        latents = torch.empty(rows, *ROWS[1:], dtype=BF16)
        tokens = torch.empty(1, config.frame_tokens, config.width, dtype=BF16)
        audio = torch.empty(rows, 13, config.audio_tokens, config.audio_width, dtype=BF16)
        reference = denoiser.reference_keys_values([tokens] * config.layers)
        face = denoiser.face_keys_values(torch.empty(rows, config.face_channels, dtype=BF16))
        constants = (reference, face, denoiser.audio_keys_values(audio))
        text = torch.empty(rows, config.text_tokens, config.text_width, dtype=BF16)
        shared = [[part.expand(rows, -1, -1, -1) for part in layer] for layer in reference]
        conditions = Conditions(text, latents, shared, *constants[1:])
        with Peak(denoiser) as peak:
            denoiser(latents, torch.zeros(rows), conditions, lambda layer: flash_attention)
    kept = 21 * sum(tensor.nbytes for tensor in tree_leaves(constants))
    estimate = full_size.memory_required([rows, *ROWS[1:]])
    assert peak.bytes / MIB == pytest.approx(1352 * rows, rel=0.05)
    assert 1 <= estimate / (peak.bytes + kept) < 1.1


@pytest.mark.parametrize("size", [(60, 90), (40, 40)])
def test_the_vae(host, parts, size):
    parts.graph.keep(parts.vae)
    (vae,) = host.run(parts.graph)
    module = inspect.getmodule(type(vae))
    with torch.device("meta"), torch.no_grad():
        full = autoencoder(
            block_out_channels=(128, 256, 256, 512),
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            layers_per_block=3,
        ).to(BF16)
        latents = torch.empty(1, 16, 13, *size, dtype=BF16)
        pixels = torch.empty(1, 3, MOTION_FRAMES + 1, *(8 * side for side in size), dtype=BF16)
        with Peak(full) as decoding:
            for _ in decode(full, latents):
                pass
        with Peak(full) as encoding:
            full.encode(pixels)
    assert 1 <= module.memory_to_decode(full, latents.shape, BF16) / decoding.bytes < 1.1
    assert 1 <= module.memory_to_encode(full, pixels.shape, BF16) / encoding.bytes < 1.3


def test_networks_that_run_once_leave_the_device_before_sampling(host, parts, monkeypatch):
    """What is loaded when the denoiser is first called, and nothing after models are unloaded."""
    management = importlib.import_module("comfy.model_management")
    loaded = []
    denoiser = sys.modules[host.nodes.NODE_CLASS_MAPPINGS["Hallo3SampleSegment"].__module__]
    sample_segment = denoiser.sample_segment

    def watch(model, *args, **kwargs):
        def wrapper(apply_model, given):
            loaded.append({type(entry.model.model).__name__ for entry in models()})
            return apply_model(given["input"], given["timestep"], **given["c"])

        model = model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return sample_segment(model, *args, **kwargs)

    def models():
        return management.current_loaded_models

    monkeypatch.setattr(denoiser, "sample_segment", watch)
    management.unload_all_models()
    parts.graph.keep(sample(parts, 0, steps=1))
    host.run(parts.graph, fresh=True)
    assert "Hallo3Model" in loaded[0]
    assert not loaded[0] & {"ReferenceNetwork", "AudioProjector"}
    management.unload_all_models()
    assert not models()
