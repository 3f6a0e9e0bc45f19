# ruff: noqa: RUF001
"""The drawn world: its pictures, sounds and measures agree, and its splits share nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hallo3_core.errors import InputError
from hallo3_core.portrait.faces import overlap
from hallo3_core.portrait.finders import find_frontal_faces
from training.world.clips import clip, motion_of, person_of, render, speech_of
from training.world.drawing import draw
from training.world.languages import LANGUAGES, SPLITS, split_of
from training.world.motion import still
from training.world.mouth import INSIDE, TEETH, TONGUE
from training.world.speech import VOICES, silence, talk
from training.world.visemes import SHAPES, SHUT, mouth_of, still_mouth

VOWELS = frozenset("aɑæɐʌɛeɔoœø")
TALK = 8.0
"""Seconds of a talk."""


def level(sound: np.ndarray, start: float, end: float) -> float:
    part = sound[max(round(start * 16_000), 0) : max(round(end * 16_000), 0)]
    return float(np.sqrt(np.mean(part**2))) if len(part) else 0.0


@pytest.fixture(scope="module")
def talks():
    return [talk("train", TALK, np.random.default_rng(seed)) for seed in range(8)]


def test_where_a_library_cannot_be_put_away(monkeypatch):
    """As on Windows."""
    monkeypatch.delattr("_ctypes.dlclose")
    with pytest.raises(InputError, match="speaks on Linux and macOS only"):
        talk("train", 1.0, np.random.default_rng(0))


def test_a_clip_is_the_same_every_time():
    first = clip("train", 7, (64, 96), 9)
    clip("test", 3, (64, 64), 5)
    again = clip("train", 7, (64, 96), 9)
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.waveform, again.waveform)
    assert first.person == again.person


def test_shapes_and_types():
    made = clip("validation", 1, (64, 96), 9)
    assert made.frames.shape == (9, 64, 96, 3) and made.frames.dtype == np.uint8
    assert made.waveform.shape == (9 * 640,) and made.waveform.dtype == np.float32
    assert np.abs(made.waveform).max() <= 1
    assert made.geometry.face_box.shape == (9, 4) and made.geometry.eye_openings.shape == (9, 2)
    assert len(made.mouth) == len(made.motion) == 9


def test_splits_share_no_voice_no_word_and_no_face():
    voices = [set(VOICES[split].split()) for split in SPLITS]
    words = [set(), set(), set()]
    for place, split in enumerate(SPLITS):
        generator = np.random.default_rng(place)
        for language in LANGUAGES:
            for _ in range(20):
                words[place] |= set(language.sentence(split, generator).strip(".?!").split())
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not voices[one] & voices[other]
        bare = [{word.strip(",").lower() for word in words[place]} for place in (one, other)]
        assert min(map(len, bare)) > 400 and not bare[0] & bare[1]
    assert {split_of(word) for word in ("problem", "Problem", "PROBLEM")} == {split_of("problem")}
    people = {(split, index): person_of(split, index) for split in SPLITS for index in range(200)}
    assert len({person.key for person in people.values()}) == len(people)


@pytest.mark.parametrize("index", [0, 2, 12])
@pytest.mark.parametrize("opening", [0.3, 1.0])
def test_the_mouth_in_the_picture_is_as_open_as_it_says(index, opening):
    """Rows of the colours inside the mouth, in the column of its middle."""
    person = replace(person_of("test", index), size=0.7, smile=0, outlined=False)
    mouth = still_mouth(opening, 0.2)
    frame = draw(person, still(1)[0], mouth, (512, 512))
    left, top, right, bottom = np.rint(frame.geometry.mouth_box).astype(int)
    column = frame.picture[top:bottom, (left + right) // 2].astype(int)
    inside = np.abs(column[:, None] - [INSIDE, TEETH, TONGUE]).sum(2).min(1) < 30
    assert abs(inside.sum() - frame.geometry.mouth_opening) < 2.5
    face = frame.geometry.face_box
    shut = draw(person, still(1)[0], still_mouth(), (512, 512)).geometry.face_box
    assert frame.geometry.mouth_share == pytest.approx(
        frame.geometry.mouth_opening / (shut[3] - shut[1]), rel=0.03
    )
    assert face[3] > shut[3] and face[1] == shut[1]


def test_only_the_lower_face_moves_with_the_mouth():
    person = person_of("test", 4)
    shut, wide = (draw(person, still(1)[0], still_mouth(o), (256, 256)) for o in (0, 1))
    moved = np.nonzero(np.abs(shut.picture.astype(int) - wide.picture).max((1, 2)) > 12)[0]
    _, top, _, bottom = wide.geometry.face_box
    assert (top + bottom) / 2 < moved.min() and moved.max() <= bottom + 2
    assert 0.09 < wide.geometry.mouth_share < 0.16


def test_a_wide_open_mouth_is_seen_in_a_small_picture():
    for index in range(12):
        person = person_of("train", index)
        wide = draw(person, still(1)[0], still_mouth(1), (128, 128)).geometry
        face = wide.face_box[2] - wide.face_box[0]
        assert wide.mouth_opening > 5
        assert 0.3 < (wide.mouth_box[2] - wide.mouth_box[0]) / face < 0.5


def test_eyes_close():
    pose = replace(still(1)[0], eyes=0.0)
    assert (
        draw(person_of("train", 0), pose, still_mouth(), (128, 128)).geometry.eye_openings.max()
        < 0.2
    )
    assert (
        draw(
            person_of("train", 0), still(1)[0], still_mouth(), (128, 128)
        ).geometry.eye_openings.min()
        > 2
    )


def test_phonemes_are_where_the_sound_is(talks):
    vowels, pauses = [], []
    for speech in talks:
        for phoneme in speech.phonemes:
            start, end = phoneme.start, phoneme.start + phoneme.duration
            if start < 0 or end > TALK:
                continue
            if VOWELS & set(phoneme.name):
                vowels.append(level(speech.voice, start, end))
            if not phoneme.name and phoneme.duration > 0.15:
                pauses.append(level(speech.voice, start + 0.05, end - 0.05))
    assert len(vowels) > 150 and len(pauses) > 10
    assert np.median(vowels) > 0.03
    assert np.quantile(pauses, 0.9) < 0.02 * np.median(vowels)


def test_lips_close_on_p_b_m_and_open_on_vowels(talks):
    closures, vowels = 0, []
    for speech in talks:
        opening = mouth_of(speech, round(TALK * 25)).opening
        assert opening.min() >= 0 and opening.max() <= 1
        for phoneme in speech.phonemes:
            middle = phoneme.start + phoneme.duration / 2
            frame = int(middle * 25)
            if not 1 <= frame < len(opening) - 1:
                continue
            if phoneme.name in SHUT:
                assert opening[frame - 1 : frame + 2].min() == 0
                closures += 1
            if phoneme.name in ("a", "aː", "ɑː", "æ"):
                vowels.append(opening[frame])
    assert closures > 30 and np.median(vowels) > 0.4


def test_every_sound_of_every_language_has_a_shape(talks):
    names = {name for speech in talks for phoneme in speech.phonemes if (name := phoneme.name)}
    assert len(names) > 40
    assert [name for name in names if not set(name) & SHAPES.keys()] == []


def test_the_mouth_is_shut_in_pauses(talks):
    for speech in talks:
        opening = mouth_of(speech, round(TALK * 25)).opening
        for phoneme in speech.phonemes:
            first = int(np.ceil((phoneme.start + 0.07) * 25))
            last = int((phoneme.start + phoneme.duration - 0.07) * 25)
            if not phoneme.name and 0 <= first < last:
                assert not opening[first:last].any()


def test_silence_is_shut():
    mouth = mouth_of(silence(1.0), 25)
    assert not mouth.opening.any() and not mouth.width.any() and not mouth.rounding.any()


def test_noise_alone_moves_no_mouth():
    quiet = [speech for index in range(60) if not (speech := speech_of("train", index, 5)).phonemes]
    assert 1 <= len(quiet) <= 12
    assert not any(mouth_of(speech, 5).opening.any() for speech in quiet)


def test_motion_is_smooth_and_long_clips_come_frame_by_frame():
    speech = speech_of("test", 5, 3000)
    motion = motion_of("test", 5, speech, 3000)
    assert speech.waveform.shape == (3000 * 640,)
    for track in (motion.x, motion.y, motion.roll, motion.yaw, motion.pitch):
        assert np.abs(np.diff(track)).max() < 0.03
    assert motion.eyes.min() < 0.1 and motion.eyes.mean() > 0.85
    frames = render(person_of("test", 5), mouth_of(speech, 3000), motion, (32, 32))
    assert next(frames).picture.shape == next(frames).picture.shape == (32, 32, 3)


def test_the_cascade_finds_drawn_faces():
    found = 0
    for index in (0, 1, 2, 3):
        frame = draw(person_of("train", index), still(1)[0], still_mouth(), (384, 384))
        faces = find_frontal_faces(torch.tensor(frame.picture).permute(2, 0, 1) / 255)
        found += bool(faces) and overlap(faces[0].box, tuple(frame.geometry.face_box)) > 0.4
    assert found >= 3
