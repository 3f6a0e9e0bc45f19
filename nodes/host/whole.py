"""A patcher for networks that are made of torch's own layers."""

import comfy.model_patcher

ALL = 1e32
"""More bytes than any network has. ComfyUI itself uses this number."""


class WholePatcher(comfy.model_patcher.ModelPatcher):
    """Always loads the whole network on the device.

    ComfyUI would leave weights that do not fit (with --novram, all of them) in main memory. Only
    ComfyUI's own layers can compute with such weights.
    """

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        return super().partially_load(device_to, ALL, force_patch_weights)
