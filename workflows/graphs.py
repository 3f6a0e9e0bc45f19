"""What is on the shipped workflows, for `draw.py`.

A node is (type, place, widgets, links); a link names the node that it comes from, and after a dot
which of its outputs.
"""

from typing import NamedTuple


class Group(NamedTuple):
    """Nodes in a coloured frame, bypassed because they need files that ComfyUI does not bring."""

    title: str
    nodes: tuple[str, ...]


class Workflow(NamedTuple):
    note: str
    nodes: dict[str, tuple]
    groups: tuple[Group, ...] = ()
    remarks: tuple[tuple[tuple[int, int], tuple[int, int], str], ...] = ()
    """More notes: place, size, text."""


BUILT_IN = "built-in tiny model"

LOADED = {
    "dit": ("Hallo3LoadDiT", (0, 0), {"model_name": BUILT_IN}, {}),
    "vae": ("Hallo3LoadVAE", (0, 160), {"vae_name": BUILT_IN}, {}),
    "wav2vec2": ("Hallo3LoadSpeechEncoder", (0, 290), {"encoder_name": BUILT_IN}, {}),
    "portrait": ("LoadImage", (0, 420), {"image": "hallo3_portrait.png"}, {}),
    "sound": ("LoadAudio", (0, 800), {"audio": "hallo3_speech.wav"}, {}),
    "face": ("Hallo3FindFace", (340, 500), {"face_index": 0}, {"image": "portrait"}),
    "identity": (
        "Hallo3EncodeIdentity",
        (340, 0),
        {"seed": 0},
        {"image": "portrait", "vae": "vae", "reference_network": "dit.1", "face": "face"},
    ),
    "speech": (
        "Hallo3EncodeSpeech",
        (340, 340),
        {},
        {"audio": "sound", "speech_encoder": "wav2vec2"},
    ),
}
WHO = {"identity": "identity", "speech": "speech"}
FILES = """Runs as it is, on the built-in tiny model, which knows only drawn faces.

For the real thing choose in the three loaders what `hallo3_core download ComfyUI/models` brings:
- models/diffusion_models: hallo3/1/mp_rank_00_model_states.pt
- models/vae: hallo3/3d-vae.pt
- models/audio_encoders: wav2vec2-base-960h

or the smaller files that `hallo3_core convert` makes of them (see the README).

Example files: python -m hallo3_core examples ComfyUI/input"""

DOWNLOADS = {
    "Hallo3LoadDiT": (
        "diffusion_models",
        "fudan-generative-ai/hallo3/resolve/main/hallo3/1/mp_rank_00_model_states.pt",
    ),
    "Hallo3LoadVAE": (
        "vae",
        "fudan-generative-ai/hallo3/resolve/main/cogvideox-5b-i2v-sat/vae/3d-vae.pt",
    ),
    "Hallo3LoadSpeechEncoder": (
        "audio_encoders",
        "facebook/wav2vec2-base-960h/resolve/main/model.safetensors",
    ),
    "LoadMediaPipeFaceLandmarker": (
        "detection",
        "Comfy-Org/mediapipe/resolve/main/detection/mediapipe_face_fp32.safetensors",
    ),
    "UpscaleModelLoader": (
        "upscale_models",
        "Comfy-Org/Real-ESRGAN_repackaged/resolve/main/RealESRGAN_x4plus.safetensors",
    ),
    "FrameInterpolationModelLoader": (
        "frame_interpolation",
        "Comfy-Org/frame_interpolation/resolve/main/frame_interpolation/film_net_fp16.safetensors",
    ),
}
"""Folder and place on huggingface.co of the file that a loader asks for."""


def sample(index: int, at: tuple[int, int], **links: str) -> tuple:
    settings = {"segment_index": index, "steps": 10, "seed": 0}
    return ("Hallo3SampleSegment", at, settings, {"model": "dit", **WHO, **links})


def decode(latent: str, at: tuple[int, int], **links: str) -> tuple:
    links |= {"latent": latent, "vae": "vae", "identity": "identity"}
    return ("Hallo3DecodeVAE", at, {}, links)


def extend(index: int, frames: str, at: tuple[int, int]) -> tuple:
    settings = {"segment_index": index, "seed": 0}
    links = {"frames": frames, "identity": "identity", "vae": "vae"}
    return ("Hallo3ExtendWithMotionFrames", at, settings, links)


def save(frames: str, at: tuple[int, int]) -> dict:
    x, y = at
    return {
        "video": ("CreateVideo", at, {"fps": 25}, {"images": frames, "audio": "sound"}),
        "save": ("SaveVideo", (x + 290, y), {"filename_prefix": "hallo3"}, {"video": "video"}),
    }


WORKFLOWS = {
    "1 Quick start": Workflow(
        "One segment of 1.88 s.\n\n" + FILES,
        {
            **LOADED,
            "sample": sample(0, (680, 0)),
            "decode": decode("sample", (1020, 0)),
            **save("decode", (1020, 180)),
        },
    ),
    "2 Any length": Workflow(
        "The whole speech. Stop whenever you like and queue again: finished segments are kept.\n\n"
        + FILES,
        {
            **LOADED,
            "animate": (
                "Hallo3AnimatePortrait",
                (680, 0),
                {"steps": 10, "seed": 0},
                {"model": "dit", "vae": "vae", **WHO},
            ),
            "save": (
                "SaveVideo",
                (1040, 0),
                {"filename_prefix": "hallo3"},
                {"video": "animate.3"},
            ),
        },
    ),
    "3 Three segments by hand": Workflow(
        "The motion frames pass through a blend with the portrait on their way to the next "
        "segment, which holds its colours; put any image node there.\n\n" + FILES,
        {
            **LOADED,
            "sample 0": sample(0, (680, 0)),
            "decode 0": decode("sample 0", (680, 420)),
            "blend 0": (
                "ImageBlend",
                (680, 560),
                {"blend_factor": 0.1},
                {"image1": "decode 0.0", "image2": "identity.1"},
            ),
            "extend 1": extend(1, "blend 0", (680, 740)),
            "sample 1": sample(1, (1020, 0), motion="extend 1"),
            "decode 1": decode("sample 1", (1020, 420), previous_frames="decode 0"),
            "blend 1": (
                "ImageBlend",
                (1020, 560),
                {"blend_factor": 0.1},
                {"image1": "decode 1.0", "image2": "identity.1"},
            ),
            "extend 2": extend(2, "blend 1", (1020, 740)),
            "sample 2": sample(2, (1360, 0), motion="extend 2"),
            "decode 2": decode("sample 2", (1360, 420), previous_frames="decode 1"),
            "join": (
                "BatchImagesNode",
                (1360, 560),
                {},
                {f"images.image{i}": f"decode {i}" for i in range(3)},
            ),
            **save("join", (1360, 720)),
        },
    ),
    "4 Stock samplers": Workflow(
        "Segment Conditioning hands a segment to any sampler of ComfyUI. Above, Hallo3 Sampler and "
        "Scheduler give the published sampling; below, KSampler.\n\n" + FILES,
        {
            **LOADED,
            "segment": (
                "Hallo3SegmentConditioning",
                (680, 0),
                {"segment_index": 0},
                {"model": "dit", **WHO},
            ),
            "noise": ("RandomNoise", (680, 200), {"noise_seed": 0}, {}),
            "sampler": ("Hallo3Sampler", (680, 320), {}, {}),
            "sigmas": ("Hallo3Scheduler", (680, 420), {"steps": 10}, {"model": "dit"}),
            "guider": (
                "CFGGuider",
                (1020, 0),
                {"cfg": 3.5},
                {"model": "dit", "positive": "segment", "negative": "segment.1"},
            ),
            "custom": (
                "SamplerCustomAdvanced",
                (1020, 180),
                {},
                {
                    "noise": "noise",
                    "guider": "guider",
                    "sampler": "sampler",
                    "sigmas": "sigmas",
                    "latent_image": "segment.2",
                },
            ),
            "decode": decode("custom", (1020, 360)),
            **save("decode", (1020, 500)),
            "ksampler": (
                "KSampler",
                (680, 560),
                {"steps": 10, "cfg": 3.5, "sampler_name": "dpmpp_2m_sde", "seed": 0},
                {
                    "model": "dit",
                    "positive": "segment",
                    "negative": "segment.1",
                    "latent_image": "segment.2",
                },
            ),
            "decode 2": decode("ksampler", (1020, 850)),
            "preview": ("PreviewImage", (1320, 850), {}, {"images": "decode 2"}),
        },
    ),
    "5 Finish": Workflow(
        "Stock nodes before and after. The three frames are bypassed, because each needs a file: "
        "download it (the node says from where), select the frame's nodes and press Ctrl+B.\n\n"
        "- models/detection: mediapipe_face_fp32.safetensors\n"
        "- models/upscale_models: RealESRGAN_x4plus.safetensors, or any other\n"
        "- models/frame_interpolation: film_net_fp16.safetensors, or RIFE\n\n" + FILES,
        {
            **LOADED,
            "landmarker": (
                "LoadMediaPipeFaceLandmarker",
                (0, 1080),
                {"model_name": "mediapipe_face_fp32.safetensors"},
                {},
            ),
            "landmarks": (
                "MediaPipeFaceLandmarker",
                (390, 1080),
                {},
                {"face_detection_model": "landmarker", "image": "portrait"},
            ),
            "mask": ("MediaPipeFaceMask", (760, 1080), {}, {"face_landmarks": "landmarks"}),
            "identity": (*LOADED["identity"][:3], LOADED["identity"][3] | {"mask": "mask"}),
            "animate": (
                "Hallo3AnimatePortrait",
                (680, 0),
                {"steps": 10, "seed": 0},
                {"model": "dit", "vae": "vae", **WHO},
            ),
            "upscaler": (
                "UpscaleModelLoader",
                (1060, 0),
                {"model_name": "RealESRGAN_x4plus.safetensors"},
                {},
            ),
            "upscale": (
                "ImageUpscaleWithModel",
                (1060, 130),
                {},
                {"upscale_model": "upscaler", "image": "animate"},
            ),
            "halve": (
                "ImageScaleBy",
                (1060, 240),
                {"upscale_method": "area", "scale_by": 0.5},
                {"image": "upscale"},
            ),
            "interpolator": (
                "FrameInterpolationModelLoader",
                (1400, 0),
                {"model_name": "film_net_fp16.safetensors"},
                {},
            ),
            "interpolate": (
                "FrameInterpolate",
                (1400, 130),
                {"multiplier": 2},
                {"interp_model": "interpolator", "images": "halve"},
            ),
            "before": ("GetImageSize", (1060, 460), {}, {"image": "animate"}),
            "after": ("GetImageSize", (1400, 460), {}, {"image": "interpolate"}),
            "rate": (
                "ComfyMathExpression",
                (1400, 620),
                {"expression": "25 * round(b / a)"},
                {"values.a": "before.2", "values.b": "after.2"},
            ),
            "video": (
                "CreateVideo",
                (1740, 0),
                {},
                {"images": "interpolate", "audio": "animate.1", "fps": "rate"},
            ),
            "save": ("SaveVideo", (1740, 200), {"filename_prefix": "hallo3"}, {"video": "video"}),
        },
        groups=(
            Group("Face mask (needs a file)", ("landmarker", "landmarks", "mask")),
            Group("Upscale (needs a file)", ("upscaler", "upscale", "halve")),
            Group("Interpolate (needs a file)", ("interpolator", "interpolate")),
        ),
        remarks=(
            (
                (680, 480),
                (310, 200),
                "Face restorers are not part of ComfyUI. Those of other packs go here: between "
                "the frames of Animate Portrait and the upscaler.\n\nFrames are held in memory "
                "here: 25 a second, and 16 times as large after an upscaler of 4x.",
            ),
            (
                (1060, 620),
                (300, 120),
                "Frames after / frames before gives the rate, so that interpolation can be "
                "switched on and off.",
            ),
        ),
    ),
    "6 Group and song": Workflow(
        "One face of a group picture sings: Find Face numbers the faces in its preview, Encode "
        "Identity crops around the chosen one, Isolate Vocals takes the voice out of the music, "
        "and the video has the whole song.\n\n- models/audio_separation: Kim_Vocal_2.onnx, "
        "with `pip install onnxruntime`; without it choose none, and the song is heard as it is\n"
        "- models/insightface/models/antelopev2: scrfd_10g_bnkps.onnx, glintr100.onnx, with `pip "
        "install insightface`; without them frontal faces are found\n\n" + FILES,
        {
            **LOADED,
            "portrait": ("LoadImage", (0, 420), {"image": "hallo3_group.png"}, {}),
            "sound": ("LoadAudio", (0, 800), {"audio": "hallo3_song.wav"}, {}),
            "face": ("Hallo3FindFace", (340, 500), {"face_index": 1}, {"image": "portrait"}),
            "found": ("PreviewImage", (680, 400), {}, {"images": "face.1"}),
            "identity": (
                "Hallo3EncodeIdentity",
                (340, 0),
                {"seed": 0, "fit": "crop"},
                LOADED["identity"][3],
            ),
            "vocals": (
                "Hallo3IsolateVocals",
                (0, 1010),
                {"model_name": "none: pass the sound on"},
                {"audio": "sound"},
            ),
            "speech": (
                "Hallo3EncodeSpeech",
                (340, 340),
                {},
                {"audio": "vocals", "speech_encoder": "wav2vec2"},
            ),
            "animate": (
                "Hallo3AnimatePortrait",
                (680, 0),
                {"steps": 10, "seed": 0},
                {"model": "dit", "vae": "vae", **WHO, "soundtrack": "sound"},
            ),
            "save": (
                "SaveVideo",
                (1040, 0),
                {"filename_prefix": "hallo3"},
                {"video": "animate.3"},
            ),
        },
    ),
}
