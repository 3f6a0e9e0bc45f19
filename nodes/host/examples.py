"""The example files in ComfyUI's input folder. `web/examples.js` offers to copy them."""

from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from ...hallo3_core.errors import InputError
from ...hallo3_core.examples import EXAMPLES, write_examples

PATH = "/hallo3/examples"


def missing() -> web.Response:
    """The names of the examples that the input folder does not have."""
    folder = Path(folder_paths.get_input_directory())
    return web.json_response([name for name in EXAMPLES if not (folder / name).exists()])


async def tell(request: web.Request) -> web.Response:
    return missing()


async def copy(request: web.Request) -> web.Response:
    """Copy the missing examples. Files of the user are never replaced.

    If that fails, the answer is the sentence that says why.
    """
    try:
        for _ in write_examples(Path(folder_paths.get_input_directory())):
            pass
    except InputError as error:
        return web.Response(text=f"{error}", status=500)
    return missing()


def serve_examples() -> None:
    """Answer at `PATH`. Without a server, nobody asks."""
    if server := getattr(PromptServer, "instance", None):
        server.routes.get(PATH)(tell)
        server.routes.post(PATH)(copy)
