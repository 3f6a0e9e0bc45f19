"""Wrong inputs are told in one clear sentence, and the host goes on."""

import json

import pytest
import torch
from comfyui import PACK, Graph, Host, HostError, Parts, build
from test_segments import sample


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


def test_an_empty_mask(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    mask = parts.graph("SolidMask", value=0.0, width=90, height=60)
    encode(parts, image=image, mask=mask)
    fails(host, parts.graph, "The mask is empty")


def test_a_mask_of_another_size(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    mask = parts.graph("SolidMask", value=1.0, width=64, height=64)
    encode(parts, image=image, mask=mask)
    fails(host, parts.graph, "The mask has 64 x 64 pixels and the portrait 90 x 60")


def test_audio_without_length(host):
    parts = build(seconds=0)
    parts.graph.keep(parts.speech)
    fails(host, parts.graph, "The audio has no length")


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
    assert len(ours) == 19
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
