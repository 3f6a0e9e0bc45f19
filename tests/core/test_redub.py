"""Other words for a video, on the tiny recorded model (squares of 32 pixels)."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hallo3_core.animate import ModelAnimator
from hallo3_core.autoencoder.images import decode_images, encode_images
from hallo3_core.cli import parse
from hallo3_core.clip.redub import Footage, Redub, fitted, follow_face, region_of_face, soft
from hallo3_core.clip.segments import make_segments
from hallo3_core.errors import InputError
from hallo3_core.media.encoding import Encoding
from hallo3_core.media.video import read_frames, save_sound
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait, on_canvas
from hallo3_core.portrait.faces import Face
from hallo3_core.portrait.track import FaceTrack
from hallo3_core.sampling.inpainting import Source
from hallo3_core.sampling.samplers import SAMPLERS, sample
from hallo3_core.sampling.schedule import Schedule, spaced
from hallo3_core.speech.dialogue import Dialogue, Speaker
from hallo3_core.speech.encode import Speech, encode_speech
from hallo3_core.store.clip_store import NOTHING_KEPT, ClipStore
from hallo3_core.store.fingerprint import fingerprint
from hallo3_core.store.segment_store import SegmentStore

SIDE, FRAMES = 32, 60
SIZE = 40, 60


def video() -> np.ndarray:
    """A picture of noise that becomes brighter, (FRAMES, 40, 60, 3) uint8."""
    picture = np.random.default_rng(1).integers(0, 128, (*SIZE, 3))
    return np.stack([picture + i for i in range(FRAMES)]).astype(np.uint8)


def moving() -> FaceTrack:
    """A face whose square of 16 pixels moves to the right, a quarter of a pixel a frame."""
    left = 10 + torch.arange(FRAMES) / 4
    top = torch.full((FRAMES,), 12.0)
    return FaceTrack(torch.stack([left, top, left + 16, top + 16], 1), SIZE)


@pytest.fixture(scope="module")
def speech(recorded_model) -> Speech:
    waveform = torch.randn(640 * FRAMES, generator=torch.Generator().manual_seed(2))
    return encode_speech(recorded_model.speech_encoder, waveform)


def redub(model, speech: Speech, region: Tensor, strength: float = 1.0, frames=None) -> Redub:
    footage = Footage(video() if frames is None else frames, moving(), SIDE)
    noise = SeededNoise(0)
    networks = model.vae, model.reference_network
    identity = encode_portrait(*networks, footage.portrait, None, noise, fit="published")
    animator = ModelAnimator(model, identity, speech, noise, steps=2, guidance=1)
    return Redub(animator, footage, region, strength)


def dubbed(job: Redub, kept: ClipStore = NOTHING_KEPT) -> Tensor:
    segments = make_segments(job, job.animator.identity, job.animator.speech, kept)
    return torch.cat([segment.frames for segment in segments])


def lower_half() -> Tensor:
    region = torch.zeros(SIDE, SIDE)
    region[16:, 4:28] = 1
    return region


def test_outside_the_region_every_pixel_is_the_source(recorded_model, speech):
    """The squares are 27.2 pixels wide. The region is their lower half, without the sides."""
    frames, source = dubbed(redub(recorded_model, speech, lower_half())), torch.from_numpy(video())
    assert frames.dtype == torch.uint8
    assert frames.shape == source.shape
    changed = (frames != source).any(-1)
    for number in (0, 46, 47, FRAMES - 1):
        rows, columns = (place.tolist() for place in changed[number].nonzero().T)
        left, top, right, bottom = moving().grown(1.7).box(number)
        width = right - left
        assert len(rows) > 200
        assert min(rows) + 1 > top + width / 2 - 1
        assert min(columns) + 1 > left + width / 8 - 1
        assert max(columns) < right - width / 8 + 1
        assert max(rows) < bottom


def test_no_region_gives_the_source(recorded_model, speech):
    frames = dubbed(redub(recorded_model, speech, torch.zeros(SIDE, SIDE)))
    assert torch.equal(frames, torch.from_numpy(video()))


def test_the_speech_decides_the_region(recorded_model, speech):
    other = Speech(speech.features.flip(0), FRAMES)
    first, second = (dubbed(redub(recorded_model, s, lower_half())) for s in (speech, other))
    assert (first.float() - second.float()).abs().max() > 2


def test_a_tiny_strength_gives_the_source_through_the_autoencoder(recorded_model, speech):
    job = redub(recorded_model, speech, torch.ones(SIDE, SIDE), strength=0.001)
    model, squares = recorded_model, job.footage.squares
    canvas = on_canvas(job.animator.identity, squares)
    latents = encode_images(model.vae, canvas, SeededNoise(0).stream("source", 0))
    expected = decode_images(model.vae, latents, len(squares))[2:]
    segment = next(make_segments(job, job.animator.identity, speech))
    (found,) = job.animator.identity.place[1:]
    decoded = decode_images(model.vae, segment.latents, len(squares))[2:]
    difference = (decoded - expected)[:, :, found].abs().mean()
    whole = redub(recorded_model, speech, torch.ones(SIDE, SIDE))
    other = next(make_segments(whole, whole.animator.identity, speech))
    far = decode_images(model.vae, other.latents, len(squares))[2:] - expected
    assert difference < 0.03
    assert far[:, :, found].abs().mean() > 3 * difference


def test_finished_segments_are_kept_and_depend_on_their_frames(recorded_model, speech, tmp_path):
    """A change in the second segment leaves the first one as it is."""
    calls = Counter()
    count = lambda *_: calls.update(["call"])  # noqa: E731
    hook = recorded_model.denoiser.register_forward_hook(count)
    store = SegmentStore(tmp_path / "segments")

    def made(frames=None) -> int:
        calls.clear()
        job = redub(recorded_model, speech, lower_half(), frames=frames)
        dubbed(job, ClipStore(store, fingerprint(job.decides()), speech))
        return calls["call"]

    assert [made(), made()] == [4, 0]
    changed = video()
    changed[50] = 0
    assert made(changed) == 2
    changed[10] = 0
    assert made(changed) == 4
    hook.remove()


def test_a_speech_is_fitted_to_the_video(speech, caplog):
    longer = fitted(speech, 100)
    assert caplog.messages == [
        "The speech (2.40 s) is shorter than the video (4.00 s): the rest is silent."
    ]
    caplog.clear()
    assert (longer.frames, len(longer.features)) == (100, 147)
    assert torch.equal(longer.features[98:], speech.silence.expand(49, -1, -1))
    assert torch.equal(longer.features[:98], speech.features)
    assert fitted(speech, 40).frames == 40
    assert caplog.messages == [
        "The speech (2.40 s) is longer than the video (1.60 s): its end is cut."
    ]
    caplog.clear()
    assert fitted(speech, FRAMES) == speech
    assert not caplog.messages
    with pytest.raises(InputError, match="takes one speech, not a dialogue"):
        fitted(Dialogue((Speaker(speech),)), 40)


def test_the_regions_are_at_the_mouth_and_around_the_face():
    face = (40, 20, 90, 100)
    rows, columns = region_of_face(face, 128, "mouth").nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (65, 110, 46, 83)
    rows, columns = region_of_face(face, 128, "face").nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 115, 34, 95)


def test_the_soft_edge_is_inside_the_region_and_inside_the_square():
    mask = torch.zeros(128, 128)
    mask[64:, 32:96] = 1
    edged = soft(mask)
    assert not edged[mask == 0].any()
    assert edged[90, 32:42].tolist() == pytest.approx([i / 9 for i in range(1, 10)] + [1])
    assert edged[-1, 64] < 0.2
    assert (edged[73:119, 41:87] == 1).all()


def test_strength_takes_the_end_of_the_schedule():
    assert spaced(4, 0.75).tolist() == spaced(4).tolist()[1:]
    assert spaced(50, 0.5).tolist() == spaced(50).tolist()[25:]
    assert spaced(4, 0.001).tolist() == [0]
    for strength in (0, 1.01, float("nan")):
        with pytest.raises(InputError, match="strength"):
            spaced(4, strength)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_denoiser_sees_the_source_around_the_mask(sampler):
    """At every step, the source has the noise of the step. In the end it is there to the bit."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1000, generator=generator)
    mask = torch.zeros(1000)
    mask[:500] = 1
    schedule, seen = Schedule.published(5), []

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    draw = lambda: torch.randn(1000, generator=generator)  # noqa: E731
    source = Source(latents, mask)
    *_, last = sample(predict, noise, schedule, SAMPLERS[sampler], draw, source)
    assert torch.equal(last[500:], latents[500:])
    assert not torch.equal(last[:500], latents[:500])
    for x, alpha in zip(seen, schedule.alphas.float(), strict=False):
        expected = alpha * latents + (1 - alpha**2).sqrt() * noise
        assert (x - expected)[500:].abs().max() < 1e-6


def test_without_a_source_strength_one_starts_from_the_same_noise():
    noise, latents = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    source = Source(latents, torch.ones(8))
    assert torch.equal(source.noised(noise, Schedule.published(4).alphas[0]), noise)


@pytest.fixture
def animate(tmp_path, monkeypatch, capsys):
    """`animate --video` on a short video of noise, in one step. Returns the video and the lines."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.mp4").write_bytes(Encoding().encode(torch.from_numpy(video()[:10])))
    for name, rows in {"face": slice(10, 30), "region": slice(20, 30)}.items():
        mask = np.zeros(SIZE, np.uint8)
        mask[rows, 20:36] = 255
        Image.fromarray(mask).save(f"{name}.png")
    noise = torch.randn(1, 9600, generator=torch.Generator().manual_seed(0))
    save_sound(noise, 16_000, Path("s.wav"))

    def run(**options) -> tuple[list[np.ndarray], str]:
        usual = {"video": "in.mp4", "face-mask": "face.png", "speech": "s.wav", "steps": 1}
        words = [str(w) for name, value in (usual | options).items() for w in (f"--{name}", value)]
        chosen = parse(["animate", *words, "--quiet", "--no-store", "--output", "out.mp4"])
        assert chosen.run(chosen) == 0
        return list(read_frames(Path("out.mp4"))), capsys.readouterr().out

    return run


def test_the_command_line_keeps_length_and_size(animate, caplog):
    frames, said = animate(region="region.png")
    assert (len(frames), frames[0].shape) == (10, (*SIZE, 3))
    assert said.endswith("out.mp4: 0.40 s, 10 frames\n")
    cut = "The speech (0.60 s) is longer than the video (0.40 s): its end is cut."
    assert cut in caplog.messages
    source = list(read_frames(Path("in.mp4")))
    error = np.abs(np.subtract(frames, source, dtype=float)).mean((0, 3))
    assert error[22:28, 22:34].mean() > 2 * error[:18].mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0}, "strength is 0"),
        ({"portrait": "face.png"}, "leave out --portrait"),
        ({"region": "lips"}, "lips"),
        ({"video": "s.wav"}, "s.wav cannot be read as a video"),
    ],
)
def test_wrong_options_are_one_sentence(animate, options, message):
    with pytest.raises(InputError, match=message):
        animate(**options)


def test_odd_sides_are_refused():
    with pytest.raises(InputError, match="The video has 60 x 39 pixels"):
        Footage(video()[:, 1:], FaceTrack(moving().boxes, (39, 60)), SIDE)


def test_a_face_that_is_not_found_needs_a_mask():
    with pytest.raises(InputError, match="No face was found in the first frame"):
        follow_face(lambda: iter(video()), lambda picture: [])


def test_the_face_nearest_to_a_box_is_followed():
    faces = [Face((0, 0, 20, 20)), Face((40, 10, 50, 20))]
    face, track = follow_face(lambda: iter(video()), lambda picture: faces, near=(39, 9, 50, 21))
    assert face == faces[1]
    assert track.box(0) == pytest.approx((40, 10, 50, 20), abs=1e-4)
