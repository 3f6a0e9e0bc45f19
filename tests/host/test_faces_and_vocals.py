"""Find Face and Isolate Vocals in the host."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui import Graph, Host, HostError
from PIL import Image

from hallo3_core.portrait import region_box
from onnx_files import antelopev2, mdx_net
from photograph import astronaut


@pytest.fixture
def graph(host: Host) -> Graph:
    """A graph that can load a picture of a face."""
    pixels = (astronaut() * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(host.base / "input" / "astronaut.png")
    return Graph()


def find_face(graph: Graph, index: int = 0, image: str = "astronaut.png"):
    loaded = graph("LoadImage", image=image)
    return loaded, graph("Hallo3FindFace", image=loaded, face_index=index)


def encode(graph: Graph, image, **inputs):
    loaded = graph("Hallo3LoadDiT", model_name="built-in tiny model", weight_dtype="default")
    vae = graph("Hallo3LoadVAE", vae_name="built-in tiny model")
    given = {"vae": vae, "reference_network": loaded[1], "growth": 1.2, "seed": 0}
    return graph("Hallo3EncodeIdentity", image=image, **given, **inputs)


def pack_module(host: Host, node: str):
    return sys.modules[host.nodes.NODE_CLASS_MAPPINGS[node].__module__]


@pytest.fixture
def insightface(host: Host, monkeypatch):
    """antelopev2's files where the host has its models, with two faces in every picture."""
    onnx = importlib.import_module(f"{pack_module(host, 'Hallo3FindFace').__package__}.host.onnx")
    folder = antelopev2(host.base / "antelopev2", [(5, 6, 3, 0.9), (14, 12, 4, 0.8)])
    monkeypatch.setattr(onnx, "FACE_MODELS", folder)
    onnx._finder.cache_clear()
    yield onnx
    onnx._finder.cache_clear()


def test_without_a_face_model(host, graph):
    """A frontal face is found all the same; its region is what Encode Identity takes."""
    image, found = find_face(graph)
    for output in (found[1], found[2], found[3], encode(graph, image, face=found)[2]):
        graph.keep(output)
    preview, mask, count, region = host.run(graph, fresh=True)
    assert preview.shape == (1, 512, 512, 3)
    assert count == 1
    assert np.abs(np.subtract(region_box(mask[0]), (179, 71, 271, 177))).max() < 10
    left, top, right, bottom = region_box(region[0])
    assert right - left == pytest.approx(1.2 * 92, abs=10)
    assert bottom - top == pytest.approx(1.2 * 106, abs=10)


def test_the_embedding_reaches_the_identity(host, graph, insightface):
    image, found = find_face(graph, index=1)
    graph.keep(encode(graph, image, face=found))
    graph.keep(found[3])
    identity, count = host.run(graph, fresh=True)
    assert count == 2
    assert identity.face.shape == (1, 512)
    assert identity.face[0, :3].abs().sum() > 0


def test_a_mask_comes_before_the_face(host, graph):
    image, found = find_face(graph)
    mask = graph("SolidMask", value=1.0, width=512, height=512)
    graph.keep(encode(graph, image, face=found, mask=mask)[2])
    (region,) = host.run(graph, fresh=True)
    assert (region == 1).all()


def test_no_face_and_no_such_face(host, graph, caplog):
    Image.new("RGB", (64, 64), "grey").save(host.base / "input" / "grey.png")
    _, found = find_face(graph, image="grey.png")
    graph.keep(found[2])
    (mask,) = host.run(graph, fresh=True)
    assert (mask == 1).all()
    assert "No face was found" in caplog.text
    _, found = find_face(other := Graph(), index=4)
    other.keep(found)
    with pytest.raises(HostError, match="There is no face 4: 1 were found, from 0 to 0"):
        host.run(other)


def test_sessions_go_when_models_are_unloaded(host, graph, insightface):
    _, found = find_face(graph)
    graph.keep(found[3])
    host.run(graph, fresh=True)
    assert insightface._finder().opened is not None
    management = importlib.import_module("comfy.model_management")
    management.unload_all_models()
    assert insightface._finder().opened is None
    assert host.run(graph, fresh=True) == [2]


@pytest.mark.parametrize(("fit", "size"), [("published", (128, 192)), ("pad", (128, 86))])
def test_videos_have_the_framing_that_was_chosen(host, fit, size):
    """A tall picture is cropped, or shown whole; its frames can be extended either way."""
    picture = np.random.default_rng(2).integers(0, 255, (300, 200, 3), np.uint8)
    Image.fromarray(picture).save(host.base / "input" / "tall.png")
    graph = Graph()
    identity = encode(graph, graph("LoadImage", image="tall.png"), fit=fit)
    graph.keep(identity[1])
    (framed,) = host.run(graph, fresh=True)
    assert framed.shape[1:3] == size
    vae = graph("Hallo3LoadVAE", vae_name="built-in tiny model")
    frames = graph("RepeatImageBatch", image=identity[1], amount=2)
    extended = graph(
        "Hallo3ExtendWithMotionFrames",
        frames=frames,
        identity=identity,
        vae=vae,
        segment_index=1,
        seed=0,
    )
    graph.keep(extended)
    assert host.run(graph)[1].shape == (1, 16, 1, 16, 24)


def test_vocals_and_the_rest(host):
    folder = Path(host.base / "models" / "audio_separation")
    mdx_net(folder / "half.onnx", 1024, 16, gain=0.5)
    graph = Graph()
    audio = graph("NoiseAudio", seconds=3.0)
    isolated = graph("Hallo3IsolateVocals", audio=audio, model_name="half.onnx")
    for output in (audio, isolated, isolated[1]):
        graph.keep(output)
    sound, vocals, rest = (kept["waveform"] for kept in host.run(graph, fresh=True))
    assert torch.allclose(vocals + rest, sound, atol=1e-6)
    # the notes just under 8 kHz, which are lost on the way to 44.1 kHz, are passed on
    assert (vocals - sound / 2).norm() / sound.norm() < 0.15


def test_without_a_model_sound_is_passed_on(host):
    graph = Graph()
    audio = graph("NoiseAudio", seconds=0.5)
    isolated = graph("Hallo3IsolateVocals", audio=audio, model_name="none: pass the sound on")
    for output in (audio, isolated, isolated[1]):
        graph.keep(output)
    sound, vocals, rest = (kept["waveform"] for kept in host.run(graph, fresh=True))
    assert torch.equal(vocals, sound)
    assert not rest.any()
