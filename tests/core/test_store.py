"""Finished segments are stored and reused, on the tiny recorded model."""

import errno
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hallo3_core.animate import ModelAnimator, NotDecoded
from hallo3_core.clip.segments import make_segments
from hallo3_core.errors import InputError
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.portrait.framing import Framing
from hallo3_core.sound.sound import Sound
from hallo3_core.speech.dialogue import Dialogue, Speaker
from hallo3_core.speech.encode import Speech, encode_speech
from hallo3_core.store import segment_store as kept_segments
from hallo3_core.store.clip_store import ClipStore
from hallo3_core.store.fingerprint import Unknown, fingerprint
from hallo3_core.store.segment_store import SegmentStore

STEPS = 2
CALLS = 2 * STEPS
"""The number of denoiser calls in a segment."""
RATE = 16_000


@pytest.fixture(scope="module")
def identity(recorded_model):
    picture = torch.rand(3, 40, 70, generator=torch.Generator().manual_seed(1))
    return encode_portrait(
        recorded_model.vae, recorded_model.reference_network, picture, None, SeededNoise(0)
    )


def noise_of(seconds: float, seed: int = 2) -> Sound:
    generator = torch.Generator().manual_seed(seed)
    return Sound(torch.randn(1, round(seconds * RATE), generator=generator), RATE)


def spoken(model, sound: Sound, heard: bool = False) -> Speech:
    """The speech of a sound. It remembers the sound if `heard`."""
    speech = encode_speech(model.speech_encoder, sound.waveform[0])
    return replace(speech, sound=sound, encoder="the recorded one") if heard else speech


@pytest.fixture(scope="module")
def speech(recorded_model) -> Speech:
    """A speech of four segments."""
    return spoken(recorded_model, noise_of(6.5))


@pytest.fixture
def store(tmp_path) -> SegmentStore:
    return SegmentStore(tmp_path / "segments")


@pytest.fixture
def calls(recorded_model):
    """Counts the calls of the denoiser and of the decoder's last layer."""
    counted = Counter()
    hooks = [
        recorded_model.denoiser.register_forward_hook(lambda *_: counted.update(["sampled"])),
        recorded_model.audio_projector.register_forward_hook(lambda *_: counted.update(["heard"])),
    ]
    yield counted
    for hook in hooks:
        hook.remove()


def run(model, identity, speech, store=None, frames=True, noise=None, **options):
    animator = ModelAnimator(
        model, identity, speech, noise or SeededNoise(0), **{"steps": STEPS, **options}
    )
    store = store or SegmentStore(Path(), size=0)
    clip = ClipStore(store, fingerprint(animator.decides()), speech)
    return make_segments(animator, identity, speech, clip, frames=frames)


def test_an_interrupted_clip_goes_on_where_it_was(recorded_model, identity, speech, store, calls):
    """It is interrupted in the third of four segments.

    The earlier segments and the whole clip are the same as without an interruption.
    """
    undisturbed = list(run(recorded_model, identity, speech))
    segments = run(recorded_model, identity, speech, store)
    first, second = next(segments), next(segments)
    del segments
    calls.clear()
    again = list(run(recorded_model, identity, speech, store))
    assert calls["sampled"] == 2 * CALLS
    assert [segment.index for segment in again if segment.taken] == [0, 1]
    for made, wanted in zip([first, second, *again], [*undisturbed[:2], *undisturbed], strict=True):
        assert torch.equal(made.frames, wanted.frames)
        assert torch.equal(made.latents, wanted.latents)
        assert made.piece == wanted.piece


def test_a_finished_clip_takes_no_work(recorded_model, identity, speech, store, calls):
    made = [s.piece for s in run(recorded_model, identity, speech, store)]
    calls.clear()
    again = list(run(recorded_model, identity, speech, store, frames=False))
    assert not calls
    assert [segment.piece for segment in again] == made
    assert not any(segment.frames is not None for segment in again)


def test_all_that_decides_a_segment_is_in_its_name(recorded_model, identity, store):
    """If one thing changes, no stored segment is used."""
    model, speech = recorded_model, spoken(recorded_model, noise_of(1.0), heard=True)
    config = model.config
    list(run(model, identity, speech, store))

    def taken(model=model, identity=identity, speech=speech, **options) -> bool:
        (segment,) = run(model, identity, speech, store, frames=False, **options)
        return segment.taken

    def changed(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[-1] += 1e-3
        return tensor

    assert taken()
    for part in ("denoiser", "audio_projector", "vae"):
        *_, parameter = getattr(model, part).parameters()
        before = parameter.data
        parameter.data = changed(before)
        assert not taken()
        parameter.data = before
    assert taken()
    for name in ("portrait", "motion", "face"):
        assert not taken(identity=replace(identity, **{name: changed(getattr(identity, name))}))
    features = [*identity.features[:-1], changed(identity.features[-1])]
    assert not taken(identity=replace(identity, features=features))
    assert not taken(identity=replace(identity, framing=Framing((48, 48), (30, 48), (0, 0))))
    other = Sound(changed(speech.sound.waveform), RATE)
    assert not taken(speech=replace(speech, sound=other))
    assert not taken(speech=replace(speech, sound=Sound(speech.sound.waveform, 16_001)))
    assert not taken(speech=replace(speech, encoder="another one"))
    assert not taken(speech=replace(speech, frames=24))
    assert not taken(speech=replace(speech, strength=torch.full((25,), 0.5)))
    assert not taken(speech_strength=0.5)
    assert not taken(speech=Dialogue((Speaker(speech, torch.ones(30, 48)),)))
    assert not taken(speech=Speech(speech.features, speech.frames))
    assert not taken(text=torch.ones(1, config.text_tokens, config.text_width))
    assert not taken(noise=SeededNoise(1))
    assert not taken(steps=3)
    assert not taken(guidance=3.4)
    assert not taken(interval=(0, 0.5))
    assert not taken(sampler="ddim")
    assert taken()


def test_features_decide_where_the_sound_is_unknown(recorded_model, identity, store, speech):
    start = Speech(speech.features, frames=20)
    list(run(recorded_model, identity, start, store))
    features = speech.features.clone()
    features[21] += 0.01
    (segment,) = run(recorded_model, identity, Speech(features, frames=20), store)
    assert segment.taken is False
    features = speech.features.clone()
    features[60] += 0.01
    (segment,) = run(recorded_model, identity, Speech(features, frames=20), store)
    assert segment.taken


def test_another_ending_takes_the_segments_before_it(recorded_model, identity, store, calls):
    """The sound changes after five seconds, so the first two of four segments are the same."""
    sound, other = noise_of(6.5), noise_of(7.5, seed=3)
    start = sound.waveform[:, : 5 * RATE]
    ending = Sound(torch.cat([start, other.waveform[:, 5 * RATE :]], dim=1), RATE)
    list(run(recorded_model, identity, spoken(recorded_model, sound, heard=True), store))
    calls.clear()
    speech = spoken(recorded_model, ending, heard=True)
    segments = list(run(recorded_model, identity, speech, store, frames=False))
    assert [segment.taken for segment in segments] == [True, True, False, False]
    assert calls["sampled"] == 2 * CALLS


def test_a_damaged_segment_is_made_anew(recorded_model, identity, store, speech, caplog):
    start = Speech(speech.features, frames=60)
    wanted = [segment.piece for segment in run(recorded_model, identity, start, store)]
    generator = torch.Generator().manual_seed(0)
    for attempt in range(12):
        file = store.files()[attempt % 2]
        content = bytearray(file.read_bytes())
        place = int(torch.randint(len(content), (1,), generator=generator))
        if attempt % 3:
            content[place] ^= 1 << attempt % 8
        else:
            del content[place:]
        file.write_bytes(content)
        caplog.clear()
        made = list(run(recorded_model, identity, start, store, frames=False))
        assert [segment.piece for segment in made] == wanted
        assert "is damaged" in caplog.text


def test_latents_outlive_a_decoding_that_fails(
    recorded_model, identity, store, speech, calls, monkeypatch
):
    start = Speech(speech.features, frames=10)
    with monkeypatch.context() as patched, pytest.raises(NotDecoded):
        patched.setattr(
            "hallo3_core.animate.decode_images", raising(torch.OutOfMemoryError("no room"))
        )
        list(run(recorded_model, identity, start, store))
    calls.clear()
    list(run(recorded_model, identity, start, store))
    assert calls["sampled"] == 0
    assert [file.suffix for file in store.files()] == [".segment", ".piece"]


def raising(error: Exception):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_a_full_disk_is_told_once_and_the_clip_goes_on(
    recorded_model, identity, store, speech, monkeypatch, caplog
):
    monkeypatch.setattr(
        kept_segments, "save_file", raising(OSError(errno.ENOSPC, "No space left on device"))
    )
    segments = list(run(recorded_model, identity, speech, store))
    assert len(segments) == 4
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.text
    assert store.files() == []


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path, caplog):
    (tmp_path / "file").touch()
    store = SegmentStore(tmp_path / "file" / "segments")
    for name in ("a", "b"):
        store.put_latents(name, torch.zeros(3))
    assert len(caplog.messages) == 1
    assert store.latents("a") is None


def test_the_longest_unused_leave_first(tmp_path):
    store = SegmentStore(tmp_path, size=50_000)
    for age, name in enumerate("abcd"):
        store.put_latents(name, torch.zeros(4000))
        os.utime(tmp_path / f"{name}.latents", (age - 100, age - 100))
    store.put_latents("e", torch.zeros(4000))
    assert store.latents("a") is None  # 80 000 bytes are two too many
    assert store.latents("b") is None
    assert {file.stem for file in store.files()} == {"c", "d", "e"}
    os.utime(tmp_path / "c.latents", (1, 1))
    assert store.latents("c") is not None  # a segment that was used is not the oldest any more
    store.put_latents("f", torch.zeros(4000))
    assert {file.stem for file in store.files()} == {"c", "e", "f"}


def test_emptying_leaves_what_is_not_the_store_s(tmp_path):
    store = SegmentStore(tmp_path)
    store.put_latents("a", torch.zeros(3))
    (tmp_path / "mine.txt").touch()
    store.empty()
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_what_cannot_be_deleted_is_named(tmp_path):
    store = SegmentStore(tmp_path)
    store.put_latents("a", torch.zeros(3))
    (tmp_path / "b.latents").mkdir()
    with pytest.raises(InputError, match=r"b.latents cannot be deleted \(.+\)"):
        store.empty()


def test_different_values_have_different_fingerprints():
    a, b = torch.arange(6.0), torch.arange(6.0)
    values = [
        *(None, True, 1, 1.0, "1", b"1", (1,), [1], {1}, {1: 1}, slice(1), torch.float32),
        *(a, a.view(2, 3), a.half(), a.int(), torch.zeros(6), [a, b], [a, [b]], {"a": a}),
        *(torch.nn.Linear(2, 2), SeededNoise(1), SeededNoise(2), torch.device("cpu")),
    ]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint({"a": a, "b": 1}) == fingerprint({"b": 1, "a": b})
    assert fingerprint(a.view(2, 3).T.contiguous().T) == fingerprint(b.view(2, 3))


def test_what_is_unknown_has_no_fingerprint():
    with pytest.raises(Unknown, match="function"):
        fingerprint([1, lambda: 1])
