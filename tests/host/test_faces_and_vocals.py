"""Find Face and Isolate Vocals in ComfyUI."""

import importlib
import logging
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui import BUILT_IN, Graph, Host, HostError, build
from PIL import Image

from hallo3_core import builtin
from hallo3_core.portrait.face_mask import region_box
from onnx_files import antelopev2, mdx_net
from photograph import astronaut

SIZE = f"the video has 192 x 128 pixels\n{builtin.DRAWN_ONLY}"
"""What Encode Identity says on the built-in model."""


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
    return graph("Hallo3EncodeIdentity", image=image, **given | inputs)


def pack_module(host: Host, node: str):
    return sys.modules[host.nodes.NODE_CLASS_MAPPINGS[node].__module__]


@pytest.fixture
def insightface(host: Host, monkeypatch, tmp_path):
    """antelopev2 in a folder of extra_model_paths.yaml. It finds two faces in every picture."""
    onnx = importlib.import_module(f"{pack_module(host, 'Hallo3FindFace').__package__}.host.onnx")
    antelopev2(tmp_path / "models" / "antelopev2", [(5, 6, 3, 0.9), (14, 12, 4, 0.8)])
    named = sys.modules["folder_paths"].folder_names_and_paths
    monkeypatch.setitem(named, "insightface", ([str(tmp_path)], set()))
    onnx._finder.cache_clear()
    yield onnx
    onnx._finder.cache_clear()


def test_without_a_face_model(host, graph, said):
    """A frontal face is still found, and Encode Identity uses its region."""
    image, found = find_face(graph)
    for output in (found[1], found[2], found[3], encode(graph, image, face=found)[2]):
        graph.keep(output)
    preview, mask, count, region = host.run(graph, fresh=True)
    assert preview.shape == (1, 512, 512, 3)
    assert count == 1
    assert said[found.link[0]] == "1 face (by scikit-image, which finds only frontal ones)"
    assert np.abs(np.subtract(region_box(mask[0]), (179, 71, 271, 177))).max() < 10
    left, top, right, bottom = region_box(region[0])
    assert right - left == pytest.approx(1.2 * 92, abs=10)
    assert bottom - top == pytest.approx(1.2 * 106, abs=10)


def test_what_the_nodes_say_of_portrait_and_speech(host, said, monkeypatch, tmp_path):
    """Only the built-in model says that photographs are not for it."""
    shutil.copytree(builtin.WEIGHTS, tmp_path / "models")
    file = tmp_path / "models" / builtin.TRANSFORMER_FILE
    named = sys.modules["folder_paths"].folder_names_and_paths
    monkeypatch.setitem(named, "diffusion_models", ([str(file.parent)], {file.suffix}))
    size, _ = SIZE.splitlines()
    pack = pack_module(host, "Hallo3EncodeSpeech").__package__
    time_left = sys.modules[f"{pack}.host.time_left"]
    monkeypatch.setattr(time_left.ClipTime, "of_a_segment", None)
    for name, about in (
        ("built-in tiny model", SIZE),
        (file.name, size),
    ):
        parts = build(seconds=4.5, model_name=name)
        parts.graph.keep(parts.identity)
        parts.graph.keep(parts.speech)
        host.run(parts.graph, fresh=True)
        assert said[parts.identity.link[0]] == about
        assert said[parts.speech.link[0]] == "4.50 s: 113 frames in 3 segments"
        memory = r"0\.\d of \d+ GB: all networks on the device, both branches of guidance at once"
        assert re.fullmatch(memory, said[parts.model.link[0]])
    time_left.ClipTime.of_a_segment = 20.0
    host.run(parts.graph, fresh=True)
    expected = "4.50 s: 113 frames in 3 segments, about 1:00 at the speed of the last video"
    assert said[parts.speech.link[0]] == expected


def test_a_model_that_does_not_fit_says_so_where_it_is_loaded(host, said, monkeypatch):
    management = sys.modules["comfy.model_management"]
    monkeypatch.setattr(management, "get_total_memory", lambda device: 1e6)
    graph = Graph()
    graph.keep(loaded := graph("Hallo3LoadDiT", model_name=BUILT_IN, weight_dtype="default"))
    host.run(graph, fresh=True)
    assert "The model takes at least 0." in said[loaded.link[0]]


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


def test_no_face_and_no_such_face(host, graph, caplog, said):
    """Then the whole picture is used, framed as published. The node says so once."""
    Image.new("RGB", (64, 96), "grey").save(host.base / "input" / "grey.png")
    image, found = find_face(graph, image="grey.png")
    identity = encode(graph, image, face=found, growth=0.5)
    for output in (found, found[2], identity[1], identity[3]):
        graph.keep(output)
    caplog.set_level(logging.WARNING)
    face, mask, framed, region = host.run(graph, fresh=True)
    assert face is None
    assert (mask == 1).all()
    assert framed.shape == (1, 128, 192, 3)
    assert region.shape == (1, 128, 192)
    assert (region == 1).all()
    (message,) = caplog.messages
    assert message.startswith(
        "No face was found: the whole picture counts as one. Connect a mask of the face to Encode "
        "Identity. InsightFace finds faces from all sides: put antelopev2's scrfd_10g_bnkps.onnx"
    )
    assert said[found.link[0]] == message
    assert said[identity.link[0]] == SIZE
    _, found = find_face(other := Graph(), index=4)
    other.keep(found)
    with pytest.raises(HostError, match="There is no face 4: only one was found, which is 0"):
        host.run(other)


def test_what_find_face_says(host, graph, caplog, said, insightface):
    """The number of faces. InsightFace is not missing."""
    _, found = find_face(graph)
    graph.keep(found[3])
    host.run(graph, fresh=True)
    assert said == {found.link[0]: "2 faces"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_face_that_is_cut_away(host, graph, said):
    """The published fit cuts it, which old workflows have. The default fit keeps it."""
    pixels = (astronaut() * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels[:, 60:400]).save(host.base / "input" / "tall_face.png")
    image, found = find_face(graph, image="tall_face.png")
    old, new = encode(graph, image, face=found, fit="published"), encode(graph, image, face=found)
    for output in (old[1], new[1], new[2], new[3]):
        graph.keep(output)
    published, framed, region, shown = host.run(graph, fresh=True)
    warning, size = said[old.link[0]].split("\n", 1)
    assert warning.startswith("The fit published cuts ")
    assert warning.endswith(" % of the face away: choose auto, or pad.")
    assert size == said[new.link[0]] == SIZE
    assert published.shape == framed.shape == (1, 128, 192, 3)
    assert (published - framed).abs().mean() > 0.1
    # the region is the same in the picture of 340 pixels and in the video of 192
    left, top, right, bottom = region_box(shown[0])
    box = region_box(region[0])
    assert (left, right) == pytest.approx((box[0] * 192 / 340, box[2] * 192 / 340), abs=1)
    assert bottom - top == pytest.approx((box[3] - box[1]) * 192 / 340, abs=1.5)
    assert shown.shape == (1, 128, 192)


def test_growth_is_as_on_the_command_line(host, graph):
    image, found = find_face(graph)
    graph.keep(encode(graph, image, face=found, growth=0.5)[2])
    host.run(graph)
    graph.keep(encode(graph, image, face=found, growth=5.5)[2])
    with pytest.raises(HostError, match="bigger than max"):
        host.run(graph)


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
    """A tall picture is cropped, or shown whole. In both cases its frames can be extended."""
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


def isolated(host, model_name: str) -> list[torch.Tensor]:
    """A sound, its vocals, and the rest."""
    graph = Graph()
    audio = graph("NoiseAudio", seconds=3.0)
    split = graph("Hallo3IsolateVocals", audio=audio, model_name=model_name)
    for output in (audio, split, split[1]):
        graph.keep(output)
    return [kept["waveform"] for kept in host.run(graph, fresh=True)]


def test_vocals_and_the_rest(host):
    folder = Path(host.base / "models" / "audio_separation")
    mdx_net(folder / "half.onnx", 1024, 16, gain=0.5)
    sound, vocals, rest = isolated(host, "half.onnx")
    assert torch.allclose(vocals + rest, sound, atol=1e-6)
    # the notes just under 8 kHz, which are lost on the way to 44.1 kHz, are passed on
    assert (vocals - sound / 2).norm() / sound.norm() < 0.15


def test_without_a_model_sound_is_passed_on(host):
    sound, vocals, rest = isolated(host, "none: pass the sound on")
    assert torch.equal(vocals, sound)
    assert not rest.any()


def test_a_network_that_is_unloaded_as_soon_as_it_is_there(host):
    """Another thread may unload it. The caller still gets the network."""
    package = pack_module(host, "Hallo3FindFace").__package__

    class ClosedAtOnce(importlib.import_module(f"{package}.host.onnx").OnDemand):
        opened = property(lambda self: None, lambda self, value: None)

    assert ClosedAtOnce(lambda: "network")() == "network"


def test_folders_of_extra_model_paths(host, tmp_path, monkeypatch):
    """They are added to the pack's own folder, and do not replace it."""
    folder_paths = sys.modules["folder_paths"]
    onnx = importlib.import_module(f"{pack_module(host, 'Hallo3FindFace').__package__}.host.onnx")
    named = folder_paths.folder_names_and_paths
    before = dict(named)
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", before)
    for name in ("audio_separation", "insightface"):
        before.pop(name, None)
        (tmp_path / name).mkdir()
    (tmp_path / "paths.yaml").write_text(
        f"shared:\n  base_path: {tmp_path}\n  audio_separation: audio_separation\n"
        "  insightface: insightface\n"
    )
    load = importlib.import_module("utils.extra_config").load_extra_path_config
    load(str(tmp_path / "paths.yaml"))
    onnx.register_audio_separation()

    own = host.base / "models"
    for folder, file in ((own, "own.onnx"), (tmp_path, "shared.onnx"), (tmp_path, "read.me")):
        (folder / "audio_separation").mkdir(exist_ok=True)
        (folder / "audio_separation" / file).write_bytes(b"x")
    isolate = host.nodes.NODE_CLASS_MAPPINGS["Hallo3IsolateVocals"]
    options = next(put for put in isolate.define_schema().inputs if put.id == "model_name").options
    assert {"own.onnx", "shared.onnx"} <= set(options)
    assert "read.me" not in options
    (own / "audio_separation" / "own.onnx").unlink()

    folders = onnx.face_folders()
    assert folders[0] == own / "insightface" / "models" / "antelopev2"
    assert tmp_path / "insightface" / "models" / "antelopev2" in folders
    assert tmp_path / "insightface" / "antelopev2" in folders
