"""The subgraph blueprints of the pack, for `draw_blueprints.py`: parts of the shipped workflows.

A blueprint is a graph with open ends. A link that names no node of it, such as "portrait", comes
from the input of that name. An input may also name what it sets: "animate.steps" is the input
`steps` of the node `animate`. If that has a widget, the blueprint shows the widget.
"""

from typing import NamedTuple

from parts import LOADED, PAIR, TWO_PEOPLE, animate, create, encode_speech, redub, restoring, save
from parts import speaker as speaker_of

OPEN = ""
"""What an input sets that has the name of links."""


class Blueprint(NamedTuple):
    description: str
    nodes: dict[str, tuple]
    inputs: dict[str, str]
    """What each input sets."""
    outputs: dict[str, str]
    """Where each output comes from."""

    def targets(self, name: str) -> list[tuple[str, str]]:
        """The nodes that an input goes to, and the names of their inputs."""
        if wanted := self.inputs[name]:
            node, _, input = wanted.partition(".")
            return [(node, input)]
        links = [(key, *link) for key, node in self.nodes.items() for link in node[3].items()]
        return [(key, input) for key, input, source in links if source == name]

    def closed(self) -> dict[str, tuple]:
        """The nodes with only the links between them."""
        ends = {name for name, wanted in self.inputs.items() if wanted == OPEN}
        return {
            key: (*node[:3], {name: to for name, to in node[3].items() if to not in ends})
            for key, node in self.nodes.items()
        }


def loaded(*without: str) -> dict[str, tuple]:
    """What every workflow begins with, except some nodes and the seed."""
    return {key: node for key, node in LOADED.items() if key not in (*without, "seed")}


def sampling(node: str) -> dict[str, str]:
    first, last = ("steps", "guidance", "sampler"), ("speech_strength", "identity_strength")
    of = {name: f"{node}.{name}" for name in (*first, *last)}
    return {name: of.get(name, OPEN) for name in (*first, "seed", *last)}


MODEL = {
    "model": "dit.model_name",
    "VAE": "vae.vae_name",
    "speech_encoder": "wav2vec2.encoder_name",
}
OPTIONAL = {"mask": "identity.mask", "prompt": "animate.positive"}
FACE = {"face_index": "face.face_index", "fit": "identity.fit"}
SETTINGS = {**MODEL, **FACE, **sampling("animate")}
SPEAKS = loaded("portrait", "sound") | {"animate": animate(4)}
MADE = {"video": "animate.3", "frames": "animate.0", "audio": "animate.1"}

BLUEPRINTS = {
    "Talking Portrait (Hallo3)": Blueprint(
        "A video of a portrait that speaks, from a picture file and a sound file: drop both on it. "
        "This is the whole job in one node, and it saves the video. The built-in model knows only "
        "drawn faces.",
        loaded() | {"animate": animate(4), "save": save("animate.3", 5)},
        {
            "picture": "portrait.image",
            "sound": "sound.audio",
            **SETTINGS,
            "file_name": "save.filename_prefix",
        },
        {"video": "animate.3"},
    ),
    "Portrait and Speech to Video (Hallo3)": Blueprint(
        "A video of a portrait that speaks, from a picture and a sound of other nodes, or from two "
        "files that you drop on it. The built-in model knows only drawn faces.",
        SPEAKS,
        {"portrait": OPEN, "sound": OPEN, **OPTIONAL, **SETTINGS},
        MADE,
    ),
    "Continue a Video (Hallo3)": Blueprint(
        "A longer video: after its last frame, the person in it goes on with other words. The "
        "video must have 25 frames a second, as those of Hallo3 have.",
        {
            "end": ("Video Slice", -1, {"start_time": -0.5}, {"video": "video"}),
            "last": ("GetVideoComponents", 0, {}, {"video": "end"}),
            "portrait": ("ImageFromBatch", 1, {"batch_index": -1, "length": 1}, {"image": "last"}),
            **SPEAKS,
            "before": ("GetVideoComponents", (4, 1), {}, {"video": "video"}),
            "frames": (
                "BatchImagesNode",
                5,
                {},
                {"images.image0": "before", "images.image1": "animate"},
            ),
            "both": (
                "AudioConcat",
                (5, 1),
                {"direction": "after"},
                {"audio1": "before.1", "audio2": "animate.1"},
            ),
            "longer": create("frames", "both", 6),
        },
        {"video": OPEN, "sound": OPEN, **OPTIONAL, **SETTINGS},
        {"longer_video": "longer", "new_part": "animate.3"},
    ),
    "Dialogue of Two (Hallo3)": Blueprint(
        "A video of two people in one picture who talk, from a sound for each. In turns, the "
        "second speaks after the first. Together, both sounds begin at once.",
        {
            "dit": ("Hallo3LoadDiT", 0, {"model_name": TWO_PEOPLE}, {}),
            **{name: LOADED[name] for name in ("vae", "wav2vec2")},
            **PAIR,
            "words 0": encode_speech("first_sound", (3, 1)),
            "words 1": encode_speech("second_sound", (3, 1)),
            "speaker 0": speaker_of("words 0", "left", (4, 1)),
            "speaker 1": speaker_of("words 1", "right", (4, 1)),
            "speech": (
                "Hallo3Dialogue",
                (5, 1),
                {"order": "in turns"},
                {f"speakers.speaker_{i}": f"speaker {i}" for i in range(2)},
            ),
            "animate": animate(6),
        },
        {
            "portrait": OPEN,
            "first_sound": OPEN,
            "second_sound": OPEN,
            "prompt": "animate.positive",
            "order": "speech.order",
            "first_face": "left.face_index",
            "second_face": "right.face_index",
            **MODEL,
            **sampling("animate"),
        },
        MADE,
    ),
    "New Words for a Video (Hallo3)": Blueprint(
        "The video with other words: only the mouth or the face changes, to fit another sound.",
        loaded("portrait", "sound", "face", "identity")
        | {"redub": redub("video", 3, speech="speech")},
        {
            "video": OPEN,
            "sound": OPEN,
            "face_mask": "redub.face_mask",
            "region_mask": "redub.region_mask",
            "prompt": "redub.positive",
            "region": "redub.region",
            "strength": "redub.strength",
            **MODEL,
            **sampling("redub"),
        },
        {"video": "redub.3", "frames": "redub.0", "audio": "redub.1"},
    ),
    "Restore the Face (Hallo3)": Blueprint(
        "The video with a sharper face: an upscaler or a face restorer works on the face only, and "
        "every other pixel stays as it was.",
        restoring("video", 0),
        {
            "video": OPEN,
            "mask": "crop.mask",
            "upscaler": "upscaler.model_name",
            "face_index": "crop.face_index",
            "size": "crop.size",
            "margin": "crop.margin",
            "feather": "paste.feather",
            "match_colours": "paste.match_colours",
        },
        {"video": "paste", "crops": "restore"},
    ),
}
