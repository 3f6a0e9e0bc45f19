"""`animate`: make a portrait speak."""

import argparse
import logging
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .. import builtin
from ..animate import ModelAnimator, NotDecoded, make_segments, seconds_to_decode
from ..autoencoder.vae import save_latent
from ..errors import INTERRUPTED, InputError, NotEnoughMemory
from ..media.outputs import free_name
from ..media.picture import check_picture_file, read_image, read_mask, save_picture
from ..media.progress import Progress
from ..media.video import VideoWriter, check_output
from ..memory.device import DTYPES, choose_device, choose_dtype, enough_memory
from ..memory.plan import free_memory
from ..model.finding import find_files
from ..model.hallo3 import Hallo3, plan_for
from ..noise import SeededNoise
from ..portrait.encode import (
    FACE_BOX_GROWTH,
    box_region,
    check_growth,
    encode_portrait,
    face_region,
)
from ..portrait.faces import SAME, choose, draw, insightface_missing, no_face, open_finder, overlap
from ..portrait.framing import FIT, FITS, Box
from ..portrait.mesh import find_landmarker, oval_box
from ..settings import Settings
from ..sound.sound import Sound
from ..sound.sound_file import read_sound
from ..speech.encode import Speech, encode_speech
from ..speech.vocals import VocalIsolator
from ..store.fingerprint import fingerprint
from ..store.segment_store import NOTHING_KEPT, ClipStore, SegmentStore
from .store import STORE

OUTPUT = Path("hallo3.mp4")
KINDS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""What the memory plan calls weights of a dtype."""
ISOLATOR = "Kim_Vocal_2.onnx"
STOPPED = "Stopped before the first segment was done."

logger = logging.getLogger(__name__)


def add(commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("animate", help="make a portrait speak")
    argument = parser.add_argument
    argument("--portrait", type=Path, help="a picture (default: a drawing)")
    argument("--speech", type=Path, default=builtin.SPEECH, help="a sound or video file")
    argument("--output", type=Path, help=f"the video (default: {OUTPUT}, or the next free number)")
    argument("--overwrite", action="store_true", help="replace what has the output's name")
    argument("--model", type=Path, help="folder of the published model (default: the built-in one)")
    argument("--prompt", help="what the video shows, in words")
    add_settings(parser)
    argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    argument("--dtype", choices=DTYPES, help="(default: float32 on cpu, else bfloat16 or float16)")
    add_face(parser)
    argument("--isolate-vocals", nargs="?", type=Path, const=Path(), help="an MDX-Net file")
    argument("--no-store", dest="store", action="store_false", help="keep no finished segments")
    argument("--quiet", action="store_true", help="no progress bars")
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for each of `Settings`."""
    for field in fields(Settings):
        choice = field.metadata["choice"]
        kinds = {"choices": choice.options} if choice.options else {"type": type(field.default)}
        name, shown = field.name, field.default
        if field.name == "interval":
            kinds = {"type": float, "nargs": 2, "metavar": ("FROM", "TO")}
            name, shown = "guidance-interval", "{} {}".format(*field.default)
        text = f"{choice.help} ({shown})"
        parser.add_argument(f"--{name}", dest=field.name, default=field.default, help=text, **kinds)


def add_face(parser: argparse.ArgumentParser) -> None:
    """Options for who speaks, and for how the portrait is put on the canvas."""
    argument = parser.add_argument
    argument("--face-mask", type=Path, help="a picture like the portrait, the face white")
    argument("--face", type=int, default=0, help="which face, 0 being the largest (%(default)s)")
    argument("--face-growth", type=float, default=FACE_BOX_GROWTH, help="of its box (%(default)s)")
    argument("--whole-image", action="store_true", help="look for no face")
    argument("--face-models", type=Path, help="folder of antelopev2 (default: the model's)")
    argument("--fit", choices=FITS, default=FIT, help="picture on the canvas (%(default)s)")
    argument("--framing", type=Path, help="save a picture of the faces that were found")


def run(options: argparse.Namespace) -> int:
    options.output = options.output or free_name(OUTPUT)
    inputs = given_files(options)
    check_output(options.output, inputs, options.overwrite)
    if options.framing:
        check_picture_file(options.framing, inputs, options.overwrite)
    options.interval = tuple(options.interval)
    settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    portrait = read_image(options.portrait) if options.portrait else builtin.portrait()
    region, embedding = find_face(options, portrait)
    heard, sound = find_voice(options)

    with enough_memory("load the model", "use fp8 weights"):
        model = load_model(options, device, dtype)
    noise = SeededNoise(settings.seed)
    text = model.text_encoder()(options.prompt) if options.prompt else None
    with enough_memory("encode the speech"), model.working(model.speech_encoder):
        speech = encode_speech(model.speech_encoder, sound.prepared()).on_disk()
    speech = replace(speech, sound=sound, encoder=fingerprint(model.speech_encoder))
    networks = model.vae, model.reference_network
    with enough_memory("encode the portrait", "use fp8 weights"), model.working(*networks):
        identity = encode_portrait(*networks, portrait, region, noise, embedding, options.fit)
    animator = ModelAnimator(model, identity, speech, noise, text=text, **vars(settings))
    return write_video(animator, heard, options)


def given_files(options: argparse.Namespace) -> list[Path]:
    """The files that the user wants to be read, none of which may be replaced."""
    given = (
        options.portrait,
        options.speech,
        options.face_mask,
        options.model,
        options.isolate_vocals,
    )
    return [path for path in given if path]


def find_face(options: argparse.Namespace, portrait: Tensor) -> tuple[Tensor | None, Tensor | None]:
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


def mediapipe_oval(portrait: Tensor, options: argparse.Namespace) -> Box | None:
    """The box of MediaPipe's face oval, if the package and its file are there."""
    file = find_landmarker(face_folders(options))
    return oval_box(portrait, file) if file else None


def find_voice(options: argparse.Namespace) -> tuple[Sound, Sound]:
    """What is heard in the video, and the voice in it that is animated.

    They differ if the voice is to be taken out of music. The file is read once, here.
    """
    heard = read_sound(options.speech)
    if not options.isolate_vocals:
        return heard, heard
    isolate = VocalIsolator(isolator_file(options))
    return heard, Sound(isolate(heard.waveform[:, :], heard.rate), heard.rate)


def face_folders(options: argparse.Namespace) -> list[Path]:
    """Where the face models may be, the place to put them first."""
    if options.face_models:
        return [options.face_models]
    root = models_root(options)
    return [root / "face_analysis" / "models", root / "insightface" / "models" / "antelopev2"]


def isolator_file(options: argparse.Namespace) -> Path:
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


def models_root(options: argparse.Namespace) -> Path:
    """The folder that the model's other files lie in."""
    return find_files(options.model).root if options.model else Path()


def load_model(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Hallo3:
    """The model that was asked for, placed as the memory of the device allows.

    From here on float32 is computed as such on cards that would round it to TF32.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if options.model is None:
        return builtin.load().to(dtype).placed(device)
    offload = device.type != "cpu"
    plan = plan_for(options.model, KINDS[dtype], free_memory(device), offload)
    if not options.quiet:
        print("\n".join(plan.lines()))
    return Hallo3.from_folder(options.model, dtype).placed(device, plan)


def write_video(animator: ModelAnimator, heard: Sound, options: argparse.Namespace) -> int:
    """Make the segments of a clip, and the video of them with what is to be heard."""
    identity, speech = animator.identity, animator.speech
    kept = NOTHING_KEPT
    if options.store:
        store = SegmentStore.of_the_user(STORE)
        kept = ClipStore(store, fingerprint(animator.decides()), speech)
    decode = partial(animator.decode, 0)
    decoding = 0 if options.quiet else seconds_to_decode(decode, identity)
    taken = 0
    video = VideoWriter(options.output, *identity.size, heard, options.overwrite)
    progress = Progress(speech.segments, options.steps, decoding, options.quiet)
    animator.on_step = progress.step
    try:
        with video, progress:
            for segment in make_segments(animator, identity, speech, kept, frames=False):
                video.append(segment.piece)
                progress.segment(segment.index, taken=segment.finished is not None)
                taken += segment.finished is not None
    except NotEnoughMemory as error:
        done = what_is_done(error, video, kept.usable, speech)
        raise InputError(" ".join((str(error), *done))) from error
    except KeyboardInterrupt:
        if not video.saved:
            raise
        print(f"Stopped. {saved(video)}." + (" Start again to go on." if kept.usable else ""))
        return INTERRUPTED
    print(saved(video))
    if taken:
        print(f"{taken} of {speech.segments} segments were there from before.")
    return 0


def what_is_done(
    error: NotEnoughMemory, video: VideoWriter, kept: bool, speech: Speech
) -> Iterator[str]:
    """Where the work is that was done before memory ran out, and how to go on, in sentences.

    Latents that are not `kept` in the store are saved beside the video.
    """
    if isinstance(error, NotDecoded) and kept:
        yield "Start again, and it is decoded without sampling."
    elif isinstance(error, NotDecoded):
        file = free_name(video.path.with_suffix(f".segment{error.index}.latent"))
        save_latent(file, error.latents, speech.new_frames(error.index))
        yield f"Its latents are in {file}."
    elif video.saved and kept:
        yield "Start again to go on."
    if video.saved:
        yield f"What is done is in {video.saved}."


def saved(video: VideoWriter) -> str:
    return f"{video.saved.resolve()}: {video.seconds:.2f} s, {video.frames} frames"
