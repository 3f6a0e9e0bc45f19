"""Every stock node that patches a MODEL works, or is refused with one sentence."""

import copy
import importlib
from pathlib import Path

import pytest
import torch
from direct import Direct, change

PACK = Path(__file__).resolve().parents[2]

ALL = {"start_percent": 0.0, "end_percent": 1.0}
WORKS = {
    "APG": {},
    "CFGNorm": {},
    "CFGOverride": {},
    "CFGZeroStar": {},
    "EasyCache": {"reuse_threshold": 1.0, **ALL},
    "FreSca": {"freq_cutoff": 2},
    "LTXVSpatioTemporalGuidance": {"blocks": "1"},
    "Mahiro": {},
    "ModelComputeDtype": {"dtype": "bf16"},
    "NAGuidance": {},
    "PerturbedAttentionGuidance": {"scale": 1.0},
    "RenormCFG": {},
    "RescaleCFG": {},
    "SkipLayerGuidanceDiT": {"double_layers": "1", "scale": 0.3, **ALL},
    "SkipLayerGuidanceDiTSimple": {"double_layers": "1", "start_percent": 0.6},
    "SkipLayerGuidanceSD3": {"layers": "1", "scale": 0.3, **ALL},
    "TCFG": {},
    "TemporalScoreRescaling": {},
}
"""Nodes, with settings that change the latents a little."""

SAME = {
    "DifferentialDiffusion": {},
    "ModelAttentionBackend": {},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": True},
    "MultiGPU_WorkUnits": {},
    "SelectModelDevice": {},
}
"""Nodes that must change nothing here."""

NO_PLACE = "which Hallo3 cannot use"
WINDOWS = "Hallo3 makes long videos segment by segment, and cannot use context windows"
SCHEDULE = "remove the ModelSampling node"
REFUSED = {
    "ChromaRadianceOptions": (NO_PLACE, {"nerf_tile_size": 32, "start_sigma": 9999.0}),
    "ContextWindowsManual": (WINDOWS, {"dim": 2, "context_length": 6}),
    "Epsilon Scaling": ("EpsilonScaling adds a part of sigma as noise", {}),
    "FluxKVCache": ("the patch attn1_patch, " + NO_PLACE, {}),
    "HyperTile": ("such as HyperTile or TomePatchModel", {}),
    "LTXVContextWindows": (WINDOWS, {}),
    "LTXVModalityGuidance": ("such as LTXVModalityGuidance", {}),
    "LazyCache": ("use EasyCache", {}),
    "MiniMaxH3SigmaShift": (SCHEDULE, {}),
    "ModelSamplingAuraFlow": (SCHEDULE, {}),
    "ModelSamplingContinuousEDM": (SCHEDULE, {"sampling": "v_prediction"}),
    "ModelSamplingContinuousV": (SCHEDULE, {}),
    "ModelSamplingDiscrete": (SCHEDULE, {"sampling": "v_prediction", "zsnr": False}),
    "ModelSamplingFlux": (SCHEDULE, {}),
    "ModelSamplingLTXV": (SCHEDULE, {}),
    "ModelSamplingSD3": (SCHEDULE, {}),
    "ModelSamplingStableCascade": (SCHEDULE, {}),
    "PatchModelAddDownscale": ("such as PatchModelAddDownscale", {}),
    "ScaleROPE": ("such as ScaleROPE", {}),
    "SelfAttentionGuidance": (r"the patch attn1 \('middle', 0, 0\)", {}),
    "TomePatchModel": ("such as HyperTile or TomePatchModel", {}),
    "VideoLinearCFGGuidance": ("VideoLinearCFGGuidance treats the videos of a batch as frames", {}),
    "VideoTriangleCFGGuidance": ("VideoTriangleCFGGuidance treats the videos", {}),
    "WanAnimate2Cache": (NO_PLACE, {"device": "cpu"}),
    "WanContextWindowsManual": (WINDOWS, {}),
}


@pytest.fixture(scope="module")
def direct(host) -> Direct:
    return Direct(host)


@pytest.fixture(scope="module")
def plain(direct) -> torch.Tensor:
    return direct.sample(steps=3)


@pytest.mark.parametrize(("node", "inputs"), WORKS.items(), ids=WORKS)
def test_a_node_does_its_work(direct, plain, node, inputs):
    found = direct.sample(direct.patched(node, **inputs), steps=3)
    assert 0.0003 < change(found, plain) < 0.7


@pytest.mark.parametrize(("node", "inputs"), SAME.items(), ids=SAME)
def test_a_node_changes_nothing_where_it_should(direct, plain, node, inputs):
    assert change(direct.sample(direct.patched(node, **inputs), steps=3), plain) < 1e-5


@pytest.mark.parametrize(("node", "refused"), REFUSED.items(), ids=REFUSED)
def test_a_node_is_refused_with_one_sentence(direct, node, refused):
    sentence, inputs = refused
    with pytest.raises(ValueError, match=sentence) as raised:
        direct.sample(direct.patched(node, **inputs), steps=1)
    assert str(raised.value).endswith(".")
    assert str(raised.value).count(". ") == 0


@pytest.mark.parametrize("node", ["FreeU", "FreeU_V2"])
def test_nodes_for_unets_say_so(direct, node):
    with pytest.raises(ValueError, match="This node is for UNets and asks for 'model_channels'"):
        direct.patched(node)


@pytest.mark.parametrize(
    ("node", "inputs", "named"),
    [
        ("SkipLayerGuidanceDiT", ALL, "layers 7, 8, 9"),
        ("SkipLayerGuidanceDiT", {"double_layers": "", "single_layers": "1", **ALL}, "no layers"),
        ("SkipLayerGuidanceSD3", ALL, "layers 7, 8, 9"),
        ("LTXVSpatioTemporalGuidance", {}, "layers 29"),
    ],
)
def test_layers_that_are_not_there_are_named(direct, node, inputs, named):
    with pytest.raises(ValueError, match=f"changes {named}, but .* layers 0 to 3"):
        direct.sample(direct.patched(node, **inputs), steps=1)


class Seen:
    """What the patches of a call received."""

    def __init__(self):
        self.blocks, self.outputs, self.replaced, self.attention = [], [], [], 0

    def block(self, args: dict, extra: dict) -> dict:
        self.blocks.append((args["img"].shape, args["txt"].shape))
        return extra["original_block"](args)

    def output(self, out: torch.Tensor, options: dict) -> torch.Tensor:
        self.outputs.append((options["block_index"], options["img_slice"], out.shape))
        return out

    def replace(self, query, key, value, options) -> torch.Tensor:
        self.replaced.append((options["block_index"], query.shape, key.shape, value.shape))
        return value

    def override(self, function, *args, **kwargs) -> torch.Tensor:
        self.attention += 1
        return function(*args, **kwargs)


def test_patches_see_what_they_see_in_the_hosts_own_transformers(direct, plain):
    """Text and image tokens of a layer. Both branches of guidance are in one call: two rows."""
    config = direct.model.model.diffusion_model.config
    text, image = config.text_tokens, 13 * config.frame_tokens
    seen, model = Seen(), direct.model.clone()
    model.set_model_patch_replace(seen.block, "dit", "double_block", 1)
    model.set_model_attn1_output_patch(seen.output)
    model.model_options["transformer_options"]["optimized_attention_override"] = seen.override
    assert change(direct.sample(model, steps=3), plain) < 1e-6
    assert seen.blocks == [((2, image, 128), (2, text, 128))] * 3
    whole = [text, text + image]
    assert seen.outputs == [(i, whole, (2, text + image, 128)) for i in range(4)] * 3
    assert seen.attention == 3 * 4 * 3

    seen, model = Seen(), direct.model.clone()
    model.set_model_attn1_replace(seen.replace, "middle", 0)
    assert 0.01 < change(direct.sample(model, steps=1), direct.sample(steps=1)) < 1
    shape = (2, text + image, 128)
    assert seen.replaced == [(2, shape, shape, shape)]


def test_every_patch_node_is_in_the_docs(direct):
    """The nodes whose inputs are a MODEL and widgets only."""
    written = (PACK / "docs" / "nodes.md").read_text("utf-8")
    missing = []
    for name, kind in direct.nodes.items():
        if not hasattr(kind, "INPUT_TYPES") or name.startswith("Hallo3"):
            continue
        inputs = kind.INPUT_TYPES()
        sockets = [
            type_
            for type_, *options in (
                inputs.get("required", {}) | inputs.get("optional", {})
            ).values()
            if isinstance(type_, str) and type_ not in WIDGETS
        ]
        if sockets == ["MODEL"] and list(kind.RETURN_TYPES) == ["MODEL"]:
            missing += [name] if f"`{name}`" not in written else []
    assert missing == []


WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def whole_mask(value: float) -> torch.Tensor:
    return torch.full((1, 128, 192), value)


def test_a_masked_part_of_a_latent_is_kept(direct):
    """Set Latent Noise Mask: only the masked part is sampled."""
    start = torch.randn(direct.latent["samples"].shape, generator=torch.Generator().manual_seed(5))
    mask = whole_mask(0.0)
    mask[..., 96:] = 1.0
    masked = direct.node("SetLatentNoiseMask", samples={"samples": start}, mask=mask)
    euler = direct.node("KSamplerSelect", sampler_name="euler")
    for model in (direct.model, direct.patched("DifferentialDiffusion")):
        for sampler in (euler, None):
            found = direct.sample(model, latent=start, mask=masked["noise_mask"], sampler=sampler)
            assert (found - start)[..., :12].abs().max() < 1e-4
            assert (found - start)[..., 12:].abs().mean() > 0.5


def test_a_batch_of_latents(direct, plain):
    samples = direct.node("RepeatLatentBatch", samples=direct.latent, amount=2)["samples"]
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(direct.latent["samples"].shape, generator=generator).repeat(2, 1, 1, 1, 1)
    found = direct.sample(latent=samples, noise=noise, steps=3)
    assert found.shape[0] == 2
    assert change(found[:1], plain) < 1e-4
    assert change(found[1:], plain) < 1e-4


@pytest.mark.parametrize("late", [False, True])
def test_a_conditioning_for_a_part_of_the_steps(direct, plain, late):
    """Half of the steps without guidance: between full guidance and none."""
    ranges = [(0.0, 1.0), (0.5, 1.0) if late else (0.0, 0.5)]
    whole, part = (
        direct.sample(
            steps=4,
            negative=direct.node(
                "ConditioningSetTimestepRange", conditioning=direct.negative, start=start, end=end
            ),
        )
        for start, end in ranges
    )
    assert change(whole, direct.sample(steps=4)) < 1e-5
    assert change(part, whole) > 1e-3


def test_masked_and_combined_conditionings(direct, plain):
    """The same conditioning on both halves of the frame is as one for the whole frame."""
    mask = whole_mask(0.0)
    mask[..., 96:] = 1.0
    halves = [
        direct.node("ConditioningSetMask", conditioning=direct.positive, mask=part, strength=1.0)
        for part in (mask, 1 - mask)
    ]
    both = direct.node("ConditioningCombine", conditioning_1=halves[0], conditioning_2=halves[1])
    assert change(direct.sample(positive=both, steps=3), plain) < 1e-4


@pytest.mark.parametrize(
    ("sentence", "node", "inputs"),
    [
        ("has an area", "ConditioningSetArea", {"width": 64, "height": 64}),
        ("has a guidance of its own", "FluxGuidance", {}),
        ("has reference latents", "ReferenceLatent", {"latent": {"samples": torch.ones(1)}}),
    ],
)
def test_a_conditioning_that_cannot_be_used(direct, sentence, node, inputs):
    changed = direct.node(node, conditioning=direct.positive, **inputs)
    with pytest.raises(ValueError, match=sentence):
        direct.sample(positive=changed, steps=1)


def test_a_controlnet_and_inpainting_cannot_be_used(direct):
    class ControlNet(importlib.import_module("comfy.controlnet").ControlBase):
        def copy(self):
            return copy.copy(self)

    controlnet = ControlNet()
    picture = torch.zeros(1, 128, 192, 3)
    conditions = {"positive": direct.positive, "negative": direct.negative}
    controlled = direct.node(
        "ControlNetApplyAdvanced", control_net=controlnet, image=picture, **conditions
    )
    with pytest.raises(ValueError, match="has a ControlNet"):
        direct.sample(positive=controlled, steps=1)
    inpainted = direct.node(
        "InpaintModelConditioning",
        vae=direct.vae,
        pixels=picture,
        mask=whole_mask(1.0),
        noise_mask=True,
        **conditions,
    )
    with pytest.raises(ValueError, match="has a picture to inpaint"):
        direct.sample(positive=inpainted, steps=1)


def test_a_latent_of_another_kind_is_named(direct):
    empty = direct.node("EmptyLatentImage", width=64, height=64, batch_size=1)["samples"]
    sentence = (
        "The latent has the shape 4 x 8 x 8, but a segment of this model has 16 x 13 x 16 x 24"
    )
    with pytest.raises(ValueError, match=sentence):
        direct.sample(latent=empty, steps=1)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_lora_is_trained(direct, plain, checkpointing):
    """TrainLoraNode changes the weights at every step: the keys and values must follow."""
    kind = direct.nodes["TrainLoraNode"]
    settings = direct.widgets(kind) | {
        "steps": 2,
        "rank": 2,
        "learning_rate": 0.01,
        "training_dtype": "none",
        "gradient_checkpointing": checkpointing,
    }
    settings |= {"model": direct.model, "latents": direct.latent, "positive": direct.positive}
    with torch.inference_mode():
        lora, losses, *_ = kind.execute(**{key: [value] for key, value in settings.items()}).args
    assert len(losses["loss"]) == 2
    trained = direct.patched("LoraModelLoader", lora=lora, strength_model=1.0, bypass=False)
    assert 1e-3 < change(direct.sample(trained, steps=3), plain) < 1
    assert change(direct.sample(steps=3), plain) == 0
