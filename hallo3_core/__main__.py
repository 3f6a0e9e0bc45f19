"""Command line: `python -m hallo3_core animate --portrait P --speech S --output O.mp4`."""

import argparse
import shutil
import signal
import sys
from functools import partial
from math import isfinite
from pathlib import Path

import torch
from tqdm import tqdm

from . import builtin
from .animate import (
    ALWAYS,
    GUIDANCE,
    SAMPLER,
    STEPS,
    NotDecoded,
    animate,
    decode_images,
    seconds_to_decode,
    without_seams,
)
from .check import check
from .checkpoint import read_weights
from .convert import CONVERTED, convert, find_sources, plan
from .download import FILES, TEXT_ENCODERS, download
from .errors import InputError
from .evaluation import evaluate
from .evaluation.fid import features, frechet_distance, load_inception
from .framing import FITS
from .inputs import find_face, find_voice, save_picture
from .memory_plan import GB, RESERVED, WEIGHTS, free_memory
from .model import Hallo3, plan_for
from .noise import SeededNoise
from .portrait import FACE_BOX_GROWTH, encode_portrait, read_image
from .progress import Progress
from .sampling import SAMPLERS, Schedule
from .speech import encode_speech, prepare_waveform
from .vae import save_latent
from .video import VideoWriter, check_output, save_sound, sound_of_file

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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
    examples.add_argument("folder", type=Path, help="where to, such as ComfyUI's input folder")
    convert = commands.add_parser("convert", help="make published files ready for ComfyUI")
    convert.set_defaults(run=run_convert, stopped="Stopped; the files that are there are whole.")
    convert.add_argument("source", type=Path, help="a published file, or the folder of them")
    convert.add_argument("folder", type=Path, help="where to, such as ComfyUI's models folder")
    convert.add_argument("--dtype", choices=CONVERTED, default="bf16", help="(%(default)s)")
    convert.add_argument("--list", action="store_true", help="only say where every tensor goes")
    checking = commands.add_parser("check", help="say what weights files are")
    checking.set_defaults(run=run_check, stopped="Stopped.")
    checking.add_argument("files", type=Path, nargs="+", help="any weights files")
    planning = commands.add_parser("plan", help="say what memory a model takes")
    planning.set_defaults(run=run_plan, stopped="Stopped.")
    planning.add_argument("--model", type=Path, help="as for animate (default: the released one)")
    planning.add_argument("--memory", type=float, nargs="+", default=CARDS, help="of cards, in GB")
    planning.add_argument("--dtype", choices=WEIGHTS, nargs="+", default=PLANNED, help="of weights")
    bringing = commands.add_parser("download", help="bring the released files")
    bringing.set_defaults(run=run_download, stopped="Stopped; start again to go on.")
    bringing.add_argument("folder", type=Path, help="where to, such as ComfyUI's models folder")
    bringing.add_argument("--text-encoder", choices=TEXT_ENCODERS, help="also T5, for prompts")
    bringing.add_argument("--list", action="store_true", help="only say what would be brought")
    judging = commands.add_parser("evaluate", help="measure videos of faces that speak")
    judging.set_defaults(run=run_evaluate, stopped="Stopped.")
    judging.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    judging.add_argument("--portrait", type=Path, help="who it is (default: the first frame)")
    judging.add_argument("--face-models", type=Path, help="folder of MediaPipe's and InsightFace's")
    judging.add_argument("--syncnet", type=Path, help="its authors' syncnet_v2.model")
    judging.add_argument("--fid", type=Path, help="pytorch-fid's Inception; with --real")
    judging.add_argument("--real", type=Path, nargs="+", metavar="VIDEO", help="for FID")
    add = command.add_argument
    add("--portrait", type=Path, help="a picture (default: a drawing)")
    add("--speech", type=Path, default=builtin.SPEECH, help="a sound or video file")
    add("--output", type=Path, default=Path("hallo3.mp4"), help="the video (%(default)s)")
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
    add("--dtype", choices=DTYPES, help="(default: float32 on cpu, else bfloat16)")
    add("--face-mask", type=Path, help="a picture like the portrait, the face white, else black")
    add("--face", type=int, default=0, help="which face, 0 being the largest (%(default)s)")
    add("--face-growth", type=float, default=FACE_BOX_GROWTH, help="of its box (%(default)s)")
    add("--whole-image", action="store_true", help="look for no face")
    add("--face-models", type=Path, help="folder of antelopev2 (default: the model's)")
    add("--fit", choices=FITS, default="published", help="picture on the canvas (%(default)s)")
    add("--framing", type=Path, help="save a picture of the faces that were found")
    add("--isolate-vocals", nargs="?", type=Path, const=Path(), help="an MDX-Net file")
    add("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(arguments)


def choose_device(name: str | None) -> torch.device:
    """The device of this name, or the best there is."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        probe = torch.ones(1, device=name)
        probe.item()
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0][:100].rstrip(".")
        raise InputError(f"The device {name} cannot be used ({reason}): try cpu.") from error


def load_model(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Hallo3:
    """The model that was asked for, placed as the memory of the device allows."""
    if options.model is None:
        return builtin.load().to(dtype).placed(device)
    kind = next(kind for kind, (_, size) in WEIGHTS.items() if size == dtype.itemsize)
    offload = device.type != "cpu"
    plan = plan_for(options.model, kind, free_memory(device), offload)
    if not options.quiet:
        print("\n".join(plan.lines()))
    return Hallo3.from_folder(options.model, dtype).placed(device, plan)


def run_animate(options: argparse.Namespace) -> int:
    check_output(options.output)
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
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype = DTYPES.get(options.dtype, dtype)
    portrait = read_image(options.portrait) if options.portrait else builtin.portrait()
    region, embedding = find_face(options, portrait)
    waveform, rate = find_voice(options)

    model = load_model(options, device, dtype)
    noise = SeededNoise(options.seed)
    text = model.text_encoder()(options.prompt) if options.prompt else None
    with model.working(model.speech_encoder):
        speech = encode_speech(model.speech_encoder, prepare_waveform(waveform, rate)).on_disk()
    with model.working(model.vae, model.reference_network):
        identity = encode_portrait(
            model.vae, model.reference_network, portrait, region, noise, embedding, options.fit
        )
        decode = partial(decode_images, model.vae, tiles=model.tiles)
        decoding = 0 if options.quiet else seconds_to_decode(decode, identity)

    height, width = identity.size
    with (
        VideoWriter(options.output, height, width, sound_of_file(options.speech)) as video,
        Progress(speech.segments, options.steps, decoding, options.quiet) as progress,
    ):
        segments = animate(
            model,
            identity,
            speech,
            noise,
            text=text,
            steps=options.steps,
            guidance=options.guidance,
            interval=tuple(options.guidance_interval),
            sampler=options.sampler,
            on_step=progress.step,
        )
        try:
            for segment in without_seams(segments):
                video.write(segment.frames)
                progress.segment()
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        except NotDecoded as error:
            file = options.output.with_suffix(f".segment{error.index}.latent")
            save_latent(file, error.latents)
            raise InputError(f"{error} Its latents are in {file}.") from error
        finally:
            # nothing may keep the file from being finished now
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    saved = f"{options.output.resolve()}: {video.seconds:.2f} s, {video.frames} frames"
    if not interrupted:
        print(saved)
        return 0
    print(f"Stopped. {saved}." if video.frames else options.stopped)
    return INTERRUPTED


def run_examples(options: argparse.Namespace) -> int:
    if not options.folder.is_dir():
        raise InputError(f"There is no folder {options.folder}: make it, or choose another.")
    portrait, group = (options.folder / f"hallo3_{name}.png" for name in ("portrait", "group"))
    save_picture(builtin.portrait(), portrait)
    save_picture(builtin.group(), group)
    speech = shutil.copy(builtin.SPEECH, options.folder / "hallo3_speech.wav")
    song = options.folder / "hallo3_song.wav"
    save_sound(*builtin.song(), song)
    print(f"{portrait}\n{group}\n{speech}\n{song}")
    return 0


def run_convert(options: argparse.Namespace) -> int:
    sources = find_sources(options.source)
    plans = [plan(file, read_weights(file), options.dtype) for file in sources]
    if options.list:
        for made in plans:
            print("\n".join(made.lines()))
        return 0
    size = 2 * sum(made.bytes for made in plans)
    with tqdm(total=size, unit="B", unit_scale=True, desc="checking, writing") as bar:
        files = [file for made in plans for file in convert(made, options.folder, bar.update)]
    for file in files:
        print(f"{file} ({file.stat().st_size / 1e9:.2f} GB)")
    return 0


def run_plan(options: argparse.Namespace) -> int:
    print("| memory | weights | portrait | speech | sampling | decoding | how |")
    print("|---|---|---|---|---|---|---|")
    for memory in options.memory:
        for kind in options.dtype:
            start = f"| {memory:g} GB | {kind} | "
            try:
                plan = plan_for(options.model, kind, memory * GB - RESERVED)
            except InputError as error:
                print(f"{start}| | | | {error} |")
                continue
            peaks = (f"{plan.peak(stage) / GB:.1f} GB" for stage in plan.stages)
            print(start + " | ".join((*peaks, plan.how)) + " |")
    return 0


def run_download(options: argparse.Namespace) -> int:
    files = (*FILES, *TEXT_ENCODERS.get(options.text_encoder, ()))
    if options.list:
        for file in files:
            size = f"{file.gigabytes:.2f} GB, " if file.gigabytes else ""
            print(f"{file.place(options.folder)}: {size}{file.licence}, {file.repository}")
        return 0
    for path in download(files, options.folder):
        print(path)
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    if bool(options.fid) != bool(options.real):
        raise InputError(
            "FID is of videos from real ones: give --fid FILE and --real VIDEO... both."
        )
    inception = load_inception(options.fid) if options.fid else None
    for video in options.videos:
        report = evaluate(video, options.portrait, options.face_models, options.syncnet)
        print(f"{video}: " + "\n  ".join(report.lines()), flush=True)
    if inception:
        made, real = (features(inception, videos) for videos in (options.videos, options.real))
        distance = frechet_distance(made, real)
        print(f"FID: {distance:.2f} of {len(made)} frames from {len(real)} real ones")
    return 0


def run_check(options: argparse.Namespace) -> int:
    status = 0
    for file in options.files:
        try:
            print(f"{file}: " + "\n  ".join(check(file).lines()))
        except InputError as error:
            print(error)
            status = BAD_INPUT
    return status


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
