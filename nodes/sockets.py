"""What travels between the nodes, and the inputs that several of them have."""

from comfy_api.latest import io

from ..hallo3_core.sampling.samplers import SAMPLERS
from ..hallo3_core.sampling.schedule import TRAINING_STEPS
from ..hallo3_core.settings import Settings

CATEGORY = "Hallo3"

ReferenceNetwork = io.Custom("HALLO3_REFERENCE_NETWORK")
SpeechEncoder = io.Custom("HALLO3_SPEECH_ENCODER")
FaceSocket = io.Custom("HALLO3_FACE")
IdentitySocket = io.Custom("HALLO3_IDENTITY")
SpeechSocket = io.Custom("HALLO3_SPEECH")
MotionSocket = io.Custom("HALLO3_MOTION")


def model_input() -> io.Model.Input:
    return io.Model.Input("model", tooltip="The denoiser, from Load Hallo3 DiT.")


def vae_input() -> io.Vae.Input:
    return io.Vae.Input(
        "vae", tooltip="The CogVideoX VAE, from Load Hallo3 VAE or from the stock Load VAE."
    )


def identity_input() -> io.Input:
    return IdentitySocket.Input("identity", tooltip="Who speaks, from Encode Identity.")


def speech_input() -> io.Input:
    return SpeechSocket.Input("speech", tooltip="What is said, from Encode Speech.")


def prompt_input() -> io.Conditioning.Input:
    return io.Conditioning.Input(
        "positive",
        optional=True,
        tooltip="What the video shows, from CLIP Text Encode (CLIPLoader of type cogvideox) or "
        "Encode Prompt. Without it no text steers the video.",
    )


def segment_index_input(of: str, name: str = "segment_index") -> io.Int.Input:
    return io.Int.Input(name, default=0, min=0, max=99_999, tooltip=f"{of}; the first is 0.")


def seed_input() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**64 - 1,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip="Link one seed to all nodes of a video; segment_index makes the segments differ.",
    )


def steps_input() -> io.Int.Input:
    return io.Int.Input(
        "steps",
        default=Settings.steps,
        min=1,
        max=TRAINING_STEPS - 1,
        tooltip="Sampling steps of a segment; published is 50.",
    )


def guidance_input() -> io.Float.Input:
    return io.Float.Input(
        "guidance",
        default=Settings.guidance,
        min=0.0,
        max=30.0,
        step=0.1,
        tooltip="How strongly speech and prompt steer; published is 3.5, and 1 is twice as fast.",
    )


def interval_inputs() -> list[io.Float.Input]:
    """Where guidance begins and ends."""
    shares = {"min": 0.0, "max": 1.0, "step": 0.05, "optional": True, "advanced": True}
    return [
        io.Float.Input(
            "guidance_start",
            default=0.0,
            tooltip="Share of the steps before guidance begins; steps without it are twice as "
            "fast. Published is 0.",
            **shares,
        ),
        io.Float.Input(
            "guidance_end",
            default=1.0,
            tooltip="Share of the steps after which guidance ends; the last steps need it least. "
            "Published is 1.",
            **shares,
        ),
    ]


def sampler_input() -> io.Combo.Input:
    return io.Combo.Input(
        "sampler",
        options=list(SAMPLERS),
        default=Settings.sampler,
        tooltip="sde-dpm++2m is the published one; the other two draw no noise on the way and "
        "need fewer steps.",
    )
