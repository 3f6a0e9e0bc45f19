"""Segment Conditioning, Hallo3 Sampler, Hallo3 Scheduler, Hallo3 Guider and Sample Segment."""

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ..hallo3_core.autoencoder.motion import fill_segment
from ..hallo3_core.autoencoder.new_frames import write_new_frames
from ..hallo3_core.errors import InputError
from ..hallo3_core.network.config import FPS, LATENT_FRAMES, NEW_FRAMES, Hallo3Config
from ..hallo3_core.portrait.encode import Identity
from ..hallo3_core.prompts import held
from ..hallo3_core.settings import Settings
from ..hallo3_core.sound.sound import Sound
from ..hallo3_core.speech.dialogue import Dialogue, faces, voices
from ..hallo3_core.speech.encode import Speech
from ..hallo3_core.text import check_length
from .host.guider import guider_of
from .host.loading import BUILT_IN
from .host.memory import plan
from .host.model import IDENTITY, MOTION, SPEECH, Hallo3Model, Heard, RunOnce, Seen
from .host.out_of_memory import enough_memory
from .host.sampling import published_sampler, published_sigmas, sample_segment
from .host.say import say
from .host.time_left import ClipTime
from .host.tiny_decoder import find_tiny_decoder
from .settings import segment_settings_inputs, settings_inputs, settings_of
from .sockets import (
    CATEGORY,
    MotionSocket,
    identity_input,
    model_input,
    prompt_input,
    segment_index_input,
    speech_input,
)

FRAMES = "hallo3_new_frames"
"""The key of an empty LATENT that says how many new frames its segment has.

Stock samplers keep it.
"""

BEGINS = "hallo3_begins"
"""The key of a conditioning that says from which second on it holds, from Prompts Over Time."""

STRENGTHS = "speech_strength", "identity_strength"


def segment_inputs() -> list[io.Input]:
    """What decides one segment, besides the settings of the sampling."""
    return [
        model_input(),
        identity_input(),
        speech_input(),
        segment_index_input("Which segment to sample. The first is 0."),
        prompt_input(),
        MotionSocket.Input(
            "motion",
            optional=True,
            tooltip="How the previous segment ended, from Extend With Motion Frames. Without it, "
            "the segment starts from the still portrait.",
        ),
    ]


def hallo3_model(model) -> Hallo3Model:
    """The Hallo3 model in a MODEL. Raises `InputError` if it is another model."""
    if not isinstance(model.model, Hallo3Model):
        raise InputError(
            f"The model is a {type(model.model).__name__} and not Hallo3: connect Load Hallo3 DiT."
        )
    return model.model


def condition(
    model,
    identity: Identity,
    speech: Speech | Dialogue,
    index: int,
    positive,
    motion,
    settings: Settings,
) -> tuple[list, list, dict]:
    """Positive conditioning, negative conditioning and an empty LATENT for one segment.

    `motion` (1, 16, 1 or 13, height / 8, width / 8) are motion latents, or None for the still
    portrait. Of the `settings`, the strengths count. This also prepares the previews, which every
    sampler shows. Raises `InputError` if the model does not fit into memory, or if there is no such
    segment.
    """
    host_model = hallo3_model(model)
    plan(model)
    config: Hallo3Config = host_model.diffusion_model.config
    if index >= speech.segments:
        raise InputError(
            f"There is no segment {index}: the speech of {speech.frames} frames has "
            f"{speech.segments}, from 0 to {speech.segments - 1}."
        )
    prepare_previews(host_model, identity)
    companions = host_model.model_config.companions
    project = RunOnce(companions.audio_projector, model.load_device)
    heard = voices(speech, index, identity, config, settings.speech_strength)
    nothing = torch.zeros_like(heard.windows[:1])
    with enough_memory("prepare the speech of a segment"):
        tokens = project(torch.cat([heard.windows, nothing])).cpu()
    strength = settings.identity_strength
    seen = Seen(identity, *faces(speech, identity, config, strength), strength)
    no_text = torch.zeros(1, config.text_tokens, config.text_width)
    motion = fill_segment(identity.motion if motion is None else motion)

    def steer(text: Tensor, options: dict, heard: Heard) -> list:
        return [text, options | {IDENTITY: seen, SPEECH: heard, MOTION: motion}]

    positive = prompts_of(positive, index) or [[no_text, {}]]
    samples = torch.zeros(1, config.latent_channels, LATENT_FRAMES, *identity.motion.shape[-2:])
    speaking, silent = Heard(tokens[:-1], heard.weights), Heard(tokens[-1:])
    return (
        [steer(fit_text(text, config), options, speaking) for text, options in positive],
        [steer(no_text, {}, silent)],
        {"samples": samples, FRAMES: speech.new_frames(index)},
    )


def prepare_previews(host_model: Hallo3Model, identity: Identity) -> None:
    """Let samplers show the latents: by a tiny decoder, if the user has one, or by their colours.

    The tiny decoder is for the released autoencoder.
    """
    built_in = host_model.model_config.file in BUILT_IN
    decoder = None if built_in else find_tiny_decoder()
    if decoder:
        host_model.latent_format.preview_with(decoder, identity)
    else:
        host_model.latent_format.learn_colours(identity)


def prompts_of(positive: list | None, index: int) -> list:
    """The part of a CONDITIONING that holds in segment `index`. Most hold in all segments."""
    entries = positive or []
    always = [entry for entry in entries if BEGINS not in entry[1]]
    timed: dict[float, list] = {}
    for entry in entries:
        if BEGINS in entry[1]:
            timed.setdefault(entry[1][BEGINS], []).append(entry)
    return always + (held(sorted(timed.items()), index) or [])


def fit_text(text: Tensor, config: Hallo3Config) -> Tensor:
    """An encoded prompt, cut or filled with zeros to the model's number of tokens."""
    if text.shape[-1] != config.text_width:
        raise InputError(
            f"The prompt was encoded for another model ({text.shape[-1]} numbers for each token, "
            f"not {config.text_width}): use CLIPLoader with T5 XXL and type cogvideox."
        )
    check_length(text.shape[1], config.text_tokens)
    return F.pad(text, (0, 0, 0, config.text_tokens - text.shape[1]))


def segment_sound_output() -> io.Audio.Output:
    return io.Audio.Output(display_name="audio", tooltip="The sound of this segment.")


def segment_sound(speech: Speech | Dialogue, index: int) -> dict:
    """The sound of the new frames of a segment, as ComfyUI's AUDIO."""
    assert speech.sound is not None  # Encode Speech always sets it
    return audio_part(speech.sound, index * NEW_FRAMES, speech.new_frames(index))


def audio_part(sound: Sound, start: int, frames: int) -> dict:
    """The sound of so many frames from the frame `start`, as ComfyUI's AUDIO."""
    waveform = sound.cut(start / FPS, (start + frames) / FPS)
    return {"waveform": waveform[None], "sample_rate": sound.rate}


class SegmentConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3SegmentConditioning",
            display_name="Segment Conditioning",
            search_aliases=["audio conditioning"],
            category=f"{CATEGORY}/segments",
            description="The conditioning of one segment, for ComfyUI's own samplers.",
            inputs=[*segment_inputs(), *settings_inputs(*STRENGTHS)],
            outputs=[
                io.Conditioning.Output(
                    "positive_out",
                    display_name="positive",
                    tooltip="Speech, prompt, portrait and motion.",
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="Silence, no prompt, the same portrait and motion.",
                ),
                io.Latent.Output(
                    display_name="latent", tooltip="An empty latent of the right size."
                ),
                segment_sound_output(),
            ],
        )

    @classmethod
    def execute(
        cls, model, identity, speech, segment_index, positive=None, motion=None, **strengths
    ) -> io.NodeOutput:
        settings = settings_of(strengths)
        conditioned = condition(model, identity, speech, segment_index, positive, motion, settings)
        frames = conditioned[-1][FRAMES]
        say(f"segment {segment_index + 1} of {speech.segments}: {frames} new frames")
        return io.NodeOutput(*conditioned, segment_sound(speech, segment_index))


class Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3Sampler",
            display_name="Hallo3 Sampler",
            search_aliases=["few steps", "dpm++", "ddim"],
            category=f"{CATEGORY}/segments",
            description="The published samplers, for SamplerCustomAdvanced.",
            inputs=settings_inputs("sampler", "interval"),
            outputs=[
                io.Sampler.Output(
                    "sampler_out", display_name="sampler", tooltip="For SamplerCustomAdvanced."
                )
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        settings = settings_of(inputs)
        return io.NodeOutput(published_sampler(settings.sampler, settings.interval))


class Scheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3Scheduler",
            display_name="Hallo3 Scheduler",
            search_aliases=["sigmas", "noise schedule"],
            category=f"{CATEGORY}/segments",
            description="The published noise schedule, for SamplerCustomAdvanced.",
            inputs=[model_input(), *settings_inputs("steps")],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, steps: int) -> io.NodeOutput:
        hallo3_model(model)
        return io.NodeOutput(published_sigmas(model, steps))


class Guider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3Guider",
            display_name="Hallo3 Guider",
            search_aliases=["audio guidance", "speech cfg", "cfg"],
            category=f"{CATEGORY}/segments",
            description="Separate guidance for the speech and for the prompt, for "
            "SamplerCustomAdvanced.",
            inputs=[
                model_input(),
                io.Conditioning.Input("positive", tooltip="From Segment Conditioning."),
                io.Conditioning.Input("negative", tooltip="From Segment Conditioning."),
                *settings_inputs("guidance", "text_guidance"),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, **scales) -> io.NodeOutput:
        hallo3_model(model)
        guidances = settings_of(scales).guidances
        return io.NodeOutput(guider_of(model, positive, negative, *guidances))


class SampleSegment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3SampleSegment",
            display_name="Sample Segment",
            search_aliases=["ksampler", "single segment"],
            category=f"{CATEGORY}/segments",
            description="One segment of 1.88 s, sampled as the published program does.",
            inputs=[*segment_inputs(), *segment_settings_inputs()],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="The sampled segment, for Decode VAE."
                ),
                segment_sound_output(),
            ],
        )

    @classmethod
    def execute(
        cls, model, identity, speech, segment_index, positive=None, motion=None, **inputs
    ) -> io.NodeOutput:
        settings = settings_of(inputs)
        clip = ClipTime(segments=1, steps=settings.steps, decoding=0)
        latent = sample_segment(
            model,
            *condition(model, identity, speech, segment_index, positive, motion, settings),
            settings=settings,
            index=segment_index,
            clip=clip,
        )
        clip.done("sampled")
        samples = write_new_frames(latent["samples"], speech.new_frames(segment_index))
        return io.NodeOutput(latent | {"samples": samples}, segment_sound(speech, segment_index))
