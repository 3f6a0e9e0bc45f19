"""ComfyUI's folders, found by where the pack lies."""

import os
from pathlib import Path

from ..errors import InputError

PACK = Path(__file__).parents[2]


def comfyui_folder(name: str) -> Path:
    """`models` or `input` of the ComfyUI that has the pack in its custom_nodes, or a link to it.

    Raises `InputError` if the pack lies elsewhere.
    """
    # the shell knows by which link it came here, which Python does not
    shell = Path(os.environ.get("PWD", PACK))
    places = [PACK, shell] if shell.exists() and shell.samefile(PACK) else [PACK]
    for place in places:
        if place.parent.name == "custom_nodes":
            return place.parent.parent / name
    raise InputError(
        f"{PACK} is not in the custom_nodes of a ComfyUI: name the folder, such as ComfyUI/{name}."
    )
