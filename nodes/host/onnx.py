"""onnxruntime sessions, which ComfyUI can unload as it does models."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import folder_paths
from comfy.patcher_extension import CallbacksMP
from torch import nn

from ...hallo3_core.faces import Finder, open_finder
from ...hallo3_core.vocals import VocalIsolator

FACE_MODELS = Path(folder_paths.models_dir, "insightface", "models", "antelopev2")
AUDIO_SEPARATION = "audio_separation"

if AUDIO_SEPARATION not in folder_paths.folder_names_and_paths:
    folder = str(Path(folder_paths.models_dir, AUDIO_SEPARATION))
    folder_paths.folder_names_and_paths[AUDIO_SEPARATION] = ([folder], {".onnx"})


class OnDemand:
    """Something that is opened when it is needed, and closed when ComfyUI unloads its models."""

    def __init__(self, open_it: Callable[[], object]):
        self.open = open_it
        self.opened = None
        self.patcher = comfy.model_patcher.ModelPatcher(
            nn.Module(),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        self.patcher.add_callback(CallbacksMP.ON_DETACH, self.close)

    def __call__(self):
        comfy.model_management.load_models_gpu([self.patcher])
        if self.opened is None:
            self.opened = self.open()
        return self.opened

    def close(self, *args) -> None:
        self.opened = None


@cache
def _finder() -> OnDemand:
    return OnDemand(lambda: open_finder([FACE_MODELS]))


def face_finder() -> Finder:
    """InsightFace from ComfyUI's models, or what there is without it."""
    return _finder()()


@cache
def _isolator(file: Path) -> OnDemand:
    return OnDemand(lambda: VocalIsolator(file))


def vocal_isolator(name: str) -> VocalIsolator:
    """The MDX-Net of this name in models/audio_separation."""
    return _isolator(Path(folder_paths.get_full_path_or_raise(AUDIO_SEPARATION, name)))()
