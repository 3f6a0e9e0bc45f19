"""The frames with titles around the parts of a workflow."""

from itertools import product

from layout import FOOT, HEAD, SIDE, TITLE, Grid, overlaps
from parts import Group, Workflow
from wires import Box

KINDS = {
    "Load": (
        "Hallo3LoadDiT",
        "Hallo3LoadVAE",
        "Hallo3LoadSpeechEncoder",
        "PrimitiveInt",
    ),
    "Portrait": ("LoadImage", "Hallo3FindFace", "Hallo3EncodeIdentity"),
    "Speech": (
        "LoadAudio",
        "TrimAudioDuration",
        "Hallo3IsolateVocals",
        "Hallo3EncodeSpeech",
    ),
    "Dialogue": ("Hallo3Speaker", "Hallo3Dialogue"),
    "Animate": ("Hallo3AnimatePortrait", "Hallo3SampleSegment", "Hallo3DecodeVAE"),
    "Redub": ("Hallo3Redub",),
    "Save": ("BatchImagesNode", "CreateVideo", "SaveVideo"),
}
"""The part to which a node of some type belongs, if its workflow does not say another one."""

COLOURS = {
    "Load": "cyan",
    "Portrait": "green",
    "Speech": "blue",
    "Dialogue": "blue",
    "Frame rate": "cyan",
    "Save": "cyan",
}
"""Colours of ComfyUI, by titles."""
MAKING, OPTIONAL = "red", "pale_blue"
"""The colour of all other parts, which make the video, and of those that are bypassed."""


def grouped(workflow: Workflow) -> Workflow:
    """The workflow with a group for every node that is no note."""
    said = {key for group in workflow.groups for key in group.nodes}
    groups = [*workflow.groups]
    for title, types in KINDS.items():
        nodes = [key for key, node in workflow.nodes.items() if node[0] in types]
        if rest := tuple(key for key in nodes if key not in said):
            groups.append(Group(title, rest))
    return workflow._replace(groups=tuple(groups))


def colour(group: Group) -> str:
    return OPTIONAL if group.bypassed else COLOURS.get(group.title, MAKING)


def frame(group: Group, places: dict[str, tuple[int, int, int]], grid: Grid) -> list[int]:
    """Left, top, width and height of its frame, with room for its title and for the nodes as they
    are when they run. `places` are left, top and width of the nodes."""
    inside = [places[key] for key in group.nodes]
    left = min(left for left, _, _ in inside) - SIDE
    right = max(left + width for left, _, width in inside) + SIDE
    top = min(top for _, top, _ in inside) - TITLE - HEAD
    bottom = max(places[key][1] - TITLE + grid.heights[key] for key in group.nodes) + FOOT
    return [left, top, right - left, bottom - top]


def astride(frames: dict[str, Box], nodes: dict[str, Box]) -> list[tuple[str, str]]:
    """Frames and the nodes that are partly inside them."""
    return [
        (title, key)
        for (title, frame), (key, box) in product(frames.items(), nodes.items())
        if overlaps({title: frame, key: box}) and not within(box, frame)
    ]


def within(box: Box, frame: Box) -> bool:
    left, top, right, bottom = frame
    return left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom
