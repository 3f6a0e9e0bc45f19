"""The inputs of `animate`: the face, the voice and the prompt."""

import argparse
import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ... import builtin, examples
from ...clip.redub import REGION, REGIONS, STRENGTH, Frames, follow_face, pictures, still_face
from ...errors import InputError
from ...media.picture import read_mask, save_picture, size_of
from ...media.video import read_frames
from ...model.finding import find_files
from ...model.hallo3 import Hallo3
from ...portrait.face_mask import FACE_BOX_GROWTH, check_growth, face_region, region_of
from ...portrait.faces import SAME, Face, choose, draw, overlap
from ...portrait.finders import insightface_missing, no_face, open_finder
from ...portrait.framing import FIT, FITS, Box
from ...portrait.mesh import find_landmarker, oval_box
from ...portrait.track import FaceTrack
from ...prompts import is_file, read_prompts
from ...sampling.schedule import check_strength
from ...sound.levels import normalized, with_silence
from ...sound.sound import Sound
from ...sound.sound_file import read_sound
from ...speech.activity import only_speech, speech_spans
from ...speech.vocals import VocalIsolator

ISOLATOR = "Kim_Vocal_2.onnx"

logger = logging.getLogger(__name__)


def add_face(parser: argparse.ArgumentParser) -> None:
    """Add options for the face that speaks, and for placing the portrait on the canvas."""
    argument = parser.add_argument
    argument("--face-mask", type=Path, help="a picture of the portrait's size, the face white")
    argument("--face", type=int, default=0, help="which face; 0 is the largest (%(default)s)")
    argument(
        "--face-growth",
        type=float,
        default=FACE_BOX_GROWTH,
        help="enlarge the face region by this factor (%(default)s)",
    )
    argument("--whole-image", action="store_true", help="do not look for a face")
    argument("--face-models", type=Path, help="folder of antelopev2 (default: the model's)")
    argument(
        "--fit", choices=FITS, default=FIT, help="how the picture fills the canvas (%(default)s)"
    )
    argument("--framing", type=Path, help="file for a picture of the faces found")


def find_face(options: argparse.Namespace, portrait: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The face region of a portrait (3, height, width), and the embedding of its face.

    The region is (height, width). Both are None if they are not known. The region comes from the
    mask if one is given, else from MediaPipe's face oval, else from the detector's box.
    """
    check_growth(options.face_growth)
    size, folders = size_of(portrait), face_folders(options)
    if options.portrait and not options.model:
        logger.warning(builtin.DRAWN_ONLY)
    mask = read_mask(options.face_mask, size) if options.face_mask else None
    faces = [] if options.whole_image else open_finder(folders)(portrait)
    if options.framing:
        save_picture(draw(portrait, faces, options.face), options.framing, options.overwrite)
    face = choose(faces, options.face)
    embedding = face.embedding if face else None
    if options.model and face and embedding is None:
        logger.warning(
            "InsightFace is not used, so the model gets no face embedding, only the picture. To "
            "install it: %s.",
            insightface_missing(folders),
        )
    if mask is None and face is None and not options.whole_image:
        logger.warning(no_face("Paint a --face-mask.", folders))
    box = speaker_box(portrait, face, options) if face and mask is None else None
    return region_of(mask, box, size, options.face_growth), embedding


class Scene(NamedTuple):
    """The face in a video that gets other words: its `face` in the first frame, and its `track`.

    `mask` (height, width) is what is made again, or None for one of `REGIONS`.
    """

    frames: Frames
    face: Face
    track: FaceTrack
    mask: Tensor | None


def add_video(parser: argparse.ArgumentParser) -> None:
    """Add options for a video that gets other words."""
    argument = parser.add_argument
    argument("--video", type=Path, help="a video that gets other words, instead of a portrait")
    argument(
        "--region",
        default=REGION,
        help="what of the video is replaced: mouth, face, or a picture with this region white in "
        "the first frame (%(default)s)",
    )
    argument(
        "--strength",
        type=float,
        default=STRENGTH,
        help="how strongly the region changes, above 0 and up to 1 (%(default)s)",
    )


def find_scene(options: argparse.Namespace) -> Scene:
    """The face of a video, and what is made again. Raises `InputError` if no face is found."""
    if options.speaker or options.portrait:
        raise InputError(
            "--video takes the face from the video, and one speech: leave out --portrait and "
            "--speaker."
        )
    check_strength(options.strength)
    frames = partial(read_frames, options.video)
    size = size_of(next(pictures(frames))[..., 0])
    region = None if options.region in REGIONS else read_mask(Path(options.region), size)
    if options.face_mask:
        face, track = still_face(frames, read_mask(options.face_mask, size))
    else:
        finder = open_finder(face_folders(options))
        face, track = follow_face(frames, finder, options.face)
    if not options.model:
        logger.warning(builtin.DRAWN_ONLY)
    return Scene(frames, face, track, region)


def speaker_box(portrait: Tensor, face: Face, options: argparse.Namespace) -> Box:
    """The box of MediaPipe's face oval if it is the same face, else the box of the face."""
    file = find_landmarker(face_folders(options))
    oval = oval_box(portrait, file) if file else None
    return oval if oval and overlap(oval, face.box) > SAME else face.box


def add_voice(parser: argparse.ArgumentParser) -> None:
    """Add options for who speaks, and for preparing the sound."""
    argument = parser.add_argument
    argument("--speech", type=Path, default=examples.SPEECH, help="a sound or video file")
    argument(
        "--speaker",
        nargs=2,
        type=Path,
        action="append",
        default=[],
        metavar=("MASK", "SPEECH"),
        help="one of several speakers: a picture with this person white, and a sound file. Give it "
        "for each speaker, or for each turn with --turns",
    )
    argument("--turns", action="store_true", help="the speakers speak one after the other")
    argument(
        "--isolate-vocals",
        nargs="?",
        type=Path,
        const=Path(),
        help="separate the voice from music, with this MDX-Net (default: the model's)",
    )
    argument(
        "--only-speech",
        action="store_true",
        help="keep the mouth shut where nobody speaks, also if there is noise or quiet music",
    )
    argument("--loudness", action="store_true", help="bring the sound to -23 LUFS")
    argument("--silence-before", type=float, default=0.0, help="seconds before the speech")
    argument("--silence-after", type=float, default=0.0, help="seconds after the speech")
    argument(
        "--speech-curve",
        type=Path,
        help="a text file with the strength of the speech: a number for each frame",
    )


class Voice(NamedTuple):
    """`heard` is the sound of the video, and `sound` the voice that moves the face.

    They differ if the voice is separated from music. `waveform` (samples,) at 16 kHz is the voice
    as the speech encoder gets it.
    """

    heard: Sound
    sound: Sound
    waveform: Tensor


def find_voice(path: Path, options: argparse.Namespace) -> Voice:
    """The voice in a sound file. The file is read only here, once."""
    heard = with_silence(read_sound(path), options.silence_before, options.silence_after)
    if options.loudness:
        heard = normalized(heard)
    voice = heard
    if options.isolate_vocals:
        isolate = VocalIsolator(isolator_file(options))
        voice = Sound(isolate(heard.waveform[:, :], heard.rate), heard.rate)
    waveform = voice.prepared()
    if options.only_speech:
        waveform = only_speech(waveform, speech_spans(waveform))
    return Voice(heard, voice, waveform)


def find_speakers(
    options: argparse.Namespace, portrait: Tensor
) -> list[tuple[Tensor, Tensor | None]]:
    """The region (height, width) and the face embedding of each --speaker.

    An embedding is None without InsightFace, or if there is no face in the middle of the region.
    """
    folders, size = face_folders(options), size_of(portrait)
    regions = [read_mask(mask, size) for mask, _ in options.speaker]
    if not regions:
        return []
    found = [] if options.whole_image else open_finder(folders)(portrait)
    return [(region, embedding_in(region, found)) for region in regions]


def all_faces(people: list[tuple[Tensor, Tensor | None]], options: argparse.Namespace) -> Tensor:
    """The face region (height, width) around all speakers."""
    regions = torch.stack([region for region, _ in people])
    return face_region(regions.amax(dim=0), options.face_growth)


def embedding_in(region: Tensor, found: list[Face]) -> Tensor | None:
    """The embedding of the largest face whose centre is in the region."""
    for face in found:
        left, top, right, bottom = face.box
        if region[int(top + bottom) // 2, int(left + right) // 2] > 0.5:
            return face.embedding
    return None


def read_curve(path: Path) -> Tensor:
    """The numbers in a text file, (numbers,). Raises `InputError` if it has anything else."""
    words = read_text(path).replace(",", " ").split()
    try:
        curve = torch.tensor([float(word) for word in words])
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read as a list of numbers ({error}): write one number for each "
            "frame of the video."
        ) from error
    return curve


def read_text(path: Path) -> str:
    """The text of a file, also if an editor has marked it as UTF-8. Raises `InputError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(
            f"{path} cannot be read as text ({reason}): save it as a text file in UTF-8."
        ) from error


def face_folders(options: argparse.Namespace) -> list[Path]:
    """The folders that can have the face models. Errors name the first."""
    if options.face_models:
        return [options.face_models]
    root = models_root(options)
    return [root / "face_analysis" / "models", root / "insightface" / "models" / "antelopev2"]


def isolator_file(options: argparse.Namespace) -> Path:
    """The MDX-Net file that was given, else the model's. Raises `InputError` if it is missing."""
    places = [options.isolate_vocals]
    if options.isolate_vocals == Path():
        folders = ("audio_separator", "audio_separation")
        places = [models_root(options) / folder / ISOLATOR for folder in folders]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"There is no {places[0]}: put an MDX-Net such as {ISOLATOR} there, or give one after "
        "--isolate-vocals."
    )


def models_root(options: argparse.Namespace) -> Path:
    """The folder of the model's other files."""
    return find_files(options.model).root if options.model else Path()


def encoded_prompts(model: Hallo3, prompt: str) -> list[tuple[float, Tensor]]:
    """The seconds and the texts of a prompt, or of the prompts in a file."""
    encode = model.text_encoder()
    prompts = [(0.0, prompt)]
    if is_file(prompt):
        prompts = read_prompts(read_text(Path(prompt)))
    return [(second, encode(words)) for second, words in prompts]
