"""onnxruntime sessions that ComfyUI can unload, as it unloads models."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import folder_paths
from comfy.patcher_extension import CallbacksMP
from torch import nn

from ...hallo3_core.portrait.faces import Finder
from ...hallo3_core.portrait.finders import open_finder
from ...hallo3_core.speech.vocals import VocalIsolator

AUDIO_SEPARATION, INSIGHTFACE = "audio_separation", "insightface"
ANTELOPEV2 = (Path("models", "antelopev2"), Path("antelopev2"), Path())
"""Where the files may be in a folder of InsightFace's models."""


def register_audio_separation() -> None:
    """Add models/audio_separation to ComfyUI's folders of models.

    ComfyUI has read extra_model_paths.yaml before. The folders that it names stay.
    """
    own = str(Path(folder_paths.models_dir, AUDIO_SEPARATION))
    folder_paths.add_model_folder_path(AUDIO_SEPARATION, own, is_default=True)
    folder_paths.folder_names_and_paths[AUDIO_SEPARATION][1].add(".onnx")


register_audio_separation()


class OnDemand:
    """Opens something when it is needed, and closes it when ComfyUI unloads its models."""

    def __init__(self, open_it: Callable[[], object]):
        self.open = open_it
        self.opened: object | None = None
        self.patcher = comfy.model_patcher.ModelPatcher(
            nn.Module(),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        self.patcher.add_callback(CallbacksMP.ON_DETACH, self.close)

    def __call__(self):
        comfy.model_management.load_models_gpu([self.patcher])
        opened = self.opened  # another thread may close it at any time
        if opened is None:
            opened = self.opened = self.open()
        return opened

    def close(self, *args) -> None:
        self.opened = None


def face_folders() -> list[Path]:
    """Where antelopev2 may be: in ComfyUI's models, or in folders of extra_model_paths.yaml."""
    named, _ = folder_paths.folder_names_and_paths.get(INSIGHTFACE, ((), ()))
    roots = (Path(folder_paths.models_dir, INSIGHTFACE), *named)
    return [Path(root, inside) for root in roots for inside in ANTELOPEV2]


@cache
def _finder() -> OnDemand:
    return OnDemand(lambda: open_finder(face_folders()))


def face_finder() -> Finder:
    """InsightFace, if its files are in ComfyUI's models; otherwise scikit-image."""
    return _finder()()


@cache
def _isolator(file: Path) -> OnDemand:
    return OnDemand(lambda: VocalIsolator(file))


def vocal_isolator(name: str) -> VocalIsolator:
    """The MDX-Net of this name in models/audio_separation."""
    return _isolator(Path(folder_paths.get_full_path_or_raise(AUDIO_SEPARATION, name)))()
