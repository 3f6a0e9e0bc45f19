"""Long speeches, cut at pauses into clips that are made side by side and then joined.

Each clip begins from the portrait. So the face jumps where two clips meet.
"""

import argparse
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from ...errors import InputError
from ...media.video import VideoWriter, read_frames, save_sound
from ...network.config import FPS, SAMPLE_RATE
from ...prompts import is_file
from ...sound.sound import Sound
from ...speech.activity import Span, speech_spans
from ..animate.inputs import find_voice
from ..animate.writing import encoding_of, exported
from .jobs import Job, fingerprint_of

TIMED = ("start", "end", "segment_seeds", "speech_curve", "speaker", "video")
"""Rows with these options are not cut: they count time or frames from the beginning of the clip."""
PREPARED = {
    "silence_before": 0.0,
    "silence_after": 0.0,
    "loudness": False,
    "isolate_vocals": None,
    "only_speech": False,
    "framing": None,
    "overwrite": True,
}
"""The options of the clips, whose sound is prepared before it is cut."""


@dataclass
class CutJob:
    """A job in `clips`, and the sound `heard` of the whole video."""

    whole: Job
    clips: list[Job]
    heard: Sound

    def join(self) -> None:
        """Join the videos of the clips without encoding them again, and delete the clips."""
        options = self.whole.options
        height, width, _ = next(read_frames(self.clips[0].output)).shape
        video = VideoWriter(
            options.output, height, width, self.heard, options.overwrite, encoding_of(options)
        )
        with video:
            for clip in self.clips:
                video.append(clip.output.read_bytes())
        for clip in self.clips:
            clip.output.unlink()
            clip.options.speech.unlink()
        with suppress(OSError):  # unfinished videos of killed workers stay
            clips_folder(self.whole).rmdir()


def clips_folder(job: Job) -> Path:
    return job.output.with_suffix(".clips")


def can_be_cut(options: argparse.Namespace) -> bool:
    prompts = options.prompt is not None and is_file(options.prompt)
    return not (prompts or exported(options) or any(getattr(options, name) for name in TIMED))


def cut(job: Job, longest: float) -> CutJob | None:
    """Cut the speech of a job into clips of at most `longest` seconds, if it has such pauses.

    None if it is not longer, or if it cannot be cut. If it cannot be read, the job will say so.
    """
    if job.seconds <= longest or not can_be_cut(job.options):
        return None
    try:
        found = find_voice(job.options.speech, job.options)
    except InputError:
        return None
    waveform = found.waveform
    ends = [*pauses(speech_spans(waveform), len(waveform) / SAMPLE_RATE, longest), None]
    if len(ends) == 1:
        return None
    folder = clips_folder(job)
    folder.mkdir(exist_ok=True)
    clips, start = [], 0
    for number, end in enumerate(ends, 1):
        stop = len(waveform) if end is None else end * SAMPLE_RATE // FPS
        clips.append(clip_of(job, waveform[start:stop], folder / f"{number:03}.wav"))
        start = stop
    return CutJob(job, clips, found.heard)


def clip_of(job: Job, waveform: Tensor, sound: Path) -> Job:
    """The job of a clip with the speech (samples,) at 16 kHz, which is written to `sound`."""
    save_sound(waveform[None], SAMPLE_RATE, sound, overwrite=True)
    given = {"speech": sound, "output": sound.with_suffix(".mp4")}
    options = argparse.Namespace(**vars(job.options) | PREPARED | given)
    seconds = len(waveform) / SAMPLE_RATE
    return replace(job, options=options, seconds=seconds, fingerprint=fingerprint_of(options))


def pauses(spans: list[Span], seconds: float, longest: float) -> list[int]:
    """The frames in which a speech is cut: each in the middle of a pause between two spans.

    A clip is as long as it can be up to `longest` seconds. If there is no pause in this time, it
    lasts up to the next one.
    """
    middles = [(end + start) / 2 for (_, end), (start, _) in pairwise(spans)]
    cuts: list[float] = []
    begin = 0.0
    while seconds - begin > longest and (later := [each for each in middles if each > begin]):
        near = [each for each in later if each - begin <= longest]
        begin = near[-1] if near else later[0]
        cuts.append(begin)
    return [round(each * FPS) for each in cuts]
