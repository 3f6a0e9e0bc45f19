"""The store of finished segments in ComfyUI's user folder, and its settings."""

import json
import logging
from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from ...hallo3_core.errors import InputError
from ...hallo3_core.store.segment_store import GB, SIZE, SegmentStore

SETTING = "Hallo3.SegmentStore.Size"
"""The size in GB. `web/hallo3.js` shows it in the settings."""
PATH = "/hallo3/segments"

logger = logging.getLogger(__name__)


def segment_store() -> SegmentStore:
    """The store, with the size from the settings."""
    user = Path(folder_paths.get_user_directory())
    return SegmentStore.of_the_user(user / "hallo3" / "segments", _chosen_size(user))


def _chosen_size(user: Path) -> int:
    try:
        settings = json.loads((user / "default" / "comfy.settings.json").read_text("utf-8"))
        return int(settings[SETTING] * GB)
    except (OSError, ValueError, KeyError, TypeError):
        return SIZE  # the user has not changed it


async def tell(request: web.Request) -> web.Response:
    """Answer with the folder of the segments, their number and their bytes."""
    store = segment_store()
    segments, size = store.count()
    return web.json_response({"folder": str(store.folder), "segments": segments, "bytes": size})


async def empty(request: web.Request) -> web.Response:
    """Delete the segments. If that fails, the answer is the sentence that says why."""
    try:
        segment_store().empty()
    except InputError as error:
        return web.Response(text=f"{error}", status=500)
    return await tell(request)


def serve_segments() -> None:
    """Answer at `PATH`. Without a server, nobody asks."""
    if server := getattr(PromptServer, "instance", None):
        server.routes.get(PATH)(tell)
        server.routes.delete(PATH)(empty)
