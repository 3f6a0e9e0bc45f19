"""The types that travel between the nodes, and the inputs that several nodes have."""

from comfy_api.latest import io

CATEGORY = "Hallo3"

ReferenceNetwork = io.Custom("HALLO3_REFERENCE_NETWORK")
SpeechEncoder = io.Custom("HALLO3_SPEECH_ENCODER")
FaceSocket = io.Custom("HALLO3_FACE")
IdentitySocket = io.Custom("HALLO3_IDENTITY")
SpeechSocket = io.Custom("HALLO3_SPEECH")
SpeakerSocket = io.Custom("HALLO3_SPEAKER")
MotionSocket = io.Custom("HALLO3_MOTION")
TrackSocket = io.Custom("HALLO3_FACE_TRACK")


def model_input() -> io.Model.Input:
    return io.Model.Input("model", tooltip="The denoiser, from Load Hallo3 DiT.")


def vae_input() -> io.Vae.Input:
    return io.Vae.Input(
        "vae", tooltip="The CogVideoX VAE, from Load Hallo3 VAE or ComfyUI's own Load VAE."
    )


def identity_input() -> io.Input:
    return IdentitySocket.Input("identity", tooltip="Who speaks, from Encode Identity.")


def speech_input() -> io.Input:
    return SpeechSocket.Input("speech", tooltip="What is said, from Encode Speech or Dialogue.")


def prompt_input() -> io.Conditioning.Input:
    return io.Conditioning.Input(
        "positive",
        optional=True,
        tooltip="The prompt: what the video shows. Connect CLIP Text Encode (with CLIPLoader, type "
        "cogvideox) or Encode Prompt. Without a connection, there is no prompt.",
    )


def segment_index_input(tooltip: str) -> io.Int.Input:
    return io.Int.Input("segment_index", default=0, min=0, max=99_999, tooltip=tooltip)


def length_outputs() -> list[io.Output]:
    """How long the video of a speech is."""
    return [
        io.Int.Output(
            display_name="frames", tooltip="How many frames the video has, at 25 frames a second."
        ),
        io.Int.Output(
            display_name="segments",
            tooltip="How many segments the video has. A segment has 47 frames.",
        ),
    ]
