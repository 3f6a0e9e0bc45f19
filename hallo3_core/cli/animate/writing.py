"""Writing the video of `animate`: its segments, and what is left if the job stops."""

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

from ...animate import ModelAnimator, NotDecoded, seconds_to_decode
from ...autoencoder.vae import save_latent
from ...clip.edit import Edit
from ...clip.redub import Redub
from ...clip.segments import make_segments
from ...errors import CardLost, InputError, NotEnoughMemory
from ...media.encoding import LOSSLESS, Encoding
from ...media.export import FORMATS, export, first_file
from ...media.outputs import claimed, free_name
from ...media.progress import Progress
from ...media.video import VideoWriter, read_frames
from ...network.config import FPS
from ...sampling.schedule import spaced
from ...sound.sound import Sound
from ...speech.dialogue import Dialogue
from ...speech.encode import Speech
from ...store.clip_store import NOTHING_KEPT, ClipStore
from ...store.fingerprint import fingerprint
from ...store.segment_store import SegmentStore
from ..store import STORE


class Written(NamedTuple):
    """A finished video. `taken` of its `segments` were kept from an earlier run."""

    video: VideoWriter
    segments: int
    taken: int

    def lines(self) -> Iterator[str]:
        yield saved(self.video)
        if self.taken:
            yield f"{self.taken} of {self.segments} segments were kept from an earlier run."


def write_video(
    animator: ModelAnimator,
    redub: Redub | None,
    heard: Sound,
    edit: Edit,
    encoding: Encoding,
    options: argparse.Namespace,
) -> Written:
    """Compute the segments of a clip, and write the video with the sound `heard`.

    With a `redub`, they are those of its video. Raises `InputError` if memory runs out. After
    Ctrl-C, `KeyboardInterrupt` says where the finished part is.
    """
    identity, speech = animator.identity, animator.speech
    (height, width), steps = identity.size, animator.settings.steps
    if redub:
        (height, width), steps = redub.footage.size, len(spaced(steps, redub.strength))
    maker = redub or animator
    kept = NOTHING_KEPT
    if options.store:
        store = SegmentStore.of_the_user(STORE)
        kept = ClipStore(store, fingerprint(maker.decides()), speech)
    decode = partial(animator.decode, 0)
    decoding = 0 if options.quiet else seconds_to_decode(decode, identity)
    taken, segments = 0, edit.segments(speech)
    wanted: dict[str, Any] = {"edit": edit, "encoding": encoding, "frames": False}
    file, overwrite = options.output, options.overwrite
    claim: AbstractContextManager = nullcontext()
    if exported(options):
        file, overwrite = free_name(file.with_suffix(".lossless.mp4")), False
        claim = claimed(first_file(options.output))
    video = VideoWriter(file, height, width, heard, overwrite, encoding)
    progress = Progress(segments, steps, decoding, options.quiet)
    animator.on_step = progress.step
    try:
        with claim:
            with video, progress:
                for segment in make_segments(maker, identity, speech, kept, **wanted):
                    video.append(segment.piece)
                    progress.segment(segment.index, segment.taken)
                    taken += segment.taken
            if exported(options) and video.saved:
                export_for_editors(video, heard, options)
    except (NotEnoughMemory, CardLost) as error:
        done = what_is_done(error, video, kept.usable, speech)
        raise InputError(" ".join((str(error), *done))) from error
    except KeyboardInterrupt:
        if not video.saved:
            raise
        again = " Start again to continue." if kept.usable else ""
        raise KeyboardInterrupt(f"Stopped. {saved(video)}.{again}") from None
    return Written(video, segments, taken)


def export_for_editors(video: VideoWriter, heard: Sound, options: argparse.Namespace) -> None:
    """Write what was asked for, from a video without loss, which is deleted if that succeeds."""
    assert video.saved is not None
    frames = read_frames(video.saved)
    try:
        first = export(frames, Fraction(FPS), heard, options.output, options.overwrite)
    except InputError as error:
        raise InputError(f"{error} The video without loss is in {video.saved}.") from error
    video.saved.unlink()
    video.saved = first


def encoding_of(options: argparse.Namespace) -> Encoding:
    """How the video is encoded. Formats for editors are made from one without loss."""
    return LOSSLESS if exported(options) else Encoding(options.codec, options.crf)


def exported(options: argparse.Namespace) -> bool:
    """Whether the output is a format for editors."""
    return options.output.suffix.lower() in FORMATS


def what_is_done(
    error: InputError, video: VideoWriter, kept: bool, speech: Speech | Dialogue
) -> Iterator[str]:
    """Sentences that say where the finished work is after an error, and how to continue.

    Latents of the segment that was not decoded are saved beside the video if they are not `kept` in
    the store.
    """
    if isinstance(error, NotDecoded) and kept:
        yield "Start again: the segment is then decoded without sampling."
    elif isinstance(error, NotDecoded):
        file = free_name(video.path.with_suffix(f".segment{error.index}.latent"))
        save_latent(file, error.latents, speech.new_frames(error.index))
        yield f"The latents of this segment are in {file}."
    elif video.saved and kept:
        yield "Start again to continue."
    if video.saved:
        yield f"The finished part is in {video.saved}."


def saved(video: VideoWriter) -> str:
    assert video.saved is not None
    return f"{video.saved.resolve()}: {video.seconds:.2f} s, {video.frames} frames"
