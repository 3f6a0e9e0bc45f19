"""Command line: `python -m hallo3_core animate --portrait P --speech S --output O.mp4`."""

import argparse
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import isfinite
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from . import builtin
from .animate import (
    ALWAYS,
    GUIDANCE,
    SAMPLER,
    STEPS,
    ModelAnimator,
    NotDecoded,
    make_segments,
    seconds_to_decode,
)
from .check import check, installed_files
from .checkpoint import read_weights
from .comfyui_folder import comfyui_folder
from .convert import CONVERTED, convert, find_sources, plan
from .device import DTYPES, choose_device, choose_dtype, enough_memory
from .download import FILES, TEXT_ENCODERS, download
from .errors import InputError, NotEnoughMemory
from .evaluation import evaluate
from .evaluation.fid import features, frechet_distance, load_inception
from .fingerprint import fingerprint
from .framing import FIT, FITS
from .inputs import find_face, find_voice, given_files
from .memory_plan import GB, RESERVED, WEIGHTS, free_memory
from .model import Hallo3, plan_for
from .noise import SeededNoise
from .outputs import free_name, write_file
from .picture import check_picture_file, read_image, save_picture
from .portrait import FACE_BOX_GROWTH, encode_portrait
from .progress import Progress
from .sampling import SAMPLERS, Schedule
from .sound import Sound
from .speech import Speech, encode_speech
from .store import GB as STORE_GB
from .store import NOTHING_KEPT, ClipStore, SegmentStore
from .vae import save_latent
from .video import VideoWriter, check_output, save_sound

STORE = Path.home() / ".cache" / "hallo3" / "segments"
"""Finished segments of the command line."""
OUTPUT = Path("hallo3.mp4")
KINDS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""What the memory plan calls weights of a dtype."""
CARDS = (8, 12, 16, 24, 48, 80)
PLANNED = ("bf16", "fp8")
BAD_INPUT = 2
INTERRUPTED = 130


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hallo3_core")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("animate", help="make a portrait speak")
    command.set_defaults(run=run_animate, stopped="Stopped before the first segment was done.")
    examples = commands.add_parser("examples", help="copy the example pictures and sounds")
    examples.set_defaults(run=run_examples, stopped="Stopped.")
    examples.add_argument("folder", type=Path, nargs="?", help="(default: ComfyUI's input)")
    examples.add_argument("--overwrite", action="store_true", help="replace what is there")
    convert = commands.add_parser("convert", help="make published files ready for ComfyUI")
    convert.set_defaults(run=run_convert, stopped="Stopped; the files that are there are whole.")
    source = "a published file, or the folder of them (default: ComfyUI's models)"
    convert.add_argument("source", type=Path, nargs="?", help=source)
    convert.add_argument("folder", type=Path, nargs="?", help="(default: ComfyUI's models)")
    convert.add_argument("--dtype", choices=CONVERTED, default="bf16", help="(%(default)s)")
    convert.add_argument("--list", action="store_true", help="only say where every tensor goes")
    convert.add_argument("--overwrite", action="store_true", help="replace what is there")
    checking = commands.add_parser("check", help="say what weights files are")
    checking.set_defaults(run=run_check, stopped="Stopped.")
    checking.add_argument(
        "files", type=Path, nargs="*", help="(default: those in ComfyUI's models)"
    )
    planning = commands.add_parser("plan", help="say what memory a model takes")
    planning.set_defaults(run=run_plan, stopped="Stopped.")
    planning.add_argument("--model", type=Path, help="as for animate (default: the released one)")
    planning.add_argument("--memory", type=float, nargs="+", default=CARDS, help="of cards, in GB")
    planning.add_argument("--dtype", choices=WEIGHTS, nargs="+", default=PLANNED, help="of weights")
    keeping = commands.add_parser("store", help="say what finished segments are kept")
    keeping.set_defaults(run=run_store, stopped="Stopped.")
    keeping.add_argument("--folder", type=Path, default=STORE, help="of the store (%(default)s)")
    keeping.add_argument("--empty", action="store_true", help="delete them")
    bringing = commands.add_parser("download", help="bring the released files")
    bringing.set_defaults(run=run_download, stopped="Stopped; start again to go on.")
    bringing.add_argument("folder", type=Path, nargs="?", help="(default: ComfyUI's models)")
    bringing.add_argument("--text-encoder", choices=TEXT_ENCODERS, help="also T5, for prompts")
    bringing.add_argument("--list", action="store_true", help="only say what would be brought")
    bringing.add_argument("--overwrite", action="store_true", help="replace other files there")
    judging = commands.add_parser("evaluate", help="measure videos of faces that speak")
    judging.set_defaults(run=run_evaluate, stopped="Stopped.")
    judging.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    judging.add_argument("--portrait", type=Path, help="who it is (default: the first frame)")
    judging.add_argument("--face-models", type=Path, help="folder of MediaPipe's and InsightFace's")
    judging.add_argument("--syncnet", type=Path, help="its authors' syncnet_v2.model")
    judging.add_argument("--fid", type=Path, help="pytorch-fid's Inception; with --real")
    judging.add_argument("--real", type=Path, nargs="+", metavar="VIDEO", help="for FID")
    judging.add_argument("--device", help="cpu, cuda, ... (default: cuda if there is one)")
    add = command.add_argument
    add("--portrait", type=Path, help="a picture (default: a drawing)")
    add("--speech", type=Path, default=builtin.SPEECH, help="a sound or video file")
    add("--output", type=Path, help=f"the video (default: {OUTPUT}, or the next free number)")
    add("--overwrite", action="store_true", help="replace what has the output's name")
    add("--model", type=Path, help="folder of the published model (default: the built-in one)")
    add("--prompt", help="what the video shows, in words")
    add("--steps", type=int, default=STEPS, help="sampling steps of each segment (%(default)s)")
    add("--guidance", type=float, default=GUIDANCE, help="weight of the speech (%(default)s)")
    add(
        "--guidance-interval",
        type=float,
        nargs=2,
        default=ALWAYS,
        metavar=("FROM", "TO"),
        help="the part of the steps, 0 to 1, that is guided; others are twice as fast",
    )
    add("--seed", type=int, default=0, help="same seed, same video (%(default)s)")
    add("--sampler", choices=SAMPLERS, default=SAMPLER, help="(%(default)s)")
    add("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--dtype", choices=DTYPES, help="(default: float32 on cpu, else bfloat16 or float16)")
    add("--face-mask", type=Path, help="a picture like the portrait, the face white, else black")
    add("--face", type=int, default=0, help="which face, 0 being the largest (%(default)s)")
    add("--face-growth", type=float, default=FACE_BOX_GROWTH, help="of its box (%(default)s)")
    add("--whole-image", action="store_true", help="look for no face")
    add("--face-models", type=Path, help="folder of antelopev2 (default: the model's)")
    add("--fit", choices=FITS, default=FIT, help="picture on the canvas (%(default)s)")
    add("--framing", type=Path, help="save a picture of the faces that were found")
    add("--isolate-vocals", nargs="?", type=Path, const=Path(), help="an MDX-Net file")
    add("--no-store", dest="store", action="store_false", help="keep no finished segments")
    add("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(arguments)


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


def run_animate(options: argparse.Namespace) -> int:
    options.output = options.output or free_name(OUTPUT)
    inputs = given_files(options)
    check_output(options.output, inputs, options.overwrite)
    if options.framing:
        check_picture_file(options.framing, inputs, options.overwrite)
    Schedule.published(options.steps)
    if not isfinite(options.guidance):
        raise InputError(
            f"The guidance is {options.guidance}: choose a number, such as {GUIDANCE}."
        )
    start, end = options.guidance_interval
    if not 0 <= start <= end <= 1:
        raise InputError(
            f"The guidance interval is {start} to {end}: choose shares of the steps, such as 0 0.7."
        )
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    portrait = read_image(options.portrait) if options.portrait else builtin.portrait()
    region, embedding = find_face(options, portrait)
    heard, sound = find_voice(options)

    with enough_memory("load the model", "use fp8 weights"):
        model = load_model(options, device, dtype)
    noise = SeededNoise(options.seed)
    text = model.text_encoder()(options.prompt) if options.prompt else None
    with enough_memory("encode the speech"), model.working(model.speech_encoder):
        speech = encode_speech(model.speech_encoder, sound.prepared()).on_disk()
    speech = replace(speech, sound=sound, encoder=fingerprint(model.speech_encoder))
    networks = model.vae, model.reference_network
    with enough_memory("encode the portrait", "use fp8 weights"), model.working(*networks):
        identity = encode_portrait(*networks, portrait, region, noise, embedding, options.fit)
    animator = ModelAnimator(
        model,
        identity,
        speech,
        noise,
        text=text,
        steps=options.steps,
        guidance=options.guidance,
        interval=tuple(options.guidance_interval),
        sampler=options.sampler,
    )
    return write_video(animator, heard, options)


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


def run_examples(options: argparse.Namespace) -> int:
    folder = options.folder or comfyui_folder("input")
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: make it, or choose another.")
    examples = {
        "portrait.png": partial(save_picture, builtin.portrait()),
        "group.png": partial(save_picture, builtin.group()),
        "speech.wav": partial(write_file, content=builtin.SPEECH.read_bytes()),
        "song.wav": partial(save_sound, *builtin.song()),
    }
    for name, save in examples.items():
        path = folder / f"hallo3_{name}"
        if path.exists() and not options.overwrite:
            print(f"{path} was there already and is kept; --overwrite replaces it")
        else:
            save(path=path, overwrite=options.overwrite)
            print(path)
    return 0


def run_convert(options: argparse.Namespace) -> int:
    sources = find_sources(options.source or comfyui_folder("models"))
    folder = options.folder or comfyui_folder("models")
    plans = [plan(file, read_weights(file), options.dtype) for file in sources]
    if options.list:
        for made in plans:
            print("\n".join(made.lines()))
        return 0
    size = 2 * sum(made.bytes for made in plans)
    with tqdm(total=size, unit="B", unit_scale=True, desc="checking, writing") as bar:
        files = [
            file for made in plans for file in convert(made, folder, bar.update, options.overwrite)
        ]
    for file in files:
        print(f"{file} ({file.stat().st_size / 1e9:.2f} GB)")
    return 0


def run_plan(options: argparse.Namespace) -> int:
    print("| memory | weights | portrait | speech | sampling | decoding | motion | how |")
    print("|---|---|---|---|---|---|---|---|")
    for memory in options.memory:
        for kind in options.dtype:
            start = f"| {memory:g} GB | {kind} | "
            try:
                plan = plan_for(options.model, kind, memory * GB - RESERVED)
            except InputError as error:
                print(f"{start}| | | | | {error} |")
                continue
            peaks = (f"{plan.peak(stage) / GB:.1f} GB" for stage in plan.stages)
            print(start + " | ".join((*peaks, plan.how)) + " |")
    return 0


def run_store(options: argparse.Namespace) -> int:
    store = SegmentStore.of_the_user(options.folder)
    if options.empty:
        store.empty()
    files = store.files()
    size = sum(file.stat().st_size for file in files) / STORE_GB
    print(f"{store.folder}: {len(files)} segments, {size:.2f} of {store.size / STORE_GB:g} GB")
    return 0


def run_download(options: argparse.Namespace) -> int:
    folder = options.folder or comfyui_folder("models")
    files = (*FILES, *TEXT_ENCODERS.get(options.text_encoder, ()))
    if options.list:
        for file in files:
            size = f"{file.gigabytes:.2f} GB, " if file.gigabytes else ""
            print(f"{file.place(folder)}: {size}{file.licence}, {file.repository}")
        return 0
    for path in download(files, folder, options.overwrite):
        print(path)
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    if bool(options.fid) != bool(options.real):
        raise InputError(
            "FID is of videos from real ones: give --fid FILE and --real VIDEO... both."
        )
    device = choose_device(options.device)
    inception = load_inception(options.fid, device) if options.fid else None
    for video in options.videos:
        report = evaluate(video, options.portrait, options.face_models, options.syncnet, device)
        print(f"{video}: " + "\n  ".join(report.lines()), flush=True)
    if inception:
        made, real = (features(inception, videos) for videos in (options.videos, options.real))
        distance = frechet_distance(made, real)
        print(f"FID: {distance:.2f} of {len(made)} frames from {len(real)} real ones")
    return 0


def run_check(options: argparse.Namespace) -> int:
    status = 0
    for file in options.files or installed_files(comfyui_folder("models")):
        try:
            print(f"{file}: " + "\n  ".join(check(file).lines()))
        except InputError as error:
            print(error)
            status = BAD_INPUT
    return status


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # said by `read_image` in a sentence
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    options = parse()
    try:
        return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(options.stopped)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
