"""The memory that the MODEL and the VAE ask ComfyUI for, against what they use; and /free."""

import importlib
import sys

import pytest
import torch
from comfyui import Host, HostError, Parts, build
from test_segments import sample

from denoiser_memory import MIB, denoiser_call
from hallo3_core.network.config import Hallo3Config

BF16 = torch.bfloat16
ROWS = (1, 16, 13, 60, 90)


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
    estimate = full_size.memory_required([rows, *ROWS[1:]])
    assert 1 <= estimate / denoiser_call(rows, BF16) < 1.1


def test_a_device_that_is_too_small_is_named_before_sampling(host, parts, monkeypatch):
    management = importlib.import_module("comfy.model_management")
    monkeypatch.setattr(management, "get_total_memory", lambda *args: 30 * MIB)
    parts.graph.keep(sample(parts, 0, steps=1))
    with pytest.raises(HostError, match=r"takes at least 0\.\d GB at 192 x 128 in fp32"):
        host.run(parts.graph, fresh=True)


def test_decoding_goes_in_tiles_where_memory_is_short(host, monkeypatch):
    parts = build(seconds=0.2)
    management = importlib.import_module("comfy.model_management")
    latent = sample(parts, 0, steps=1)
    links = {"latent": latent, "vae": parts.vae, "identity": parts.identity}
    parts.graph.keep(parts.graph("Hallo3DecodeVAE", **links))
    (whole,) = host.run(parts.graph, fresh=True)

    def free(device=None, torch_free_too=False):
        return (140 * MIB, 0) if torch_free_too else 140 * MIB

    monkeypatch.setattr(management, "get_free_memory", free)
    (tiled,) = host.run(parts.graph, fresh=True)
    assert tiled.shape == whole.shape
    assert 0 < (tiled - whole).abs().mean() < 0.1


def test_networks_that_run_once_leave_the_device_before_sampling(host, parts, monkeypatch):
    """The models that are loaded when the denoiser is first called. None stays after unloading."""
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
