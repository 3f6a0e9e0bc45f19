"""Segment Conditioning, Hallo3 Sampler and Scheduler, Sample Segment."""

import logging

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ..hallo3_core.autoencoder.new_frames import write_new_frames
from ..hallo3_core.errors import InputError
from ..hallo3_core.network.config import FPS, LATENT_FRAMES, NEW_FRAMES, Hallo3Config
from ..hallo3_core.portrait.encode import Identity
from ..hallo3_core.speech.encode import Speech
from ..hallo3_core.speech.windows import segment_windows
from .host.memory import plan
from .host.model import IDENTITY, MOTION, SPEECH, Hallo3Model, RunOnce
from .host.out_of_memory import enough_memory
from .host.sampling import published_sampler, published_sigmas, sample_segment
from .host.time_left import ClipTime
from .sockets import (
    CATEGORY,
    MotionSocket,
    guidance_input,
    identity_input,
    interval_inputs,
    model_input,
    prompt_input,
    sampler_input,
    seed_input,
    segment_index_input,
    speech_input,
    steps_input,
)

logger = logging.getLogger(__name__)

FRAMES = "hallo3_new_frames"
"""Where an empty LATENT says how many new frames its segment has; stock samplers hand it on."""


def motion_input() -> io.Input:
    return MotionSocket.Input(
        "motion",
        optional=True,
        tooltip="From Extend With Motion Frames. Without it the portrait stands still at first.",
    )


def hallo3_model(model) -> Hallo3Model:
    """The Hallo3 model behind a MODEL. Raises `InputError` if it is another."""
    if not isinstance(model.model, Hallo3Model):
        raise InputError(
            f"The model is a {type(model.model).__name__} and not Hallo3: connect Load Hallo3 DiT."
        )
    return model.model


def condition(
    model, identity: Identity, speech: Speech, index: int, positive, motion
) -> tuple[list, list, dict]:
    """Positive and negative conditioning and an empty LATENT for one segment."""
    host_model = hallo3_model(model)
    plan(model)
    config: Hallo3Config = host_model.diffusion_model.config
    if index >= speech.segments:
        raise InputError(
            f"There is no segment {index}: the speech of {speech.frames} frames has "
            f"{speech.segments}, from 0 to {speech.segments - 1}."
        )
    host_model.latent_format.learn_colours(identity)
    companions = host_model.model_config.companions
    project = RunOnce(companions.audio_projector, model.load_device)
    windows = segment_windows(speech.features, index)
    with enough_memory("prepare the speech of a segment"):
        tokens = project(torch.cat([windows, torch.zeros_like(windows)])).cpu()
    tokens, no_tokens = tokens.chunk(2)
    no_text = torch.zeros(1, config.text_tokens, config.text_width)
    if motion is None:
        motion = identity.motion
    motion = F.pad(motion, (0, 0, 0, 0, 0, LATENT_FRAMES - motion.shape[2]))

    def steer(text: Tensor, options: dict, tokens: Tensor) -> list:
        return [text, options | {IDENTITY: identity, SPEECH: tokens, MOTION: motion}]

    positive = positive or [[no_text, {}]]
    samples = torch.zeros(1, config.latent_channels, LATENT_FRAMES, *identity.motion.shape[-2:])
    frames = speech.new_frames(index)
    return (
        [steer(fit_text(text, config), options, tokens) for text, options in positive],
        [steer(no_text, {}, no_tokens)],
        {"samples": samples, FRAMES: frames},
    )


def fit_text(text: Tensor, config: Hallo3Config) -> Tensor:
    """An encoded prompt, cut or filled with zeros to the number of tokens of the model."""
    if text.shape[-1] != config.text_width:
        raise InputError(
            f"The prompt was encoded to {text.shape[-1]} numbers a token, Hallo3 takes "
            f"{config.text_width}: use CLIPLoader with T5 XXL and type cogvideox."
        )
    if text.shape[1] > config.text_tokens:
        logger.warning(
            "The prompt has %d tokens: what comes after %d is cut off.",
            text.shape[1],
            config.text_tokens,
        )
    return F.pad(text, (0, 0, 0, config.text_tokens - text.shape[1]))


def segment_sound_output() -> io.Audio.Output:
    return io.Audio.Output(
        display_name="audio", tooltip="The part of the speech that this segment shows."
    )


def segment_sound(speech: Speech, index: int) -> dict:
    """The sound of the new frames of a segment, as ComfyUI's AUDIO."""
    start = index * NEW_FRAMES
    sound = speech.sound.cut(start / FPS, (start + speech.new_frames(index)) / FPS)
    return {"waveform": sound[None], "sample_rate": speech.sound.rate}


class SegmentConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3SegmentConditioning",
            display_name="Segment Conditioning",
            category=CATEGORY,
            description="What steers one segment, for ComfyUI's own samplers.",
            inputs=[
                model_input(),
                identity_input(),
                speech_input(),
                segment_index_input("Which segment to sample"),
                prompt_input(),
                motion_input(),
            ],
            outputs=[
                io.Conditioning.Output(
                    "positive_out", display_name="positive", tooltip="Speech, prompt and portrait."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="Silence, no prompt, the same portrait."
                ),
                io.Latent.Output(display_name="latent", tooltip="Empty, of the segment's size."),
                segment_sound_output(),
            ],
        )

    @classmethod
    def execute(
        cls, model, identity, speech, segment_index, positive=None, motion=None
    ) -> io.NodeOutput:
        conditioned = condition(model, identity, speech, segment_index, positive, motion)
        return io.NodeOutput(*conditioned, segment_sound(speech, segment_index))


class Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3Sampler",
            display_name="Hallo3 Sampler",
            category=CATEGORY,
            description="The published sampler for SamplerCustomAdvanced.",
            inputs=[sampler_input(), *interval_inputs()],
            outputs=[
                io.Sampler.Output(
                    "sampler_out", display_name="sampler", tooltip="For SamplerCustomAdvanced."
                )
            ],
        )

    @classmethod
    def execute(cls, sampler, guidance_start=0.0, guidance_end=1.0) -> io.NodeOutput:
        return io.NodeOutput(published_sampler(sampler, (guidance_start, guidance_end)))


class Scheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3Scheduler",
            display_name="Hallo3 Scheduler",
            category=CATEGORY,
            description="The published timesteps for SamplerCustomAdvanced.",
            inputs=[model_input(), steps_input()],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, steps: int) -> io.NodeOutput:
        hallo3_model(model)
        return io.NodeOutput(published_sigmas(model, steps))


class SampleSegment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3SampleSegment",
            display_name="Sample Segment",
            category=CATEGORY,
            description="Samples one segment of 1.88 s as published.",
            inputs=[
                model_input(),
                identity_input(),
                speech_input(),
                segment_index_input("Which segment to sample"),
                prompt_input(),
                motion_input(),
                steps_input(),
                guidance_input(),
                sampler_input(),
                seed_input(),
                *interval_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The segment, for Decode VAE."),
                segment_sound_output(),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        identity,
        speech,
        segment_index,
        steps,
        guidance,
        sampler,
        seed,
        positive=None,
        motion=None,
        guidance_start=0.0,
        guidance_end=1.0,
    ) -> io.NodeOutput:
        clip = ClipTime(segments=1, steps=steps, decoding=0)
        latent = sample_segment(
            model,
            *condition(model, identity, speech, segment_index, positive, motion),
            seed=(seed + segment_index) % 2**64,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            interval=(guidance_start, guidance_end),
            index=segment_index,
            clip=clip,
        )
        clip.done("sampled")
        samples = write_new_frames(latent["samples"], speech.new_frames(segment_index))
        return io.NodeOutput(latent | {"samples": samples}, segment_sound(speech, segment_index))
