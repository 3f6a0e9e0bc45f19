"""`animate`: make a portrait speak."""

import argparse
import logging
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import builtin, examples
from ...animate import ModelAnimator
from ...clip.edit import EXAMPLE as SEEDS
from ...clip.edit import edit_of
from ...clip.redub import Footage, Redub, fitted
from ...media.encoding import CODECS, STANDARD
from ...media.export import FORMATS, check_export
from ...media.outputs import free_name
from ...media.picture import check_picture_file, read_image
from ...memory.device import choose_device, choose_dtype, enough_memory
from ...memory.plan import free_memory
from ...model.hallo3 import Hallo3, plan_for
from ...model.lora import add_lora, steps_of
from ...network.weight_formats import COMPUTE_DTYPES, name_of
from ...noise import SeededNoise
from ...parallel.team import processes
from ...portrait.encode import encode_portrait
from ...prompts import EXAMPLE
from ...settings import Settings, distilled
from ...speech.activity import method
from ...speech.dialogue import Dialogue, Speaker, in_turns
from ...speech.encode import Speech, encode_speech
from ...store.fingerprint import fingerprint
from .cards import Load, run_on_cards
from .inputs import (
    Voice,
    add_face,
    add_video,
    add_voice,
    all_faces,
    encoded_prompts,
    find_face,
    find_scene,
    find_speakers,
    find_voice,
    read_curve,
)
from .writing import Written, encoding_of, write_video

OUTPUT = Path("hallo3.mp4")
STOPPED = "Stopped before the first segment was done."

logger = logging.getLogger(__name__)


def add(parser: argparse.ArgumentParser) -> None:
    argument = parser.add_argument
    argument("--portrait", type=Path, help="a picture (default: the built-in drawing)")
    formats = ", ".join(f"{ending}: {what}" for ending, what in FORMATS.items())
    argument(
        "--output",
        type=Path,
        help=f"the video (default: {OUTPUT}, or the next free name). {formats}",
    )
    argument("--overwrite", action="store_true", help="replace existing files")
    argument("--model", type=Path, help="folder of the model (default: the built-in model)")
    argument(
        "--undistilled", action="store_true", help="the built-in model that takes 50 steps, not 4"
    )
    argument("--lora", type=Path, help="a LoRA for the denoiser")
    argument("--lora-strength", type=float, default=1.0, help="factor of the LoRA (%(default)s)")
    argument(
        "--prompt",
        help="what the video shows, in words; or a file with a line for each prompt: the second "
        f"from which it holds, and the words, such as '{EXAMPLE}'",
    )
    add_settings(parser)
    argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    argument(
        "--dtype",
        choices=COMPUTE_DTYPES,
        help="(default: float32 on cpu, else bfloat16 or float16)",
    )
    add_face(parser)
    add_voice(parser)
    add_edit(parser)
    add_video(parser)
    argument(
        "--split-guidance",
        choices=("yes", "no"),
        help="on several cards: whether the branches of guidance are on cards of their own "
        "(default: if the number of cards is even)",
    )
    argument("--no-store", dest="store", action="store_false", help="do not save finished segments")
    argument("--quiet", action="store_true", help="no progress bars")


def add_edit(parser: argparse.ArgumentParser) -> None:
    """Add the options for a part of the clip, for other takes, and for the video's quality."""
    argument = parser.add_argument
    argument("--from", dest="start", type=float, default=0.0, help="seconds: where to begin")
    argument("--to", dest="end", type=float, default=0.0, help="seconds: where to end")
    argument(
        "--segment-seeds",
        default="",
        metavar="SEEDS",
        help=f"make single segments again with other seeds: number and seed, such as '{SEEDS}'",
    )
    argument(
        "--stay",
        action="store_true",
        help="keep what follows the segments of --segment-seeds, and fade over to it",
    )
    codecs = "; ".join(f"{name}: {codec.help}" for name, codec in CODECS.items())
    argument("--codec", choices=CODECS, default=STANDARD.codec, help=f"{codecs} (%(default)s)")
    argument(
        "--crf", type=int, default=STANDARD.crf, help="0: best, 40: the smallest file (%(default)s)"
    )


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
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, dest=field.name, help=f"{choice.help} ({shown})", **kinds)


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


def run(options: argparse.Namespace) -> int:
    options.output = options.output or free_name(OUTPUT)
    if processes() > 1:
        return run_on_cards(options, make_video, load_model)
    print("\n".join(make_video(options, load_model).lines()))
    return 0


def make_video(
    options: argparse.Namespace,
    load: Load,
    animator_of: Callable[..., ModelAnimator] = ModelAnimator,
) -> Written:
    """Do the job that the options describe. `options.output` must be given.

    `load` returns the model. It is called when the inputs are found to be good. Raises `InputError`
    if they are not.
    """
    settings = checked_settings(options)
    encoding = encoding_of(options)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    portrait = read_image(options.portrait) if options.portrait else examples.portrait()
    region: Tensor | None
    people, files = find_speakers(options, portrait), [file for _, file in options.speaker]
    scene = find_scene(options) if options.video else None
    if scene:
        region, embedding = None, scene.face.embedding
    elif people:
        region, embedding = all_faces(people, options), None
    else:
        region, embedding = find_face(options, portrait)
    found = [find_voice(file, options) for file in files or [options.speech]]

    with enough_memory("load the model", "use quantised weights"):
        model = load(options, device, dtype)
    noise, footage, fit = SeededNoise(settings.seed), None, options.fit
    text = encoded_prompts(model, options.prompt) if options.prompt else None
    voices = encoded_voices(model, found, options)
    speech = together(voices, people, options)
    heard = [replace(voice, sound=each.heard) for voice, each in zip(voices, found, strict=True)]
    if scene:
        footage, face = Footage(scene.frames(), scene.track, model.config.canvas[0]), scene.face.box
        portrait, region = footage.portrait, footage.face_region(face, options.face_growth)
        speech, fit = fitted(speech, len(scene.track)), "published"
    edit = edit_of(speech, options.segment_seeds, options.stay, options.start, options.end)
    networks = model.vae, model.reference_network
    with enough_memory("encode the portrait", "use quantised weights"), model.working(*networks):
        identity = encode_portrait(*networks, portrait, region, noise, embedding, fit)
    animator = animator_of(model, identity, speech, noise, text=text, **vars(settings))
    track = together(heard, people, options).sound
    assert track is not None  # all sounds are known
    redub = None
    if scene and footage:
        mask = footage.region(scene.face.box, options.region, scene.mask)
        redub = Redub(animator, footage, mask, options.strength)
    return write_video(animator, redub, edit.heard(track, speech), edit, encoding, options)


def checked_settings(options: argparse.Namespace) -> Settings:
    """The settings of a job. Raises `InputError` if its files cannot or may not be written."""
    inputs = given_files(options)
    check_export(options.output, inputs, options.overwrite)
    if options.framing:
        check_picture_file(options.framing, inputs, options.overwrite)
    return settings_of(options)


def encoded_voices(model: Hallo3, found: list[Voice], options: argparse.Namespace) -> list[Speech]:
    """The speech of each voice. Its sound is the voice."""
    with enough_memory("encode the speech"), model.working(model.speech_encoder):
        encoded = [encode_speech(model.speech_encoder, each.waveform).on_disk() for each in found]
    made_by = fingerprint(model.speech_encoder) + (method() if options.only_speech else "")
    return [
        replace(speech, sound=each.sound, encoder=made_by)
        for speech, each in zip(encoded, found, strict=True)
    ]


def together(
    speeches: list[Speech],
    people: list[tuple[Tensor, Tensor | None]],
    options: argparse.Namespace,
) -> Speech | Dialogue:
    """The speech of one person, or the dialogue of the people after --speaker.

    `people` are their regions and face embeddings.
    """
    if options.speech_curve:
        curve = read_curve(options.speech_curve)
        speeches = [speech.driven(curve) for speech in speeches]
    if not people:
        return speeches[0]
    speakers = tuple(Speaker(speech, *who) for speech, who in zip(speeches, people, strict=True))
    return in_turns(speakers) if options.turns else Dialogue(speakers)


def given_files(options: argparse.Namespace) -> list[Path]:
    """The input files that the user gave. None of them may be replaced."""
    given = (
        options.portrait,
        options.video,
        options.lora,
        options.speech,
        options.face_mask,
        options.model,
        options.isolate_vocals,
        options.speech_curve,
        options.face_models,
        *(file for speaker in options.speaker for file in speaker),
    )
    return [path for path in given if path]


def model_choice(options: argparse.Namespace) -> tuple:
    """What decides which model `load_model` loads, beside the device and the dtype."""
    built_in = options.undistilled, people_of(options)
    model = (options.model, voices_of(options)) if options.model else built_in
    return *model, options.lora, options.lora_strength


def people_of(options: argparse.Namespace) -> int:
    """How many people the built-in model must know: one, or two who speak."""
    return min(max(len(options.speaker), 1), 2)


def voices_of(options: argparse.Namespace) -> int:
    """How many voices all branches of guidance hear together, for `plan_for`.

    The branch with speech hears its speakers, and silence where they are weaker. Of speakers in
    turns, a segment has two, if nobody says less than a segment. Each other branch hears silence.
    """
    settings, speakers = settings_of(options), len(options.speaker)
    heard = min(speakers, 2) if options.turns else max(speakers, 1)
    weaker = bool(speakers or options.speech_curve or settings.speech_strength != 1)
    apart = options.prompt and len(set(settings.guidances)) > 1
    return heard + weaker + (2 if apart else 1)


def load_model(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Hallo3:
    """Load the model that was asked for, and place it as the memory of the device allows.

    This also turns off TF32, so that float32 keeps its full precision on every card.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if options.model is None:
        model, plan = builtin.load(not options.undistilled, people_of(options)).to(dtype), None
    else:
        free, offload = free_memory(device), device.type != "cpu"
        plan = plan_for(options.model, name_of(dtype), free, offload, voices_of(options))
        if not options.quiet:
            print("\n".join(plan.lines()))
        model = Hallo3.from_folder(options.model, dtype)
    if options.lora:
        add_lora(model.denoiser, options.lora, options.lora_strength)
    return model.placed(device, plan)
