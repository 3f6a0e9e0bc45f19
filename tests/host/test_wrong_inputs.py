"""Wrong inputs are told in one clear sentence, and the host goes on."""

import inspect
import json
import re
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from comfyui import PACK, Graph, Host, HostError, Out, Parts, build
from safetensors.torch import load_file, save_file
from test_animate_portrait import animated
from test_segments import sample

from parity import FIXTURES

TONE = 0.5 * torch.sin(torch.arange(16_000.0) / 10)[None, None]
WEIGHTS = FIXTURES / "transformer_weights.safetensors"


def fails(host: Host, graph: Graph, message: str) -> None:
    with pytest.raises(HostError, match=message) as error:
        host.run(graph)
    assert "\n" not in str(error.value)


def encode(parts: Parts, **inputs) -> None:
    reference_network = parts.model[1]
    given = {"vae": parts.vae, "reference_network": reference_network, "growth": 1.2, "seed": 0}
    parts.graph.keep(parts.graph("Hallo3EncodeIdentity", **given | inputs))


def test_a_batch_of_portraits(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    encode(parts, image=parts.graph("RepeatImageBatch", image=image, amount=2))
    fails(host, parts.graph, "a batch of 2 images of 3 channels: connect one RGB image")


def test_a_transparent_portrait(host, parts):
    """It has four channels, and is put on black."""
    image = parts.graph("LoadImage", image="portrait.png")
    mask = parts.graph("SolidMask", value=1.0, width=90, height=60)
    encode(parts, image=parts.graph("JoinImageWithAlpha", image=image, alpha=mask))
    (identity,) = host.run(parts.graph)
    assert identity.portrait.max() == -1


class Given:
    """A node that gives any value; stands for those of other packs."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("*",), "make", "test"
    value = None

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def make(self):
        return (self.value,)


def given(host: Host, graph: Graph, kind: str, value):
    """`value` on a socket of that kind."""
    name = f"Given{id(value)}"
    host.nodes.NODE_CLASS_MAPPINGS[name] = type(
        name, (Given,), {"value": value, "RETURN_TYPES": (kind,)}
    )
    return graph(name)


PIXELS = torch.rand(1, 60, 90, 3, generator=torch.Generator().manual_seed(2))
NAN = torch.where(torch.arange(90)[:, None] == 30, float("nan"), PIXELS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_portraits_in_half_precision(host, parts, dtype):
    """As --fp16-intermediates has them: found, masked and encoded as in float32, nearly."""
    for value in (PIXELS, PIXELS.to(dtype)):
        graph = parts.graph
        image = given(host, graph, "IMAGE", value)
        mask = given(host, graph, "MASK", torch.ones(1, 60, 90, dtype=value.dtype))
        graph.keep(graph("Hallo3FindFace", image=image, face_index=0)[1])
        reference_network = parts.model[1]
        graph.keep(
            graph(
                "Hallo3EncodeIdentity",
                image=image,
                mask=mask,
                vae=parts.vae,
                reference_network=reference_network,
                growth=1.2,
                seed=0,
            )
        )
    preview, exact, half_preview, half = host.run(parts.graph)
    assert preview.dtype == half_preview.dtype == torch.float32
    assert (preview - half_preview).abs().max() <= 2 / 255
    assert half.portrait.dtype == torch.float32
    assert (exact.portrait - half.portrait).abs().max() < 0.02
    assert (exact.features[0] - half.features[0]).std() < 0.05 * exact.features[0].std()


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("IMAGE", NAN, "The portrait has pixels that are no numbers"),
        ("IMAGE", None, "The portrait is a NoneType and no picture"),
        ("IMAGE", PIXELS.numpy(), "The portrait is a ndarray and no picture"),
        ("IMAGE", PIXELS[:, :5], "The portrait has 90 x 5 pixels: use a picture of at least 16"),
        ("MASK", torch.ones(2, 60, 90), "The mask is a batch of 2 masks: connect one"),
        ("MASK", NAN[..., 0], "The mask has pixels that are no numbers"),
    ],
)
def test_images_and_masks_of_other_packs(host, parts, kind, value, message):
    image = parts.graph("LoadImage", image="portrait.png")
    encode(parts, **{"image": image} | {kind.lower(): given(host, parts.graph, kind, value)})
    fails(host, parts.graph, message)
    if kind == "IMAGE":
        graph = Graph()
        graph.keep(graph("Hallo3FindFace", image=given(host, graph, kind, value), face_index=0))
        fails(host, graph, message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (NAN, "The IMAGE on .*frames has pixels that are no numbers"),
        (None, "The IMAGE on frames is a NoneType and no picture"),
    ],
)
def test_frames_of_other_packs(host, parts, value, message):
    """Nothing is sampled or decoded for them."""
    frames = given(host, parts.graph, "IMAGE", value)
    common = {"vae": parts.vae, "identity": parts.identity}
    parts.graph.keep(
        parts.graph(
            "Hallo3ExtendWithMotionFrames", frames=frames, segment_index=1, seed=0, **common
        )
    )
    fails(host, parts.graph, message)
    other = build(seconds=0.5)
    latent = given(host, other.graph, "LATENT", {"samples": torch.zeros(1, 16, 13, 16, 24)})
    previous = given(host, other.graph, "IMAGE", value)
    common = {"vae": other.vae, "identity": other.identity}
    if value is not None:
        other.graph.keep(
            other.graph("Hallo3DecodeVAE", latent=latent, previous_frames=previous, **common)
        )
        fails(host, other.graph, message)


def test_a_mask_that_nobody_painted(host, parts):
    """Load Image gives 64 x 64 zeros then, which is no mask."""
    image = parts.graph("LoadImage", image="portrait.png")
    with_mask = parts.graph(
        "Hallo3EncodeIdentity",
        image=image,
        mask=image[1],
        vae=parts.vae,
        reference_network=parts.model[1],
        growth=1.2,
        seed=0,
    )
    for output in (image[1], with_mask[2]):
        parts.graph.keep(output)
    mask, region = host.run(parts.graph)
    assert mask.shape == (1, 64, 64)
    assert region.shape == (1, 60, 90)
    assert (region == 1).all()


def test_an_empty_mask(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    mask = parts.graph("SolidMask", value=0.0, width=90, height=60)
    encode(parts, image=image, mask=mask)
    fails(host, parts.graph, "The mask is empty: paint the face white, or leave the mask out")


def test_a_mask_of_another_size(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    mask = parts.graph("SolidMask", value=1.0, width=64, height=64)
    encode(parts, image=image, mask=mask)
    fails(host, parts.graph, "The mask has 64 x 64 pixels and the portrait 90 x 60")


def test_audio_without_length(host):
    parts = build(seconds=0)
    parts.graph.keep(parts.speech)
    fails(host, parts.graph, "The speech has no length: connect a sound that has")


class OtherAudio:
    """Gives out what another pack might call AUDIO."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("AUDIO",), "make", "test"
    given: ClassVar[dict[int, object]] = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"number": ("INT", {})}}

    def make(self, number):
        return (self.given[number],)


def audio_from(host: Host, graph: Graph, audio: object) -> Out:
    host.nodes.NODE_CLASS_MAPPINGS["OtherAudio"] = OtherAudio
    OtherAudio.given[id(audio)] = audio
    return graph("OtherAudio", number=id(audio))


def speech_of(host: Host, parts: Parts, audio: object) -> Parts:
    encoder = parts.graph.nodes[parts.speech.link[0]]["inputs"]["speech_encoder"]
    speech = parts.graph(
        "Hallo3EncodeSpeech",
        audio=audio_from(host, parts.graph, audio),
        speech_encoder=Out(*encoder),
    )
    return parts._replace(speech=speech)


NO_SOUNDS = [
    ({"waveform": TONE}, "has no sample_rate"),
    ({"waveform": TONE, "sample_rate": 0}, "The sound has 0 samples a second"),
    ({"waveform": TONE * float("nan"), "sample_rate": 16_000}, "that are no numbers"),
    ({"waveform": TONE[..., :0], "sample_rate": 16_000}, "has no length"),
    ({"waveform": TONE.mT, "sample_rate": 16_000}, "16,000 channels of 1 samples: swap"),
    ("sound.wav", "is a str and not a sound"),
]


@pytest.mark.parametrize(("audio", "says"), [*NO_SOUNDS, (None, "is nothing and not a sound")])
def test_speech_that_is_no_sound(host, parts, audio, says):
    parts.graph.keep(speech_of(host, parts, audio).speech)
    fails(host, parts.graph, says)
    isolated = audio_from(host, graph := Graph(), audio)
    graph.keep(graph("Hallo3IsolateVocals", audio=isolated, model_name="none: pass the sound on"))
    fails(host, graph, says)


@pytest.mark.parametrize(("audio", "says"), NO_SOUNDS)
def test_a_soundtrack_that_is_no_sound_is_told_before_sampling(
    host, parts, monkeypatch, audio, says
):
    animate = inspect.getmodule(host.nodes.NODE_CLASS_MAPPINGS["Hallo3AnimatePortrait"])
    monkeypatch.setattr(animate, "write_video", None)
    parts.graph.keep(animated(parts, soundtrack=audio_from(host, parts.graph, audio)))
    fails(host, parts.graph, says)


@pytest.mark.parametrize(
    "audio",
    [
        {"waveform": TONE[0], "sample_rate": 16_000.0},
        {"waveform": TONE.half(), "sample_rate": np.int64(16_000)},
        {"waveform": (TONE * 32_767).short(), "sample_rate": torch.tensor(16_000)},
        {"waveform": TONE.expand(1, 9, -1), "sample_rate": 16_000},
    ],
)
def test_sound_of_other_packs(host, parts, audio):
    speech = speech_of(host, parts, audio).speech
    for output in (speech, speech[1], speech[2]):
        parts.graph.keep(output)
    heard, duration, frames = host.run(parts.graph)
    assert (duration, frames) == (1.0, 25)
    assert (heard.sound.rate, heard.sound.channels) == (16_000, 1)
    assert (heard.sound.cut(0, 1) - TONE[0]).abs().max() < 1e-3


def test_silent_speech_is_a_warning(host, parts, caplog):
    parts.graph.keep(speech_of(host, parts, {"waveform": 0 * TONE, "sample_rate": 16_000}).speech)
    host.run(parts.graph)
    assert "The speech is silent" in caplog.text


def test_a_segment_past_the_end(host, parts):
    parts.graph.keep(sample(parts, 2))
    fails(host, parts.graph, "There is no segment 2: the speech of 63 frames has 2, from 0 to 1")


def test_previous_frames_of_another_size(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    parts.graph.keep(
        parts.graph(
            "Hallo3DecodeVAE",
            latent=sample(parts, 0, steps=1),
            vae=parts.vae,
            identity=parts.identity,
            previous_frames=image,
        )
    )
    fails(host, parts.graph, "The previous frames have 90 x 60 pixels, the video 192 x 128")


def test_another_vae(host, parts):
    """A VAE that is not CogVideoX's; stands in for any other loader's."""

    class OtherVAE:
        RETURN_TYPES, FUNCTION, CATEGORY = ("VAE",), "make", "test"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}}

        def make(self):
            vae = type("VAE", (), {})()
            vae.first_stage_model = torch.nn.Linear(1, 1)
            return (vae,)

    host.nodes.NODE_CLASS_MAPPINGS["OtherVAE"] = OtherVAE
    image = parts.graph("LoadImage", image="portrait.png")
    encode(parts, image=image, vae=parts.graph("OtherVAE"))
    fails(host, parts.graph, "This VAE is a Linear and not CogVideoX's")


def test_another_model(host, parts):
    class OtherModel:
        RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "make", "test"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}}

        def make(self):
            patcher = type("ModelPatcher", (), {})()
            patcher.model = torch.nn.Linear(1, 1)
            return (patcher,)

    host.nodes.NODE_CLASS_MAPPINGS["OtherModel"] = OtherModel
    parts.graph.keep(sample(parts._replace(model=parts.graph("OtherModel")), 0))
    fails(host, parts.graph, "The model is a Linear and not Hallo3: connect Load Hallo3 DiT")


def test_wires_that_do_not_fit(host, parts):
    parts.graph.keep(sample(parts._replace(identity=parts.speech), 0))
    with pytest.raises(HostError, match="return_type_mismatch"):
        host.run(parts.graph)


def test_every_node_explains_itself(host):
    ours = [
        kind for name, kind in host.nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("Hallo3")
    ]
    assert len(ours) == 15
    translations = json.loads((PACK / "locales" / "en" / "nodeDefs.json").read_text())
    for kind in ours:
        schema = kind.GET_SCHEMA()
        assert schema.description
        assert schema.category.startswith("Hallo3")
        assert all(put.tooltip for put in [*schema.inputs, *schema.outputs])
        page = (PACK / "web" / "docs" / f"{schema.node_id}.md").read_text()
        assert page.startswith(f"# {schema.display_name}\n")
        for put in schema.inputs:
            assert f"| {put.id}" in page
        translated = translations[schema.node_id]
        assert translated["display_name"] == schema.display_name
        assert translated["inputs"].keys() == {put.id for put in schema.inputs}


LOADERS = {
    "Hallo3LoadDiT": ("diffusion_models", "model_name", {"weight_dtype": "default"}),
    "Hallo3LoadVAE": ("vae", "vae_name", {}),
    "Hallo3LoadSpeechEncoder": ("audio_encoders", "encoder_name", {}),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_wrong_files_in_the_loaders(host, loader):
    """The sentence names the file, and its kind of error is no path."""
    folder, choice, others = LOADERS[loader]
    place = host.base / "models" / folder
    place.mkdir(parents=True, exist_ok=True)
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, place / "flux.safetensors")
    (place / "picture.safetensors").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    (place / "empty.pt").write_bytes(b"")
    for name, says in {
        "flux.safetensors": "is not .* but a Flux model: choose",
        "picture.safetensors": "is a picture, not weights: choose another file",
        "empty.pt": "is empty: download it again",
    }.items():
        graph = Graph()
        graph.keep(graph(loader, **{choice: name}, **others))
        fails(host, graph, f"{place / name} {says}")
        (kind,) = (
            data["exception_type"] for event, data in host.events if event == "execution_error"
        )
        assert kind == "hallo3_core.errors.InputError"


def test_a_quantised_denoiser(host, parts):
    """It has all names and shapes, but whole numbers."""
    weights, names = load_file(WEIGHTS), "hallo3_dit_int8.safetensors"
    name = "model.diffusion_model.transformer.layers.0.mlp.dense_h_to_4h.weight"
    weights[name] = weights[name].to(torch.int8)
    folder = host.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / names)
    graph = Graph()
    graph.keep(graph("Hallo3LoadDiT", model_name=names, weight_dtype="default"))
    fails(host, graph, rf"has 1 tensors of whole numbers \({name}\)")


def test_every_error_of_ours_is_shown_without_a_path(host):
    """The host's modules of the pack are called by its path."""
    errors = next(
        module
        for name, module in sys.modules.items()
        if name.endswith(f"{PACK.name}.hallo3_core.errors")
    )
    kinds = [errors.InputError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    shown = [host.execution.full_type_name(kind) for kind in kinds]
    assert all(re.fullmatch(r"hallo3_core(\.\w+)+", name) for name in shown), shown
    assert "hallo3_core.animate.NotDecoded" in shown
