"""taecvx: the tiny decoder of TAEHV for CogVideoX's latents. It makes previews look like the video.

The weights are github.com/madebyollin/taehv's taecvx. ComfyUI has the network, but does not know
this file.
"""

import logging
from functools import cache
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy.taesd.taehv import TAEHV
from torch import Tensor

FOLDER, NAME = "vae_approx", "taecvx"

logger = logging.getLogger(__name__)


def find_tiny_decoder() -> TAEHV | None:
    """The decoder of the first file in models/vae_approx whose name begins with taecvx, or None."""
    names = folder_paths.get_filename_list(FOLDER)
    name = next((name for name in names if Path(name).name.startswith(NAME)), None)
    return _load(folder_paths.get_full_path(FOLDER, name)) if name else None


@cache
def _load(path: str) -> TAEHV | None:
    """Load the decoder. If that fails, a warning says so, and the result is None."""
    try:
        weights = comfy.utils.load_torch_file(path, safe_load=True)
        decoder = TAEHV(latent_channels=weights["decoder.1.weight"].shape[1])
        decoder.load_state_dict(weights)
    except Exception as error:  # damaged files raise many kinds
        logger.warning("%s cannot be loaded (%s): previews are coarse.", path, error)
        return None
    return decoder.eval().requires_grad_(False)


def decode_frame(decoder: TAEHV, latents: Tensor) -> Tensor:
    """Decode one latent frame (1, 16, 1, height / 8, width / 8) to (1, 3, 1, height, width).

    `latents` are the autoencoder's own, without a scale. The picture is in [-1, 1].
    """
    dtype = torch.float32 if comfy.model_management.is_device_cpu(latents.device) else torch.float16
    decoder.to(latents.device, dtype)
    return decoder.decode(latents.to(dtype)).clamp(0, 1).float().cpu() * 2 - 1
