"""The shipped workflows, for `draw.py`."""

from parts import (
    BUILT_IN,
    FILES,
    GUIDANCE,
    LOADED,
    SAMPLER,
    STEPS,
    WHO,
    Group,
    Workflow,
    animate,
    blend,
    create,
    decode,
    encode_speech,
    extend,
    note,
    sample,
    save,
    speaker,
    turn_sound,
)
from redubbing import REDUBBING

WORKFLOWS = {
    "1 Quick start": Workflow(
        {
            **LOADED,
            "note": note(
                0,
                500,
                "This makes one segment of 1.88 s. Choose it with segment_index.\n\n" + FILES,
            ),
            "sample": sample(0, 3),
            "decode": decode("sample", 3),
            "video": create("decode", "sample.1", 4),
            "save": save("video", 4),
        },
    ),
    "2 Any length": Workflow(
        {
            **LOADED,
            "note": note(
                0,
                520,
                "This animates the whole speech. You may stop at any time and run again: finished "
                "segments are kept.\n\n" + FILES,
            ),
            "animate": animate(3),
            "save": save("animate.3", 4),
        },
    ),
    "3 Three segments by hand": Workflow(
        {
            **LOADED,
            "note": note(
                0,
                540,
                "The last two frames of each segment are blended with the portrait before the "
                "next segment. This keeps the colours steady. You can use any other image "
                "node instead.\n\n" + FILES,
            ),
            "sample 0": sample(0, 3),
            "decode 0": decode("sample 0", 3),
            "blend 0": blend("decode 0.0", 3),
            "extend 1": extend(1, "blend 0", 3),
            "sample 1": sample(1, 4, motion="extend 1"),
            "decode 1": decode("sample 1", 4, previous_frames="decode 0"),
            "blend 1": blend("decode 1.0", 4),
            "extend 2": extend(2, "blend 1", 4),
            "sample 2": sample(2, 5, motion="extend 2"),
            "decode 2": decode("sample 2", 5, previous_frames="decode 1"),
            "join": (
                "BatchImagesNode",
                6,
                {},
                {f"images.image{i}": f"decode {i}" for i in range(3)},
            ),
            "video": create("join", "sound", 6),
            "save": save("video", 6),
        },
    ),
    "4 Stock samplers": Workflow(
        {
            **LOADED,
            "note": note(
                0,
                560,
                "Segment Conditioning prepares a segment for any sampler of ComfyUI. Hallo3 "
                "Sampler and Hallo3 Scheduler sample as Sample Segment does. In KSampler below, "
                "guidance is called cfg.\n\n" + FILES,
            ),
            "segment": (
                "Hallo3SegmentConditioning",
                3,
                {"segment_index": 0},
                {"model": "dit", **WHO},
            ),
            "sampler": ("Hallo3Sampler", 3, {"sampler": SAMPLER}, {}),
            "sigmas": ("Hallo3Scheduler", 3, {"steps": STEPS}, {"model": "dit"}),
            "noise": ("RandomNoise", 3, {}, {"noise_seed": "seed"}),
            "guider": (
                "CFGGuider",
                4,
                {"cfg": GUIDANCE},
                {"model": "dit", "positive": "segment", "negative": "segment.1"},
            ),
            "custom": (
                "SamplerCustomAdvanced",
                4,
                {},
                {
                    "noise": "noise",
                    "guider": "guider",
                    "sampler": "sampler",
                    "sigmas": "sigmas",
                    "latent_image": "segment.2",
                },
            ),
            "ksampler": (
                "KSampler",
                4,
                {
                    "steps": STEPS,
                    "cfg": GUIDANCE,
                    "sampler_name": "euler",
                    "scheduler": "simple",
                },
                {
                    "model": "dit",
                    "positive": "segment",
                    "negative": "segment.1",
                    "latent_image": "segment.2",
                    "seed": "seed",
                },
            ),
            "decode": decode("custom", 5),
            "video": create("decode", "segment.3", 5),
            "save": save("video", 5),
            "decode 2": decode("ksampler", 5),
            "preview": ("PreviewImage", 5, {}, {"images": "decode 2"}),
        },
    ),
    "5 Finish": Workflow(
        {
            **LOADED,
            "note": note(0, 500, FILES),
            "landmarker": (
                "LoadMediaPipeFaceLandmarker",
                1,
                {"model_name": "mediapipe_face_fp32.safetensors"},
                {},
            ),
            "landmarks": (
                "MediaPipeFaceLandmarker",
                1,
                {},
                {"face_detection_model": "landmarker", "image": "portrait"},
            ),
            "mask": ("MediaPipeFaceMask", 1, {}, {"face_landmarks": "landmarks"}),
            "identity": (*LOADED["identity"][:3], LOADED["identity"][3] | {"mask": "mask"}),
            "animate": animate(3),
            "restorers": note(
                3,
                220,
                "ComfyUI has no face restorers. If another pack has one, put it here, between the "
                "frames of Animate Portrait and the upscaler.\n\nThis workflow keeps all frames "
                "in memory: 25 for each second. After a 4x upscaler they are 16 times as large.",
            ),
            "upscaler": (
                "UpscaleModelLoader",
                4,
                {"model_name": "RealESRGAN_x4plus.safetensors"},
                {},
            ),
            "upscale": (
                "ImageUpscaleWithModel",
                4,
                {},
                {"upscale_model": "upscaler", "image": "animate"},
            ),
            "halve": (
                "ImageScaleBy",
                4,
                {"upscale_method": "area", "scale_by": 0.5},
                {"image": "upscale"},
            ),
            "before": ("GetImageSize", 4, {}, {"image": "animate"}),
            "interpolator": (
                "FrameInterpolationModelLoader",
                5,
                {"model_name": "film_net_fp16.safetensors"},
                {},
            ),
            "interpolate": (
                "FrameInterpolate",
                5,
                {"multiplier": 2},
                {"interp_model": "interpolator", "images": "halve"},
            ),
            "after": ("GetImageSize", 5, {}, {"image": "interpolate"}),
            "rate": (
                "ComfyMathExpression",
                5,
                {"expression": "25 * round(b / a)"},
                {"values.a": "before.2", "values.b": "after.2"},
            ),
            "frames": note(
                5,
                120,
                "The frame rate is computed from the number of frames before and after the "
                "interpolation. So you can switch interpolation on and off.",
            ),
            "frames' files": note(
                6,
                300,
                "This uses ComfyUI's own nodes before and after Animate Portrait. The three "
                "groups are bypassed, because each needs a file. Download the file (the node has "
                "a link), select the nodes of the group and press Ctrl+B.\n\n"
                "- models/detection: mediapipe_face_fp32.safetensors\n"
                "- models/upscale_models: RealESRGAN_x4plus.safetensors, or any other\n"
                "- models/frame_interpolation: film_net_fp16.safetensors, or RIFE",
            ),
            "video": (
                "CreateVideo",
                6,
                {},
                {"images": "interpolate", "audio": "animate.1", "fps": "rate"},
            ),
            "save": save("video", 6),
        },
        groups=(
            Group("Face mask (needs a file)", ("landmarker", "landmarks", "mask")),
            Group("Upscale (needs a file)", ("upscaler", "upscale", "halve")),
            Group("Interpolate (needs a file)", ("interpolator", "interpolate")),
        ),
    ),
    "6 Group and song": Workflow(
        {
            **LOADED,
            "note": note(0, 500, FILES),
            "portrait": ("LoadImage", 1, {"image": "hallo3_group.png"}, {}),
            "sound": ("LoadAudio", 1, {"audio": "hallo3_song.wav"}, {}),
            "vocals": (
                "Hallo3IsolateVocals",
                1,
                {"model_name": "none: pass the sound on"},
                {"audio": "sound"},
            ),
            "face": ("Hallo3FindFace", 2, {"face_index": 1}, {"image": "portrait"}),
            "identity": (*LOADED["identity"][:2], {"fit": "crop"}, LOADED["identity"][3]),
            "speech": (
                "Hallo3EncodeSpeech",
                2,
                {},
                {"audio": "vocals", "speech_encoder": "wav2vec2"},
            ),
            "animate": animate(3, soundtrack="sound"),
            "found": ("PreviewImage", 3, {}, {"images": "face.1"}),
            "song": note(
                4,
                560,
                "One face of a group picture sings. Find Face shows a number at each face, Encode "
                "Identity crops around the chosen face, and Isolate Vocals separates the voice "
                "from the music. The video has the whole song.\n\n"
                "Isolate Vocals is set to none here, because the music of this song is soft. With "
                "loud music, the lips move to the music too. To isolate the voice, run\n\n"
                "```\npip install onnxruntime\n```\n\n"
                "and choose\n- models/audio_separation: Kim_Vocal_2.onnx\n\n"
                "Without InsightFace, only frontal faces are found. To install it, run\n\n"
                "```\npip install insightface\n```\n\n"
                "and get the files\n"
                "- models/insightface/models/antelopev2: scrfd_10g_bnkps.onnx, glintr100.onnx",
            ),
            "save": save("animate.3", 4),
        },
    ),
    "7 Dialogue": Workflow(
        {
            "dit": ("Hallo3LoadDiT", 0, {"model_name": f"{BUILT_IN}, two people"}, {}),
            **{name: LOADED[name] for name in ("vae", "wav2vec2", "seed")},
            "note": note(
                0,
                560,
                "Two people talk in four turns. Find Face finds where each is. Each turn has a "
                "Speaker: what is said, and the mask of who says it. Dialogue lays the turns one "
                "after the other. Here all turns are parts of one sound; connect your own "
                "sounds.\n\n" + FILES,
            ),
            "portrait": ("LoadImage", 1, {"image": "hallo3_pair.png"}, {}),
            "left": ("Hallo3FindFace", 1, {"face_index": 0}, {"image": "portrait"}),
            "right": ("Hallo3FindFace", 1, {"face_index": 1}, {"image": "portrait"}),
            "identity": (
                "Hallo3EncodeIdentity",
                1,
                {},
                {key: LOADED["identity"][3][key] for key in ("image", "vae", "reference_network")}
                | {"seed": "seed"},
            ),
            "sound": ("LoadAudio", 2, {"audio": "hallo3_speech.wav"}, {}),
            **{f"part {i}": turn_sound(i, 2) for i in range(4)},
            **{f"speech {i}": encode_speech(f"part {i}", 3) for i in range(4)},
            **{
                f"speaker {i}": speaker(f"speech {i}", ("left", "right")[i % 2], 4)
                for i in range(4)
            },
            "speech": (
                "Hallo3Dialogue",
                5,
                {"order": "in turns"},
                {f"speakers.speaker_{i}": f"speaker {i}" for i in range(4)},
            ),
            "animate": animate(5),
            "save": save("animate.3", 6),
        },
    ),
    **REDUBBING,
}
