"""A patcher for networks whose layers are torch's own."""

import comfy.model_patcher

ALL = 1e32
"""More bytes than any network has, as the host says it."""


class WholePatcher(comfy.model_patcher.ModelPatcher):
    """Loads its network whole.

    What does not fit the host leaves in main memory, with --novram everything, and only its own
    layers compute from there.
    """

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        return super().partially_load(device_to, ALL, force_patch_weights)
