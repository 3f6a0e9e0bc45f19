"""The shipped workflows that finish a video or change it, for `graphs.py`."""

from parts import (
    FILES,
    LOADED,
    Group,
    Workflow,
    animate,
    encode_speech,
    note,
    redub,
    restoring,
    save,
    turn_sound,
)

FINISHING = {
    "5 Finish": Workflow(
        {
            **LOADED,
            "note": note(0, 500, FILES),
            "landmarker": (
                "LoadMediaPipeFaceLandmarker",
                (1, 1),
                {"model_name": "mediapipe_face_fp32.safetensors"},
                {},
            ),
            "landmarks": (
                "MediaPipeFaceLandmarker",
                (2, 1),
                {},
                {"face_detection_model": "landmarker", "image": "portrait"},
            ),
            "mask": ("MediaPipeFaceMask", (3, 1), {}, {"face_landmarks": "landmarks"}),
            "sound": (LOADED["sound"][0], (1, 2), *LOADED["sound"][2:]),
            "speech": (LOADED["speech"][0], (2, 2), *LOADED["speech"][2:]),
            "face": (LOADED["face"][0], 3, *LOADED["face"][2:]),
            "identity": (LOADED["identity"][0], 4, {}, LOADED["identity"][3] | {"mask": "mask"}),
            "animate": animate(5),
            "restorers": note(
                (6, 1),
                220,
                "ComfyUI has no face restorers. If another pack has one, put it here, between the "
                "frames of Animate Portrait and the upscaler.\n\nThis workflow keeps all frames "
                "in memory: 25 for each second. After a 4x upscaler they are 16 times as large.",
            ),
            "upscaler": (
                "UpscaleModelLoader",
                6,
                {"model_name": "RealESRGAN_x4plus.safetensors"},
                {},
            ),
            "upscale": (
                "ImageUpscaleWithModel",
                7,
                {},
                {"upscale_model": "upscaler", "image": "animate"},
            ),
            "halve": (
                "ImageScaleBy",
                8,
                {"upscale_method": "area", "scale_by": 0.5},
                {"image": "upscale"},
            ),
            "before": ("GetImageSize", (10, 1), {}, {"image": "animate"}),
            "interpolator": (
                "FrameInterpolationModelLoader",
                (8, 1),
                {"model_name": "film_net_fp16.safetensors"},
                {},
            ),
            "interpolate": (
                "FrameInterpolate",
                (9, 1),
                {"multiplier": 2},
                {"interp_model": "interpolator", "images": "halve"},
            ),
            "after": ("GetImageSize", (10, 1), {}, {"image": "interpolate"}),
            "rate": (
                "ComfyMathExpression",
                (11, 1),
                {"expression": "25 * round(b / a)"},
                {"values.a": "before.2", "values.b": "after.2"},
            ),
            "frames": note(
                (11, 1),
                120,
                "The frame rate is computed from the number of frames before and after the "
                "interpolation. So you can switch interpolation on and off.",
            ),
            "frames' files": note(
                (13, 1),
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
                12,
                {},
                {"images": "interpolate", "audio": "animate.1", "fps": "rate"},
            ),
            "save": save("video", 13),
        },
        groups=(
            Group("Face mask (needs a file)", ("landmarker", "landmarks", "mask"), bypassed=True),
            Group("Upscale (needs a file)", ("upscaler", "upscale", "halve"), bypassed=True),
            Group("Interpolate (needs a file)", ("interpolator", "interpolate"), bypassed=True),
            Group("Frame rate", ("before", "after", "rate", "frames")),
        ),
    ),
    "8 Restore the face": Workflow(
        {
            **LOADED,
            "note": note(0, 500, FILES),
            "animate": animate(4),
            **restoring("animate.3", 5),
            "found": ("PreviewImage", 6, {}, {"images": "crop.2"}),
            "files": note(
                (8, 1),
                400,
                "Crop Face follows the face and gives a square of it for each frame. Paste Face "
                "puts the squares back. Outside them, every pixel stays as it was.\n\n"
                "The group is bypassed, because it needs a file. Download it (the node has a "
                "link), select the nodes of the group and press Ctrl+B.\n\n"
                "- models/upscale_models: RealESRGAN_x4plus.safetensors, or any other upscaler or "
                "face restorer\n\n"
                "To restore another video, put Load Video in the place of Animate Portrait, at "
                "both inputs called frames.",
            ),
            "save": save("paste", 8),
        },
        groups=(
            Group("Crop and paste", ("crop", "found", "paste")),
            Group("Restore (needs a file)", ("upscaler", "restore"), bypassed=True),
        ),
    ),
    "9 New words": Workflow(
        {
            **LOADED,
            "note": note(
                0,
                560,
                "A video gets other words. Redub makes only the mouth again, and puts it back into "
                "the frames. Here the video is that of Animate Portrait, with the first half of "
                "the speech, and the other words are its second half. To use a video of your "
                "own, connect Load Video to frames in the place of Animate Portrait.\n\n" + FILES,
            ),
            **{f"half {i}": turn_sound(i, (2, 1), 2.56) for i in range(2)},
            "speech": encode_speech("half 0", (3, 1)),
            "words": encode_speech("half 1", (3, 1)),
            "animate": animate(4),
            "redub": redub("animate.3", 5, speech="words"),
            "save": save("redub.3", 6),
        },
    ),
}
