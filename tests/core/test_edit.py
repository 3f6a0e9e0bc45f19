"""A part of a clip, other takes of single segments, and the encoding of the video."""

from io import BytesIO

import av
import numpy as np
import pytest
import torch

from hallo3_core.clip.edit import WHOLE, Edit, edit_of, read_seeds
from hallo3_core.clip.segments import Segment, make_segments
from hallo3_core.errors import InputError
from hallo3_core.media.encoding import CODECS, Encoding
from hallo3_core.network.config import FPS, NEW_FRAMES
from hallo3_core.portrait.encode import Identity
from hallo3_core.portrait.framing import filling
from hallo3_core.sampling.fade import FADED_FRAMES, fade_out
from hallo3_core.sound.sound import Sound
from hallo3_core.speech.encode import Speech
from hallo3_core.store.clip_store import ClipStore
from hallo3_core.store.segment_store import SegmentStore

RATE = 16_000
SEGMENTS = 5
SPEECH = Speech(torch.zeros(200, 1, 1), frames=200)
"""Five segments, the last of 12 frames."""
IDENTITY = Identity(
    torch.zeros(1, 3, 8, 16), torch.zeros(1, 1, 13, 1, 2), torch.zeros(1, 512), [], filling((8, 16))
)


class Stand:
    """Stands in for the networks: latents follow from motion and seed, frames from latents.

    `sampled` and `decoded` are the numbers of the segments that were sampled and decoded.
    """

    def __init__(self):
        self.sampled, self.decoded = [], []

    def prompt(self, index: int) -> None:
        return None

    def sample(self, index: int, motion: torch.Tensor, seed: int | None) -> torch.Tensor:
        self.sampled.append(index)
        draws = torch.Generator().manual_seed(100 * (seed or 0) + index)
        return torch.rand(1, 1, 13, 1, 2, generator=draws) / 2 + motion.mean() / 2

    def decode(self, index: int, latents: torch.Tensor, count: int) -> torch.Tensor:
        self.decoded.append(index)
        time = torch.linspace(0, 1, count)[:, None, None, None]
        return (latents.mean() * (1 - time / 2)).expand(count, 8, 16, 3)

    def extend(self, index: int, frames: torch.Tensor) -> torch.Tensor:
        return frames.mean().expand(1, 1, 13, 1, 2).clone()

    def shown(self, frames: torch.Tensor) -> torch.Tensor:
        return frames


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> SegmentStore:
    return SegmentStore(tmp_path_factory.mktemp("segments"))


@pytest.fixture
def run(store):
    """Makes the clip with a store. `by` is the animator of the last run."""

    def make(edit: Edit = WHOLE, **options) -> list[Segment]:
        make.by = Stand()
        kept = ClipStore(store, "a clip", SPEECH)
        return list(make_segments(make.by, IDENTITY, SPEECH, kept, edit=edit, **options))

    return make


@pytest.fixture(scope="module")
def whole() -> torch.Tensor:
    """All frames, made without a store."""
    return frames_of(make_segments(Stand(), IDENTITY, SPEECH))


def frames_of(segments) -> torch.Tensor:
    return torch.cat([segment.frames for segment in segments if segment.frames is not None])


def test_a_new_seed_computes_only_from_its_segment_on(run, whole):
    assert torch.equal(frames_of(run()), whole)
    again = frames_of(run(Edit({2: 17})))
    assert run.by.sampled == [2, 3, 4]
    same, changed = (again == whole).split([2 * NEW_FRAMES, 200 - 2 * NEW_FRAMES])
    assert same.all()
    assert not changed.flatten(1).all(dim=1).any()


def test_what_follows_may_stay(run, whole):
    """The new take ends where the next segment begins; no other frame of the clip changes."""
    run()
    again = frames_of(run(Edit({2: 18}, stay=True)))
    assert run.by.sampled == [2]
    take = slice(2 * NEW_FRAMES, 3 * NEW_FRAMES)
    different = ((again - whole).abs() > 1e-6).flatten(1).any(dim=1)
    assert different.nonzero()[:, 0].tolist() == list(range(take.start, take.stop - 1))
    free = frames_of(run(Edit({2: 18})))
    until = take.stop - FADED_FRAMES
    assert torch.equal(again[:until], free[:until])


def test_a_part_is_that_part_of_the_whole(run, whole):
    run()
    edit = edit_of(SPEECH, start=4, end=6.5)
    part = frames_of(run(edit))
    assert run.by.sampled == []
    assert torch.equal(part, whole[100:162])
    first, *rest = run(edit, frames=False)
    assert run.by.decoded == [2, 3]  # the part begins and ends in the middle of these
    assert first.piece == b""
    assert len(rest) == 3
    sound = Sound(torch.arange(200 * RATE // FPS)[None].float(), RATE)
    heard = edit.heard(sound, SPEECH).waveform
    assert heard[0, [0, -1]].tolist() == [4 * RATE, 162 * RATE // FPS - 1]


def test_another_quality_is_only_decoded_again(run):
    before = run(frames=False)
    again = run(frames=False, encoding=Encoding("lossless"))
    assert (run.by.sampled, run.by.decoded) == ([], list(range(SEGMENTS)))
    assert (
        run(frames=False, encoding=Encoding("lossless"))[1].piece
        == again[1].piece
        != before[1].piece
    )
    assert run.by.decoded == []


def test_a_fade_out_ends_at_the_given_picture():
    frames, last = torch.full((20, 2, 2, 3), 0.5), torch.full((2, 2, 3), 0.9)
    faded = fade_out(frames, last)[:, 0, 0, 0]
    assert torch.equal(faded[:8], torch.full((8,), 0.5))
    assert faded[-1].item() == pytest.approx(0.9)
    assert (faded[8:].diff() > 0).all()
    assert fade_out(frames[:3], last)[-1, 0, 0, 0].item() == pytest.approx(0.9)


@pytest.mark.parametrize("text", ["2:17 5:8", "2: 17, 5: 8", " 2:17,5:8 "])
def test_seeds_are_read(text):
    assert read_seeds(text) == {2: 17, 5: 8}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": "2 17"}, "The seeds of segments are '2 17': write the number of a segment"),
        ({"seeds": "9:1"}, "There is no segment 9: the video has 5, from 0 to 4."),
        ({"seeds": f"1:{2**64}"}, "of segment 1 is too large"),
        ({"start": 8}, "A video of 8 s has no frames from 8 s to 8 s: choose a start"),
        ({"start": 3, "end": 2}, "A video of 8 s has no frames from 3 s to 2 s"),
        ({"start": float("nan")}, "A video of 8 s has no frames from nan s to 8 s"),
    ],
)
def test_wrong_edits_are_explained(wrong, message):
    with pytest.raises(InputError, match=message):
        edit_of(SPEECH, **wrong)


@pytest.mark.parametrize(("codec", "crf"), [("h265", 12), ("h264", 41), ("h264", -1)])
def test_wrong_encodings_are_explained(codec, crf):
    with pytest.raises(InputError, match=r"choose (h264, h264-444, lossless|0 \(best\) to 40)"):
        Encoding(codec, crf)


def colours(piece: bytes) -> np.ndarray:
    with av.open(BytesIO(piece)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def noise_to_signal(found: np.ndarray, wanted: np.ndarray) -> float:
    """PSNR in dB."""
    if np.array_equal(found, wanted):
        return np.inf
    return 10 * np.log10(255**2 / np.square(found - wanted).mean())


def test_quality_of_the_video():
    """PSNR of a picture whose colours change slowly."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(3)) / 2 + 0.25
    smooth = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic")
    frames = smooth.movedim(1, -1).expand(6, -1, -1, -1)
    wanted = (frames * 255).round().numpy()
    quality = {
        codec: noise_to_signal(colours(Encoding(codec).encode(frames)), wanted) for codec in CODECS
    }
    assert quality["lossless"] == np.inf
    bytes_of_it = torch.from_numpy(wanted).byte()
    assert np.array_equal(colours(Encoding("lossless").encode(bytes_of_it)), wanted)
    assert quality["h264-444"] > 45
    assert 40 < quality["h264"] < quality["h264-444"]
    small, large = (len(Encoding("h264", crf).encode(frames)) for crf in (30, 4))
    assert small < 0.6 * large
