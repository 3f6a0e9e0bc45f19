"""The face and the voice that the command line was asked to animate."""

import logging
from argparse import Namespace
from pathlib import Path

from PIL import Image
from torch import Tensor

from .errors import InputError
from .faces import SAME, choose, draw, open_finder, overlap
from .framing import Box
from .mesh import find_landmarker, oval_box
from .model import find_files
from .portrait import box_region, face_region, read_mask
from .video import read_speech
from .vocals import VocalIsolator

ISOLATOR = "Kim_Vocal_2.onnx"

logger = logging.getLogger(__name__)


def find_face(options: Namespace, portrait: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The face region (height, width) of a portrait, and the embedding of its face, if any.

    An explicit mask comes first, then MediaPipe's oval, then the detector's box.
    """
    if not 0.5 <= options.face_growth <= 5:
        raise InputError(
            f"The face grows {options.face_growth} times: choose 0.5 to 5; published is 1.2."
        )
    size = tuple(portrait.shape[1:])
    mask = read_mask(options.face_mask, size) if options.face_mask else None
    faces = [] if options.whole_image else open_finder(face_folders(options))(portrait)
    if options.framing:
        save_picture(draw(portrait, faces, options.face), options.framing)
    face = choose(faces, options.face)
    embedding = face.embedding if face else None
    if mask is not None:
        return face_region(mask, options.face_growth), embedding
    if face is None:
        if not options.whole_image:
            logger.warning(
                "No face was found: the whole picture counts as one. Paint a --face-mask."
            )
        return None, None
    oval = mediapipe_oval(portrait, options)
    box = oval if oval and overlap(oval, face.box) > SAME else face.box
    return box_region(box, size, options.face_growth), embedding


def mediapipe_oval(portrait: Tensor, options: Namespace) -> Box | None:
    """The box of MediaPipe's face oval, if the package and its file are there."""
    file = find_landmarker(face_folders(options))
    return oval_box(portrait, file) if file else None


def find_voice(options: Namespace) -> tuple[Tensor, int]:
    """The speech, (1, samples) and its rate, without the music around it if that was asked for."""
    waveform, rate = read_speech(options.speech)
    if options.isolate_vocals:
        waveform = VocalIsolator(isolator_file(options))(waveform, rate)
    return waveform, rate


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


def save_picture(picture: Tensor, path: Path) -> None:
    """(3, height, width) in [0, 1] as a file."""
    try:
        Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy()).save(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written ({error}): choose a .png.") from error
