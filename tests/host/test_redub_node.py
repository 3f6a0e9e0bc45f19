"""Redub in ComfyUI: as the core's, untouched outside the region, and kept segments."""

import importlib
import inspect
from collections import Counter
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from comfyui import HostError, Out, Parts, noise_audio
from PIL import Image

from hallo3_core import builtin
from hallo3_core.animate import ModelAnimator
from hallo3_core.clip.redub import Footage, Redub, fitted
from hallo3_core.clip.segments import make_segments
from hallo3_core.media.encoding import Encoding
from hallo3_core.media.video import read_frames
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.portrait.track import track_of_region
from hallo3_core.settings import distilled
from hallo3_core.sound.sound import Sound
from hallo3_core.speech.encode import encode_speech

FRAMES = 50
SEED, STEPS = 5, 2
FACE = (30, 10, 58, 46)


@pytest.fixture(scope="module")
def files(host) -> None:
    """The masks of the face and of the region that is made again."""
    mask = np.zeros((60, 90), np.uint8)
    left, top, right, bottom = FACE
    mask[top:bottom, left:right] = 255
    Image.fromarray(mask).save(host.base / "input" / "face_mask.png")
    mask[: (top + bottom) // 2] = 0
    Image.fromarray(mask).save(host.base / "input" / "region_mask.png")


def redubbed(parts: Parts, **inputs) -> Out:
    """The portrait, still for two seconds, with the speech of the parts."""
    graph = parts.graph
    picture = graph("LoadImage", image="portrait.png")
    masks = {
        name: graph("LoadImageMask", image=f"{name}.png", channel="red")
        for name in ("face_mask", "region_mask")
    }
    settings = {"steps": STEPS, "guidance": 1.0, "sampler": "few", "seed": SEED}
    usual = {
        "model": parts.model,
        "vae": parts.vae,
        "reference_network": parts.model[1],
        "frames": graph("RepeatImageBatch", image=picture, amount=FRAMES),
        "speech": parts.speech,
        "region": "mouth",
        "strength": 1.0,
        **masks,
        **settings,
    }
    given = {name: value for name, value in (usual | inputs).items() if value is not None}
    return graph("Hallo3Redub", **given)


def core_redub(host, strength: float) -> torch.Tensor:
    model, noise, sound = builtin.load(), SeededNoise(SEED), noise_audio(2.5)
    picture = np.asarray(Image.open(host.base / "input" / "portrait.png"))
    face, region = (
        torch.from_numpy(np.array(Image.open(host.base / "input" / f"{name}.png"))) / 255
        for name in ("face_mask", "region_mask")
    )
    footage = Footage([picture] * FRAMES, track_of_region(face, FRAMES), model.config.canvas[0])
    networks = model.vae, model.reference_network
    where = footage.face_region(FACE)
    identity = encode_portrait(*networks, footage.portrait, where, noise, fit="published")
    waveform = Sound(sound["waveform"][0], sound["sample_rate"]).prepared()
    speech = fitted(encode_speech(model.speech_encoder, waveform), FRAMES)
    animator = ModelAnimator(model, identity, speech, noise, **distilled(STEPS))
    redub = Redub(animator, footage, footage.region(FACE, mask=region), strength)
    segments = make_segments(redub, identity, speech)
    return torch.cat([segment.frames for segment in segments])


def test_redub_equals_the_core_and_leaves_the_rest(host, files, parts):
    out = redubbed(parts, strength=0.5)
    for index in range(4):
        parts.graph.keep(out[index])
    frames, audio, rate, video = host.run(parts.graph)
    assert frames.shape == (FRAMES, 60, 90, 3)
    assert (frames * 255 - core_redub(host, strength=0.5)).abs().max() <= 1
    assert (audio["waveform"].shape[-1], rate) == (FRAMES * 640, 25.0)
    with av.open(video.get_stream_source()) as container:
        assert container.streams.video[0].frames == FRAMES
    source = torch.from_numpy(np.array(Image.open(host.base / "input" / "portrait.png"))) / 255
    changed = (frames != source).any(-1)
    left, top, right, bottom = FACE
    middle = (top + bottom) // 2
    assert changed[:, middle + 3 : bottom - 3, left + 3 : right - 3].float().mean() > 0.9
    changed[:, middle - 1 : bottom + 1, left - 1 : right + 1] = False
    assert not changed.any()


def test_frames_are_read_at_25_a_second(host, tmp_path):
    at_video_rate = inspect.getmodule(
        host.nodes.NODE_CLASS_MAPPINGS["Hallo3Redub"].execute
    ).at_video_rate
    api = importlib.import_module("comfy_api.latest")
    images = torch.arange(20).view(-1, 1, 1, 1).expand(-1, 8, 16, 3) / 255
    assert [frame[0, 0, 0] for frame in at_video_rate(images)] == [*range(20)]
    parts = api.Types.VideoComponents(images=images, audio=None, frame_rate=Fraction(50))
    video = api.InputImpl.VideoFromComponents(parts)
    assert [frame[0, 0, 0] for frame in at_video_rate(video)] == [*range(1, 20, 2)]
    file = tmp_path / "video.mp4"
    file.write_bytes(Encoding().encode(images * 8))
    frames = np.stack(list(at_video_rate(api.InputImpl.VideoFromFile(str(file)))))
    assert np.array_equal(frames, list(read_frames(file)))
    part = api.InputImpl.VideoFromFile(str(file), start_time=0.2, duration=0.4)
    assert np.array_equal(list(at_video_rate(part)), frames[5:15])


def test_kept_segments_are_not_sampled_again(host, files, parts, monkeypatch):
    animator = inspect.getmodule(host.nodes.NODE_CLASS_MAPPINGS["Hallo3Redub"].execute)
    module, calls = inspect.getmodule(animator.NodeAnimator), Counter()
    sample = module.sample_segment

    def counted(*inputs, **others):
        calls[others["index"]] += 1
        return sample(*inputs, **others)

    monkeypatch.setattr(module, "sample_segment", counted)
    out = redubbed(parts)
    parts.graph.keep(out[0])
    (first,) = host.run(parts.graph)
    (second,) = host.run(parts.graph, fresh=True)
    assert torch.equal(first, second)
    assert calls == {0: 1, 1: 1}


def test_a_video_without_a_face_says_what_to_connect(host, files, parts):
    parts.graph.keep(redubbed(parts, face_mask=None)[0])
    with pytest.raises(HostError, match="No face was found in the first frame"):
        host.run(parts.graph)
