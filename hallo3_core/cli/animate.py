"""`animate`: make a portrait speak."""

import argparse
import logging
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import builtin
from ..animate import ModelAnimator, NotDecoded, make_segments, seconds_to_decode
from ..autoencoder.vae import save_latent
from ..errors import INTERRUPTED, InputError, NotEnoughMemory
from ..media.outputs import free_name
from ..media.picture import check_picture_file, read_image, read_mask, save_picture, size_of
from ..media.progress import Progress
from ..media.video import VideoWriter, check_output
from ..memory.device import choose_device, choose_dtype, enough_memory
from ..memory.plan import free_memory
from ..model.finding import find_files
from ..model.hallo3 import Hallo3, plan_for
from ..model.lora import add_lora, steps_of
from ..network.weight_formats import COMPUTE_DTYPES, short_name
from ..noise import SeededNoise
from ..portrait.encode import encode_portrait
from ..portrait.face_mask import FACE_BOX_GROWTH, check_growth, region_of
from ..portrait.faces import (
    SAME,
    Face,
    choose,
    draw,
    insightface_missing,
    no_face,
    open_finder,
    overlap,
)
from ..portrait.framing import FIT, FITS, Box
from ..portrait.mesh import find_landmarker, oval_box
from ..settings import Settings, distilled
from ..sound.sound import Sound
from ..sound.sound_file import read_sound
from ..speech.encode import Speech, encode_speech
from ..speech.vocals import VocalIsolator
from ..store.fingerprint import fingerprint
from ..store.segment_store import NOTHING_KEPT, ClipStore, SegmentStore
from .store import STORE

OUTPUT = Path("hallo3.mp4")
ISOLATOR = "Kim_Vocal_2.onnx"
STOPPED = "Stopped before the first segment was done."

logger = logging.getLogger(__name__)


def add(commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("animate", help="make a portrait speak")
    argument = parser.add_argument
    argument("--portrait", type=Path, help="a picture (default: the built-in drawing)")
    argument("--speech", type=Path, default=builtin.SPEECH, help="a sound or video file")
    argument("--output", type=Path, help=f"the video (default: {OUTPUT}, or the next free name)")
    argument("--overwrite", action="store_true", help="replace existing files")
    argument("--model", type=Path, help="folder of the model (default: the built-in model)")
    argument(
        "--undistilled", action="store_true", help="the built-in model that takes 50 steps, not 4"
    )
    argument("--lora", type=Path, help="a LoRA for the denoiser")
    argument("--lora-strength", type=float, default=1.0, help="factor of the LoRA (%(default)s)")
    argument("--prompt", help="what the video shows, in words")
    add_settings(parser)
    argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    argument(
        "--dtype",
        choices=COMPUTE_DTYPES,
        help="(default: float32 on cpu, else bfloat16 or float16)",
    )
    add_face(parser)
    argument(
        "--isolate-vocals",
        nargs="?",
        type=Path,
        const=Path(),
        help="separate the voice from music, with this MDX-Net (default: the model's)",
    )
    argument("--no-store", dest="store", action="store_false", help="do not save finished segments")
    argument("--quiet", action="store_true", help="no progress bars")
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add an option for each field of `Settings`. An option that is not given is None."""
    few = distilled(builtin.STEPS)
    for field in fields(Settings):
        choice = field.metadata["choice"]
        kinds = {"choices": choice.options} if choice.options else {"type": type(field.default)}
        name, shown = field.name, f"{field.default}"
        if field.name in few:
            shown += f"; for a distilled model {few[field.name]}"
        if field.name == "interval":
            kinds = {"type": float, "nargs": 2, "metavar": ("FROM", "TO")}
            name, shown = "guidance-interval", "{} {}".format(*Settings.interval)
        parser.add_argument(f"--{name}", dest=field.name, help=f"{choice.help} ({shown})", **kinds)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that were given; the others are the defaults for the model."""
    given: dict[str, Any] = {field.name: getattr(options, field.name) for field in fields(Settings)}
    given = {name: value for name, value in given.items() if value is not None}
    if "interval" in given:
        given["interval"] = tuple(given["interval"])
    steps = steps_of(options.lora) if options.lora else None
    if steps is None and not (options.model or options.undistilled):
        steps = builtin.STEPS
    return Settings(**(distilled(steps) if steps else {}) | given)


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


def run(options: argparse.Namespace) -> int:
    options.output = options.output or free_name(OUTPUT)
    inputs = given_files(options)
    check_output(options.output, inputs, options.overwrite)
    if options.framing:
        check_picture_file(options.framing, inputs, options.overwrite)
    settings = settings_of(options)
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
    """The input files that the user gave. None of them may be replaced."""
    given = (
        options.portrait,
        options.lora,
        options.speech,
        options.face_mask,
        options.model,
        options.isolate_vocals,
    )
    return [path for path in given if path]


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
            "Without InsightFace the model sees the face only in the picture. To install it: %s.",
            insightface_missing(folders),
        )
    if mask is None and face is None and not options.whole_image:
        logger.warning(no_face("Paint a --face-mask.", folders))
    box = speaker_box(portrait, face, options) if face and mask is None else None
    return region_of(mask, box, size, options.face_growth), embedding


def speaker_box(portrait: Tensor, face: Face, options: argparse.Namespace) -> Box:
    """The box of MediaPipe's face oval if it is the same face, else the box of the face."""
    file = find_landmarker(face_folders(options))
    oval = oval_box(portrait, file) if file else None
    return oval if oval and overlap(oval, face.box) > SAME else face.box


def find_voice(options: argparse.Namespace) -> tuple[Sound, Sound]:
    """The sound of the video, and the voice that moves the face.

    They differ if the voice is separated from music. The file is read only here, once.
    """
    heard = read_sound(options.speech)
    if not options.isolate_vocals:
        return heard, heard
    isolate = VocalIsolator(isolator_file(options))
    return heard, Sound(isolate(heard.waveform[:, :], heard.rate), heard.rate)


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


def load_model(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Hallo3:
    """Load the model that was asked for, and place it as the memory of the device allows.

    This also turns off TF32, so that float32 keeps its full precision on every card.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if options.model is None:
        model, plan = builtin.load(not options.undistilled).to(dtype), None
    else:
        plan = plan_for(options.model, short_name(dtype), free_memory(device), device.type != "cpu")
        if not options.quiet:
            print("\n".join(plan.lines()))
        model = Hallo3.from_folder(options.model, dtype)
    if options.lora:
        add_lora(model.denoiser, options.lora, options.lora_strength)
    return model.placed(device, plan)


def write_video(animator: ModelAnimator, heard: Sound, options: argparse.Namespace) -> int:
    """Compute the segments of a clip, and write the video with the sound `heard`.

    Returns the exit status. Raises `InputError` if memory runs out.
    """
    identity, speech = animator.identity, animator.speech
    kept = NOTHING_KEPT
    if options.store:
        store = SegmentStore.of_the_user(STORE)
        kept = ClipStore(store, fingerprint(animator.decides()), speech)
    decode = partial(animator.decode, 0)
    decoding = 0 if options.quiet else seconds_to_decode(decode, identity)
    taken = 0
    video = VideoWriter(options.output, *identity.size, heard, options.overwrite)
    progress = Progress(speech.segments, animator.settings.steps, decoding, options.quiet)
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
        print(f"Stopped. {saved(video)}." + (" Start again to continue." if kept.usable else ""))
        return INTERRUPTED
    print(saved(video))
    if taken:
        print(f"{taken} of {speech.segments} segments were kept from an earlier run.")
    return 0


def what_is_done(
    error: NotEnoughMemory, video: VideoWriter, kept: bool, speech: Speech
) -> Iterator[str]:
    """Sentences that say where the finished work is after memory ran out, and how to continue.

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
