"""The shipped workflows, for `draw.py`."""

from finishing import FINISHING
from parts import (
    FILES,
    GUIDANCE,
    LOADED,
    PAIR,
    SAMPLER,
    STEPS,
    TWO_PEOPLE,
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

WORKFLOWS = {
    "1 Quick start": Workflow(
        {
            **LOADED,
            "note": note(
                0,
                500,
                "This makes one segment of 1.88 s. Choose it with segment_index.\n\n" + FILES,
            ),
            "sample": sample(0, 4),
            "decode": decode("sample", 5),
            "video": create("decode", "sample.1", 6),
            "save": save("video", 7),
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
            "animate": animate(4),
            "save": save("animate.3", 5),
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
            "sample 0": sample(0, 4),
            "decode 0": decode("sample 0", 5),
            "blend 0": blend("decode 0.0", 6),
            "extend 1": extend(1, "blend 0", 7),
            "sample 1": sample(1, 8, motion="extend 1"),
            "decode 1": decode("sample 1", 9, previous_frames="decode 0"),
            "blend 1": blend("decode 1.0", 10),
            "extend 2": extend(2, "blend 1", 11),
            "sample 2": sample(2, 12, motion="extend 2"),
            "decode 2": decode("sample 2", 13, previous_frames="decode 1"),
            "join": (
                "BatchImagesNode",
                14,
                {},
                {f"images.image{i}": f"decode {i}" for i in range(3)},
            ),
            "video": create("join", "sound", 15),
            "save": save("video", 16),
        },
        groups=(
            Group("Segment 1", ("sample 0", "decode 0")),
            Group("Segment 2", ("blend 0", "extend 1", "sample 1", "decode 1")),
            Group("Segment 3", ("blend 1", "extend 2", "sample 2", "decode 2")),
        ),
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
                4,
                {"segment_index": 0},
                {"model": "dit", **WHO},
            ),
            "noise": ("RandomNoise", 5, {}, {"noise_seed": "seed"}),
            "guider": (
                "CFGGuider",
                5,
                {"cfg": GUIDANCE},
                {"model": "dit", "positive": "segment", "negative": "segment.1"},
            ),
            "sampler": ("Hallo3Sampler", 5, {"sampler": SAMPLER}, {}),
            "sigmas": ("Hallo3Scheduler", 5, {"steps": STEPS}, {"model": "dit"}),
            "custom": (
                "SamplerCustomAdvanced",
                6,
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
                (5, 1),
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
            "decode": decode("custom", 7),
            "video": create("decode", "segment.3", 8),
            "save": save("video", 9),
            "decode 2": decode("ksampler", (6, 1)),
            "preview": ("PreviewImage", (7, 1), {}, {"images": "decode 2"}),
        },
        groups=(
            Group("Segment", ("segment",)),
            Group("Animate", ("noise", "guider", "sampler", "sigmas", "custom", "decode")),
            Group("Animate with KSampler", ("ksampler", "decode 2", "preview")),
        ),
    ),
    "6 Group and song": Workflow(
        {
            **LOADED,
            "note": note(0, 500, FILES),
            "portrait": ("LoadImage", 1, {"image": "hallo3_group.png"}, {}),
            "sound": ("LoadAudio", (1, 1), {"audio": "hallo3_song.wav"}, {}),
            "vocals": (
                "Hallo3IsolateVocals",
                (2, 1),
                {"model_name": "none: pass the sound on"},
                {"audio": "sound"},
            ),
            "face": ("Hallo3FindFace", 2, {"face_index": 1}, {"image": "portrait"}),
            "identity": (*LOADED["identity"][:2], {"fit": "crop"}, LOADED["identity"][3]),
            "speech": (
                "Hallo3EncodeSpeech",
                (3, 1),
                {},
                {"audio": "vocals", "speech_encoder": "wav2vec2"},
            ),
            "animate": animate(4, soundtrack="sound"),
            "found": ("PreviewImage", 3, {}, {"images": "face.1"}),
            "song": note(
                (5, 1),
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
            "save": save("animate.3", 5),
        },
        groups=(Group("Portrait", ("portrait", "face", "identity", "found")),),
    ),
    "7 Dialogue": Workflow(
        {
            "dit": ("Hallo3LoadDiT", 0, {"model_name": TWO_PEOPLE}, {}),
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
            **PAIR,
            "sound": ("LoadAudio", (1, 1), {"audio": "hallo3_speech.wav"}, {}),
            **{f"part {i}": turn_sound(i, (2, 1)) for i in range(4)},
            **{f"speech {i}": encode_speech(f"part {i}", (3, 1)) for i in range(4)},
            **{
                f"speaker {i}": speaker(f"speech {i}", ("left", "right")[i % 2], (4, 1))
                for i in range(4)
            },
            "speech": (
                "Hallo3Dialogue",
                (5, 1),
                {"order": "in turns"},
                {f"speakers.speaker_{i}": f"speaker {i}" for i in range(4)},
            ),
            "animate": animate(6),
            "save": save("animate.3", 7),
        },
    ),
    **FINISHING,
}
