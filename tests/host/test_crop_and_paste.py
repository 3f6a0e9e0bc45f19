"""Crop Face and Paste Face in ComfyUI, with ComfyUI's own nodes between them."""

import importlib
import sys
import weakref
from pathlib import Path

import av
import pytest
import torch
from comfyui import Graph, Host, fails, given
from PIL import Image
from safetensors.torch import save_file

from photograph import astronaut
from video_files import write_film

FRAMES, HEIGHT, WIDTH = 11, 192, 256
SHIFT = 6
"""How far the picture moves from frame to frame, in pixels."""


def photographs() -> torch.Tensor:
    """Frames (frames, height, width, 3) of a face that moves to the left."""
    picture = astronaut().movedim(0, -1)
    return torch.stack(
        [picture[40 : 40 + HEIGHT, 90 + SHIFT * i : 90 + SHIFT * i + WIDTH] for i in range(FRAMES)]
    )


def masks() -> torch.Tensor:
    """The face in each of the frames, (frames, height, width)."""
    where = torch.zeros(FRAMES, HEIGHT, WIDTH)
    for number in range(FRAMES):
        left = 80 - SHIFT * number
        where[number, 30:160, left : left + 110] = 1
    return where


@pytest.fixture(scope="module")
def video(host: Host) -> str:
    """The frames as a video with a sound, in ComfyUI's input folder."""
    pictures = (photographs() * 255).byte().numpy()
    return write_film(host.base / "input" / "face.mp4", pictures, seconds=0.5, crf="12").name


@pytest.fixture
def graph() -> Graph:
    return Graph()


def crop(graph: Graph, frames, **inputs):
    settings = {"face_index": 0, "size": 512, "margin": 1.2}
    return graph("Hallo3CropFace", frames=frames, **settings | inputs)


def paste(graph: Graph, frames, cropped, crops=None, **inputs):
    settings = {"feather": 0.15, "match_colours": 1.0}
    return graph(
        "Hallo3PasteFace",
        frames=frames,
        crops=crops or cropped[0],
        track=cropped[1],
        **settings | inputs,
    )


def compare(found: torch.Tensor, expected: torch.Tensor, track) -> tuple[float, float]:
    """The PSNR inside the squares, and the share of pixels outside that differ at all."""
    inside = torch.zeros(expected.shape[:3], dtype=torch.bool)
    for number in range(len(track)):
        inside[number, *track.window(number)] = True
    error = (found[inside] - expected[inside]).square().mean()
    return -10 * error.log10().item(), (found != expected).any(-1)[~inside].float().mean().item()


def finish(host: Host):
    node = host.nodes.NODE_CLASS_MAPPINGS["Hallo3CropFace"]
    return sys.modules[node.__module__]


def test_frames_that_are_only_cropped_and_pasted(host, graph):
    """The detector of Find Face follows the face."""
    frames = given(host, graph, "IMAGE", photographs())
    cropped = crop(graph, frames, margin=1.5)
    for output in (cropped[0], cropped[1], cropped[2], paste(graph, frames, cropped)):
        graph.keep(output)
    crops, track, preview, pasted = host.run(graph)
    assert crops.shape == (FRAMES, 512, 512, 3)
    assert preview.shape == (6, HEIGHT, WIDTH, 3)
    psnr, outside = compare(pasted, photographs(), track)
    assert psnr > 40
    assert outside == 0
    centres = track.boxes[:, [0, 2]].mean(1)
    assert centres[-1] - centres[0] == pytest.approx(-SHIFT * (FRAMES - 1), abs=12)


def test_a_video_keeps_all_other_pixels_and_its_sound(host, graph, video):
    loaded = graph("LoadVideo", file=video)
    cropped = crop(graph, loaded, mask=given(host, graph, "MASK", masks()))
    inverted = graph("ImageInvert", image=cropped[0])
    kept = [cropped[1], loaded, graph("GetVideoComponents", video=loaded)]
    for crops, colours in ((None, 1.0), (inverted, 0.0)):
        pasted = paste(graph, loaded, cropped, crops, match_colours=colours)
        kept += [pasted, graph("GetVideoComponents", video=pasted)]
    for output in (*kept, kept[2][1], kept[-1][1]):
        graph.keep(output)
    track, source, frames, _, same, _, other, heard, copied = host.run(graph)
    psnr, outside = compare(same, frames, track)
    assert psnr > 40
    assert outside == 0
    psnr, outside = compare(other, frames, track)
    assert psnr < 15
    assert outside == 0
    assert torch.equal(copied["waveform"], heard["waveform"])
    assert source.get_frame_rate() == 25


def test_a_saved_video_plays_in_browsers(host, graph, video):
    """It is encoded once, when it is saved."""
    loaded = graph("LoadVideo", file=video)
    cropped = crop(graph, loaded, mask=given(host, graph, "MASK", masks()[:1]))
    pasted = paste(graph, loaded, cropped)
    for name, format in (("pasted", "auto"), ("pasted_mp4", "mp4")):
        graph("SaveVideo", video=pasted, filename_prefix=name, format=format, codec="auto")
    graph.keep(pasted)
    (lossless,) = host.run(graph)
    sizes = [Path(lossless.get_stream_source()).stat().st_size]
    for file in sorted((host.base / "output").glob("pasted_*.mp4")):
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.profile == "High"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert sum(1 for _ in container.decode(video=0)) == FRAMES
        sizes.append(file.stat().st_size)
    assert len(sizes) == 3
    assert max(sizes[1:]) < sizes[0] / 2


def test_a_part_of_a_video(host, graph, video):
    loaded = graph("LoadVideo", file=video)
    part = graph("Video Slice", video=loaded, start_time=0.08, duration=0.2, strict_duration=False)
    cropped = crop(graph, part, mask=given(host, graph, "MASK", masks()[2:7]))
    frames, pasted = (
        graph("GetVideoComponents", video=each) for each in (part, paste(graph, part, cropped))
    )
    for output in (cropped[1], frames, pasted):
        graph.keep(output)
    track, frames, pasted = host.run(graph)
    assert len(track) == len(frames) == 5
    assert compare(pasted, frames, track)[1] == 0


def test_a_video_made_of_frames_stays_one(host, graph):
    frames = given(host, graph, "IMAGE", photographs())
    made = graph("CreateVideo", images=frames, fps=30.0)
    cropped = crop(graph, made, mask=given(host, graph, "MASK", masks()))
    for output in (cropped[1], paste(graph, made, cropped)):
        graph.keep(output)
    track, pasted = host.run(graph)
    parts = pasted.get_components()
    assert parts.frame_rate == 30
    assert compare(parts.images, photographs(), track)[1] == 0


def test_boxes_of_a_detector(host, graph):
    """MediaPipe's node gives a list of boxes for each frame. One frame has none."""
    frames = given(host, graph, "IMAGE", photographs())
    boxes = [
        [
            {"x": 4.0, "y": 4.0, "width": 20.0, "height": 20.0, "label": "face", "score": 0.9},
            {"x": 80.0 - SHIFT * i, "y": 30.0, "width": 110.0, "height": 130.0, "score": 0.8},
        ]
        for i in range(FRAMES)
    ]
    boxes[5] = []
    for index in (0, 1):
        cropped = crop(
            graph, frames, boxes=given(host, graph, "BOUNDING_BOX", boxes), face_index=index
        )
        graph.keep(cropped[1])
    large, small = host.run(graph)
    centres = (large.boxes[:, 0] + large.boxes[:, 2]) / 2
    assert torch.allclose(centres, 135 - SHIFT * torch.arange(FRAMES).float(), atol=0.01)
    assert torch.allclose(small.boxes, torch.tensor([2.0, 2.0, 26.0, 26.0]), atol=0.01)


def upscaler(host: Host) -> str:
    """The file of a Real-ESRGAN Compact with random weights, which enlarges four times."""
    architecture = importlib.import_module("spandrel.architectures.Compact.__arch.SRVGG")
    torch.manual_seed(0)
    network = architecture.SRVGGNetCompact(num_feat=8, num_conv=2, upscale=4)
    folder = host.base / "models" / "upscale_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "random_x4.safetensors")
    return "random_x4.safetensors"


def test_a_restorer_between_them(host, graph, video):
    """Its crops are four times as large."""
    loaded = graph("LoadVideo", file=video)
    cropped = crop(graph, loaded, mask=given(host, graph, "MASK", masks()), size=128)
    model = graph("UpscaleModelLoader", model_name=upscaler(host))
    restored = graph("ImageUpscaleWithModel", upscale_model=model, image=cropped[0])
    frames, pasted = (
        graph("GetVideoComponents", video=each)
        for each in (loaded, paste(graph, loaded, cropped, restored))
    )
    for output in (cropped[1], restored, frames, pasted):
        graph.keep(output)
    track, restored, frames, pasted = host.run(graph)
    assert restored.shape == (FRAMES, 512, 512, 3)
    psnr, outside = compare(pasted, frames, track)
    assert 25 < psnr < 45
    assert outside == 0


def test_only_one_frame_of_a_video_is_held(host, graph, video, monkeypatch):
    """At most this one, the one before and the one that the detector may still want."""
    alive, most = set(), []
    reader = sys.modules[finish(host).VideoFile.__module__]
    read = reader.picture_of

    def counted(frame):
        picture = read(frame)
        alive.add(id(picture))
        weakref.finalize(picture, alive.discard, id(picture))
        most.append(len(alive))
        return picture

    monkeypatch.setattr(reader, "picture_of", counted)
    monkeypatch.setattr(finish(host), "picture_of", counted)
    loaded = graph("LoadVideo", file=video)
    cropped = crop(graph, loaded, mask=given(host, graph, "MASK", masks()), size=64)
    graph.keep(paste(graph, loaded, cropped))
    host.run(graph, fresh=True)
    assert len(most) == 3 * FRAMES
    assert max(most) <= 3


def test_without_a_face_the_square_in_the_middle_is_used(host, graph, caplog):
    frames = given(host, graph, "IMAGE", torch.full((2, 64, 96, 3), 0.5))
    cropped = crop(graph, frames, margin=1.0)
    for output in (cropped[1], paste(graph, frames, cropped)):
        graph.keep(output)
    track, pasted = host.run(graph)
    assert track.boxes.tolist() == [[16, 0, 80, 64]] * 2
    assert (pasted - 0.5).abs().max() < 1e-6
    assert [m for m in caplog.messages if m.startswith("No face was found: the square in the mid")]


def test_wrong_inputs(host, graph, video):
    frames = given(host, graph, "IMAGE", photographs())
    loaded = graph("LoadVideo", file=video)
    mask = given(host, graph, "MASK", masks())
    cropped = crop(graph, frames, mask=mask)
    fewer = given(host, graph, "IMAGE", photographs()[:4])
    small = given(host, graph, "IMAGE", photographs()[:, :100])
    wide = given(host, graph, "IMAGE", torch.zeros(FRAMES, 64, 96, 3))
    refused = [
        (paste(graph, fewer, cropped), "^There are 4 frames, and the track has 11: connect the sa"),
        (paste(graph, small, cropped), "^The frames have 256 x 100 pixels, .* had 256 x 192"),
        (paste(graph, frames, cropped, fewer), "^There are 4 crops for 11 frames: what is betwe"),
        (paste(graph, frames, cropped, wide), "^The crops have 96 x 64 pixels, but must be squ"),
        (paste(graph, loaded, crop(graph, fewer)), "^There are 4 crops|^There are more than 4 fr"),
        (
            crop(graph, fewer, mask=mask)[1],
            "^The video has 4 frames, and there are masks for 11: conn",
        ),
        (crop(graph, small, mask=mask)[1], "^The mask has 256 x 192 pixels, but .* 256 x 100"),
    ]
    for output, message in refused:
        one = Graph()
        one.nodes = dict(graph.nodes)
        one.keep(output)
        fails(host, one, message)


def test_frames_of_a_picture_file(host, graph):
    """RGBA frames keep their fourth channel."""
    pixels = (photographs()[0] * 255).byte().numpy()
    Image.fromarray(pixels).save(host.base / "input" / "one.png")
    frames = torch.cat([photographs(), torch.rand(FRAMES, HEIGHT, WIDTH, 1)], -1)
    source = given(host, graph, "IMAGE", frames)
    cropped = crop(graph, source, mask=given(host, graph, "MASK", masks()))
    graph.keep(paste(graph, source, cropped))
    (pasted,) = host.run(graph)
    assert torch.equal(pasted[..., 3], frames[..., 3])
