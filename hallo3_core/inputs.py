"""The face and the voice that the command line was asked to animate."""

import logging
from argparse import Namespace
from pathlib import Path

from torch import Tensor

from . import builtin
from .errors import InputError
from .faces import SAME, choose, draw, insightface_missing, no_face, open_finder, overlap
from .framing import Box
from .mesh import find_landmarker, oval_box
from .model import find_files
from .picture import read_mask, save_picture
from .portrait import box_region, check_growth, face_region
from .sound import Sound
from .sound_file import read_sound
from .vocals import VocalIsolator

ISOLATOR = "Kim_Vocal_2.onnx"

logger = logging.getLogger(__name__)


def given_files(options: Namespace) -> list[Path]:
    """The files that the user wants to be read, none of which may be replaced."""
    given = (
        options.portrait,
        options.speech,
        options.face_mask,
        options.model,
        options.isolate_vocals,
    )
    return [path for path in given if path]


def find_face(options: Namespace, portrait: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The face region (height, width) of a portrait, and the embedding of its face, if any.

    An explicit mask comes first, then MediaPipe's oval, then the detector's box.
    """
    check_growth(options.face_growth)
    size, folders = tuple(portrait.shape[1:]), face_folders(options)
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
            "Without InsightFace the model knows the face by the picture alone: %s.",
            insightface_missing(folders),
        )
    if mask is not None:
        return face_region(mask, options.face_growth), embedding
    if face is None:
        if not options.whole_image:
            logger.warning(no_face("Paint a --face-mask.", folders))
        return None, None
    oval = mediapipe_oval(portrait, options)
    box = oval if oval and overlap(oval, face.box) > SAME else face.box
    return box_region(box, size, options.face_growth), embedding


def mediapipe_oval(portrait: Tensor, options: Namespace) -> Box | None:
    """The box of MediaPipe's face oval, if the package and its file are there."""
    file = find_landmarker(face_folders(options))
    return oval_box(portrait, file) if file else None


def find_voice(options: Namespace) -> tuple[Sound, Sound]:
    """What is heard in the video, and the voice in it that is animated.

    They differ if the voice is to be taken out of music. The file is read once, here.
    """
    heard = read_sound(options.speech)
    if not options.isolate_vocals:
        return heard, heard
    isolate = VocalIsolator(isolator_file(options))
    return heard, Sound(isolate(heard.waveform[:, :], heard.rate), heard.rate)


def face_folders(options: Namespace) -> list[Path]:
    """Where the face models may be, the place to put them first."""
    if options.face_models:
        return [options.face_models]
    root = models_root(options)
    return [root / "face_analysis" / "models", root / "insightface" / "models" / "antelopev2"]


def isolator_file(options: Namespace) -> Path:
    """The MDX-Net that was named, or the model's own."""
    places = [options.isolate_vocals]
    if options.isolate_vocals == Path():
        folders = ("audio_separator", "audio_separation")
        places = [models_root(options) / folder / ISOLATOR for folder in folders]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"There is no {places[0]}: put an MDX-Net such as {ISOLATOR} there, or name one after "
        "--isolate-vocals."
    )


def models_root(options: Namespace) -> Path:
    """The folder that the model's other files lie in."""
    return find_files(options.model).root if options.model else Path()
