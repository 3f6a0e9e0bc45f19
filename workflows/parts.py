"""The parts that the shipped workflows share, for `graphs.py`.

A node is (type, place, widgets, links), and may have its own title after these. A link names the
node that it comes from, and the number of the output after a dot. It goes to a later column. A
place is a column, or (column, row); 0 is the first row. Nodes with the same place are one below the
other, in this order.
"""

from typing import NamedTuple


class Group(NamedTuple):
    """Nodes in a coloured frame. They are in one row, and no other node is between them."""

    title: str
    nodes: tuple[str, ...]
    bypassed: bool = False
    """If they need files to be downloaded."""


class Workflow(NamedTuple):
    nodes: dict[str, tuple]
    groups: tuple[Group, ...] = ()
    """Those that `frames.py` does not find by the types of the nodes."""

    @property
    def bypassed(self) -> set[str]:
        """The nodes that do not run until the user has downloaded their files."""
        return {key for group in self.groups if group.bypassed for key in group.nodes}


ROOM = {
    "Hallo3LoadDiT": 80,
    "Hallo3LoadVAE": 70,
    "Hallo3LoadSpeechEncoder": 70,
    "Hallo3FindFace": 330,
    "Hallo3EncodeIdentity": 110,
    "Hallo3EncodeSpeech": 80,
    "Hallo3Speaker": 70,
    "Hallo3Dialogue": 170,
    "Hallo3IsolateVocals": 60,
    "Hallo3SegmentConditioning": 60,
    "Hallo3DecodeVAE": 60,
    "Hallo3SampleSegment": 320,
    "Hallo3AnimatePortrait": 320,
    "Hallo3CropFace": 70,
    "Hallo3PasteFace": 60,
    "Hallo3Redub": 320,
    "KSampler": 260,
    "SamplerCustomAdvanced": 260,
    "GetImageSize": 70,
    "PreviewImage": 260,
    "SaveVideo": 260,
}
"""How much taller a node becomes when it runs, by lines of text, a preview or a result."""

BUILT_IN = "built-in tiny model"
STEPS, GUIDANCE, SAMPLER = 4, 1.0, "few"
"""For the built-in model (docs/built-in-model.md). The nodes have the published defaults."""

LOADED = {
    "dit": ("Hallo3LoadDiT", 0, {"model_name": BUILT_IN}, {}),
    "vae": ("Hallo3LoadVAE", 0, {"vae_name": BUILT_IN}, {}),
    "wav2vec2": ("Hallo3LoadSpeechEncoder", 0, {"encoder_name": BUILT_IN}, {}),
    "seed": ("PrimitiveInt", 0, {"value": 0}, {}, "Seed"),
    "portrait": ("LoadImage", 1, {"image": "hallo3_portrait.png"}, {}),
    "sound": ("LoadAudio", (1, 1), {"audio": "hallo3_speech.wav"}, {}),
    "face": ("Hallo3FindFace", 2, {"face_index": 0}, {"image": "portrait"}),
    "identity": (
        "Hallo3EncodeIdentity",
        3,
        {},
        {
            "image": "portrait",
            "vae": "vae",
            "reference_network": "dit.1",
            "face": "face",
            "seed": "seed",
        },
    ),
    "speech": ("Hallo3EncodeSpeech", (2, 1), {}, {"audio": "sound", "speech_encoder": "wav2vec2"}),
}
"""The nodes that every workflow begins with. One seed is linked to all nodes that use noise."""
WHO = {"identity": "identity", "speech": "speech"}
PAIR = {
    "left": ("Hallo3FindFace", 2, {"face_index": 0}, {"image": "portrait"}),
    "right": ("Hallo3FindFace", 3, {"face_index": 1}, {"image": "portrait"}),
    "identity": (
        "Hallo3EncodeIdentity",
        5,
        {},
        {key: LOADED["identity"][3][key] for key in ("image", "vae", "reference_network", "seed")},
    ),
}
"""Two people in one picture."""
TWO_PEOPLE = f"{BUILT_IN}, two people"
FILES = """This workflow runs as it is, with the built-in tiny model, which knows only drawn faces.

For photographs you need the released model. Run this in the pack's folder, with ComfyUI's Python:

```
python -m hallo3_core download
```

Then choose its files in the three loaders:
- models/diffusion_models: hallo3/1/mp_rank_00_model_states.pt
- models/vae: hallo3/3d-vae.pt
- models/audio_encoders: wav2vec2-base-960h

Set steps to 50, guidance to 3.5 and the sampler to sde-dpm++2m, as in the published program. In
this workflow they are set to 4, 1 and few, the values that the built-in model was distilled for.

To make smaller files (see the README), run

```
python -m hallo3_core convert
```

If the example files are not in your input folder, ComfyUI asks whether to copy them there. Later,
you find this in ComfyUI's menu, under Hallo3."""

DOWNLOADS = {
    "Hallo3LoadDiT": (
        "diffusion_models",
        "hallo3/1/mp_rank_00_model_states.pt",
        "fudan-generative-ai/hallo3/resolve/main/hallo3/1/mp_rank_00_model_states.pt",
    ),
    "Hallo3LoadVAE": (
        "vae",
        "hallo3/3d-vae.pt",
        "fudan-generative-ai/hallo3/resolve/main/cogvideox-5b-i2v-sat/vae/3d-vae.pt",
    ),
    "Hallo3LoadSpeechEncoder": (
        "audio_encoders",
        "wav2vec2-base-960h/model.safetensors",
        "facebook/wav2vec2-base-960h/resolve/main/model.safetensors",
    ),
    "LoadMediaPipeFaceLandmarker": (
        "detection",
        "mediapipe_face_fp32.safetensors",
        "Comfy-Org/mediapipe/resolve/main/detection/mediapipe_face_fp32.safetensors",
    ),
    "UpscaleModelLoader": (
        "upscale_models",
        "RealESRGAN_x4plus.safetensors",
        "Comfy-Org/Real-ESRGAN_repackaged/resolve/main/RealESRGAN_x4plus.safetensors",
    ),
    "FrameInterpolationModelLoader": (
        "frame_interpolation",
        "film_net_fp16.safetensors",
        "Comfy-Org/frame_interpolation/resolve/main/frame_interpolation/film_net_fp16.safetensors",
    ),
}
"""The folder of the file that a loader needs, its name there, and its place on huggingface.co.

ComfyUI offers to download a file that is missing if the loader has exactly this name.
"""


def note(column: int, height: int, text: str) -> tuple:
    return ("MarkdownNote", column, {"height": height, "text": text}, {})


def sample(index: int, column: int, **links: str) -> tuple:
    settings = {"segment_index": index, "steps": STEPS, "guidance": GUIDANCE, "sampler": SAMPLER}
    return (
        "Hallo3SampleSegment",
        column,
        settings,
        {"model": "dit", **WHO, "seed": "seed", **links},
    )


def animate(column: int, **links: str) -> tuple:
    settings = {"steps": STEPS, "guidance": GUIDANCE, "sampler": SAMPLER}
    links = {"model": "dit", "vae": "vae", **WHO, "seed": "seed", **links}
    return ("Hallo3AnimatePortrait", column, settings, links)


def redub(frames: str, column: int, **links: str) -> tuple:
    settings = {"region": "mouth", "steps": STEPS, "guidance": GUIDANCE, "sampler": SAMPLER}
    networks = {"model": "dit", "vae": "vae", "reference_network": "dit.1"}
    links = {**networks, "frames": frames, "seed": "seed", **links}
    return ("Hallo3Redub", column, settings, links)


def restoring(frames: str, column: int) -> dict[str, tuple]:
    """The nodes that restore the face of a video. Two of them need a file."""
    upscaler = {"model_name": "RealESRGAN_x4plus.safetensors"}
    upscaled = {"upscale_model": "upscaler", "image": "crop"}
    pasted = {"frames": frames, "crops": "restore", "track": "crop.1"}
    return {
        "crop": ("Hallo3CropFace", column, {}, {"frames": frames}),
        "upscaler": ("UpscaleModelLoader", (column, 1), upscaler, {}),
        "restore": ("ImageUpscaleWithModel", (column + 1, 1), {}, upscaled),
        "paste": ("Hallo3PasteFace", column + 2, {}, pasted),
    }


def decode(latent: str, column: int, **links: str) -> tuple:
    links |= {"latent": latent, "vae": "vae", "identity": "identity"}
    return ("Hallo3DecodeVAE", column, {}, links)


def blend(frames: str, column: int) -> tuple:
    links = {"image1": frames, "image2": "identity.1"}
    return ("ImageBlend", column, {"blend_factor": 0.1}, links)


def extend(index: int, frames: str, column: int) -> tuple:
    links = {"frames": frames, "identity": "identity", "vae": "vae", "seed": "seed"}
    return ("Hallo3ExtendWithMotionFrames", column, {"segment_index": index}, links)


def encode_speech(sound: str, column: int) -> tuple:
    return ("Hallo3EncodeSpeech", column, {}, {"audio": sound, "speech_encoder": "wav2vec2"})


def turn_sound(index: int, column: int, seconds: float = 1.28) -> tuple:
    """One turn of a dialogue, or other words: a part of the sound."""
    cut = {"start_index": index * seconds, "duration": seconds}
    return ("TrimAudioDuration", column, cut, {"audio": "sound"})


def speaker(speech: str, face: str, column: int) -> tuple:
    return ("Hallo3Speaker", column, {}, {"speech": speech, "mask": f"{face}.2", "face": face})


def create(frames: str, sound: str, column: int) -> tuple:
    return ("CreateVideo", column, {"fps": 25}, {"images": frames, "audio": sound})


def save(video: str, column: int) -> tuple:
    return ("SaveVideo", column, {"filename_prefix": "hallo3"}, {"video": video})
