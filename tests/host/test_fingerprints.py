"""The fingerprint of a MODEL depends on what it computes. Without one, no segments are kept."""

import sys

import pytest
import torch
from comfyui import build
from direct import Direct
from safetensors.torch import save_file
from test_animate_portrait import animated
from test_patches import WORKS

from hallo3_core.store.fingerprint import fingerprint


@pytest.fixture(scope="module")
def direct(host) -> Direct:
    return Direct(host)


@pytest.fixture(scope="module")
def of_model(host):
    """The fingerprint of a MODEL."""
    node = host.nodes.NODE_CLASS_MAPPINGS["Hallo3AnimatePortrait"]
    module = sys.modules[f"{node.__module__.rpartition('.')[0]}.host.fingerprint"]
    return lambda model: fingerprint(module.model_parts(model), module.parts_of)


@pytest.mark.parametrize(("node", "inputs"), WORKS.items(), ids=WORKS)
def test_a_patch_of_the_host_is_known(direct, of_model, node, inputs):
    """The same patch twice gives the same fingerprint. Sampling does not change it."""
    once, twice = (direct.patched(node, **inputs) for _ in range(2))
    assert of_model(once) == of_model(twice) != of_model(direct.model)
    direct.sample(once, steps=1)
    assert of_model(once) == of_model(twice)


def test_settings_of_a_patch_count(direct, of_model):
    models = [direct.patched("RescaleCFG", multiplier=share) for share in (0.1, 0.2)]
    models += [direct.patched("ModelComputeDtype", dtype=dtype) for dtype in ("bf16", "fp16")]
    assert len({of_model(model) for model in models}) == 4


def test_compiling_does_not_count(direct, of_model):
    compiled = direct.patched("TorchCompileModel", backend="inductor")
    found = fingerprint(of_model(compiled))
    assert found == fingerprint(of_model(direct.patched("TorchCompileModel", backend="inductor")))


def test_a_lora_counts_with_its_strength(host, direct, of_model):
    folder = host.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    layer = "diffusion_model.layers.0.query_key_value"
    for value in (1, 2):
        up, down = torch.full((384, 1), float(value)), torch.ones(1, 128)
        lora = {f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down}
        save_file(lora, folder / f"counts_{value}.safetensors")

    def loaded(value: int, strength: float):
        return direct.node(
            "LoraLoaderModelOnly",
            model=direct.model,
            lora_name=f"counts_{value}.safetensors",
            strength_model=strength,
        )

    kinds = [loaded(1, 1.0), loaded(1, 0.5), loaded(2, 1.0), direct.model]
    assert len({of_model(model) for model in kinds}) == 4
    assert of_model(loaded(1, 1.0)) == of_model(kinds[0])
    direct.sample(kinds[0], steps=1)  # the weights of the model itself are patched meanwhile
    assert of_model(direct.model) == of_model(kinds[3])
    assert of_model(loaded(1, 1.0)) == of_model(kinds[0])


def patched_by_another_pack(model):
    model = model.clone()
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    return model


def test_a_patch_of_another_pack_is_unknown(direct, of_model):
    with pytest.raises(TypeError, match="patched_by_another_pack"):
        of_model(patched_by_another_pack(direct.model))


def test_then_no_segments_are_kept_and_the_node_says_so(host, tmp_path, caplog, monkeypatch):
    class Patch:
        RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "patch", "test"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"model": ("MODEL",)}}

        def patch(self, model):
            return (patched_by_another_pack(model),)

    monkeypatch.setitem(host.nodes.NODE_CLASS_MAPPINGS, "PatchOfAnotherPack", Patch)
    parts = build(seconds=0.5)
    model = parts.graph("PatchOfAnotherPack", model=parts.model)
    parts.graph.keep(animated(parts._replace(model=model))[3])
    (video,) = host.run(parts.graph)
    assert video.get_frame_count() == 13
    assert not (tmp_path / "segments").exists()
    (warning,) = [text for text in caplog.messages if "are not kept" in text]
    assert "patched_by_another_pack" in warning
