"""Hallo3 for ComfyUI: animate a portrait from speech."""

from .nodes import Hallo3Extension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Hallo3Extension:
    return Hallo3Extension()
