"""Wrong pictures and masks are explained in one sentence."""

import pytest
import torch
from comfyui import Graph, Parts, build, fails, given
from test_segments import sample

PIXELS = torch.rand(1, 60, 90, 3, generator=torch.Generator().manual_seed(2))
NAN = torch.where(torch.arange(90)[:, None] == 30, float("nan"), PIXELS)


def encode(parts: Parts, image, **inputs) -> None:
    parts.graph.keep(parts.encode(image, **inputs))


def test_a_batch_of_portraits(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    encode(parts, parts.graph("RepeatImageBatch", image=image, amount=2))
    fails(host, parts.graph, "a batch of 2 images of 3 channels: connect one RGB image")


def test_a_transparent_portrait(host, parts):
    """It has four channels. The transparent part becomes black."""
    image = parts.graph("LoadImage", image="portrait.png")
    mask = parts.graph("SolidMask", value=1.0, width=90, height=60)
    encode(parts, parts.graph("JoinImageWithAlpha", image=image, alpha=mask))
    (identity,) = host.run(parts.graph)
    assert identity.portrait.max() == -1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_portraits_in_half_precision(host, parts, dtype):
    """With --fp16-intermediates. They are found, masked and encoded nearly as in float32."""
    for value in (PIXELS, PIXELS.to(dtype)):
        graph = parts.graph
        image = given(host, graph, "IMAGE", value)
        mask = given(host, graph, "MASK", torch.ones(1, 60, 90, dtype=value.dtype))
        graph.keep(graph("Hallo3FindFace", image=image, face_index=0)[1])
        encode(parts, image, mask=mask)
    preview, exact, half_preview, half = host.run(parts.graph)
    assert preview.dtype == half_preview.dtype == torch.float32
    assert (preview - half_preview).abs().max() <= 2 / 255
    assert half.portrait.dtype == torch.float32
    assert (exact.portrait - half.portrait).abs().max() < 0.02
    assert (exact.features[0] - half.features[0]).std() < 0.05 * exact.features[0].std()


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("IMAGE", NAN, "The portrait has pixels that are NaN or infinite"),
        ("IMAGE", None, "The portrait is a NoneType, not a picture"),
        ("IMAGE", PIXELS.numpy(), "The portrait is a ndarray, not a picture"),
        ("IMAGE", PIXELS[:, :5], "The portrait has 90 x 5 pixels: use a picture with at least 16"),
        ("MASK", torch.ones(2, 60, 90), "The mask is a batch of 2 masks: connect one"),
        ("MASK", NAN[..., 0], "The mask has pixels that are NaN or infinite"),
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
        (NAN, "The IMAGE on .*frames has pixels that are NaN or infinite"),
        (None, "The IMAGE on frames is a NoneType, not a picture"),
    ],
)
def test_frames_of_other_packs(host, parts, value, message):
    """Nothing is sampled or decoded first."""
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
    """Load Image gives 64 x 64 zeros if nothing is painted. That is no mask."""
    image = parts.graph("LoadImage", image="portrait.png")
    with_mask = parts.encode(image, mask=image[1])
    for output in (image[1], with_mask[2]):
        parts.graph.keep(output)
    mask, region = host.run(parts.graph)
    assert mask.shape == (1, 64, 64)
    assert region.shape == (1, 60, 90)
    assert (region == 1).all()


def test_an_empty_mask(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    mask = parts.graph("SolidMask", value=0.0, width=90, height=60)
    encode(parts, image, mask=mask)
    fails(host, parts.graph, "The mask is empty: paint the face white, or leave the mask out")


def test_a_mask_of_another_size(host, parts):
    image = parts.graph("LoadImage", image="portrait.png")
    mask = parts.graph("SolidMask", value=1.0, width=64, height=64)
    encode(parts, image, mask=mask)
    fails(host, parts.graph, "The mask has 64 x 64 pixels, but the portrait has 90 x 60")


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
    fails(host, parts.graph, "The previous frames have 90 x 60 pixels, and the video has 192 x 128")
