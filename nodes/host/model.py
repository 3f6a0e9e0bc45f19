"""The denoiser as ComfyUI's own MODEL, and the two networks that run once for it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor

from ...hallo3_core.allocator import return_freed_memory
from ...hallo3_core.errors import InputError
from ...hallo3_core.memory.need import sampling_bytes
from ...hallo3_core.model.layout import published_weights
from ...hallo3_core.network.config import LATENT_FRAMES, Hallo3Config
from ...hallo3_core.network.layers import rotary_table
from ...hallo3_core.network.transformer import Conditions, Denoiser, join_contexts
from ...hallo3_core.portrait.encode import Identity
from .patches import run_patched
from .previews import Hallo3Latents
from .unsupported import require_known_conditioning, require_known_patches

IDENTITY, SPEECH, MOTION = "hallo3_identity", "hallo3_speech", "hallo3_motion"
"""The keys of a Hallo3 conditioning, besides the text."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the denoiser sees of a person, as in the core's `faces`."""

    identity: Identity
    faces: Tensor
    weights: Tensor | None
    strength: float


@dataclass(frozen=True, eq=False)
class Heard:
    """What the denoiser hears: the audio tokens of each voice, and the weights of `Voices`."""

    tokens: Tensor
    weights: Tensor | None = None


class CONDRows(comfy.conds.CONDRegular):
    """One `Seen` or `Heard` for each row of a batch, in a tuple. They are not changed."""

    def process_cond(self, batch_size: int, **kwargs) -> "CONDRows":
        return self._copy_with(self.cond * batch_size)

    def can_concat(self, other: "CONDRows") -> bool:
        """Whether both fit in a batch. A row with weights fits only to itself."""
        rows = self.cond + other.cond
        return all(row is rows[0] for row in rows) or all(row.weights is None for row in rows)

    def concat(self, others: list["CONDRows"]) -> tuple:
        return sum((other.cond for other in others), self.cond)

    def size(self) -> list[int]:
        """The number of voices or faces, for `memory_required`."""
        return [sum(1 if row.weights is None else len(row.weights) for row in self.cond)]


class HostDenoiser(Denoiser):
    """The denoiser, with the call that ComfyUI makes at every step.

    Keys and values that are the same in all steps are kept until the run of the sampler ends.
    """

    def __init__(self, config: Hallo3Config, dtype=None, device=None, operations=None):
        super().__init__(config, operations, dtype=dtype, device=device)
        self.dtype = dtype
        self.in_channels = 2 * config.latent_channels
        self.kept: dict[tuple, tuple] = {}

    def forward(  # type: ignore[override]  # ComfyUI calls its models like this
        self, x: Tensor, timesteps: Tensor, transformer_options: dict, **inputs
    ) -> Tensor:
        """Predict v. The channels of `x` are noisy latents, then as many motion latents."""
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        return WrapperExecutor.new_class_executor(self._forward, self, wrappers).execute(
            x, timesteps, transformer_options=transformer_options, **inputs
        )

    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        hallo3_identity: tuple,
        hallo3_speech: tuple,
        hallo3_hooks: tuple,
        transformer_options: dict,
        **others,
    ) -> Tensor:
        latents, motion = x.chunk(2, dim=1)
        identities, speech, weights = hallo3_identity, hallo3_speech, hallo3_hooks
        conditions = Conditions(
            context,
            motion,
            self.keep(
                "reference",
                identities,
                weights,
                lambda row: self.reference_keys_values(
                    (tokens.to(x) for tokens in row.identity.features), row.strength
                ),
            ),
            self.keep(
                "face",
                identities,
                weights,
                lambda row: self.face_keys_values(row.faces.to(x), row.weights, row.strength),
            ),
            self.keep(
                "audio",
                speech,
                weights,
                lambda row: self.audio_keys_values(row.tokens.to(x), row.weights),
            ),
        )
        text = context.shape[1]
        tokens = (text, text + LATENT_FRAMES * self.config.frame_tokens)
        run = run_patched(transformer_options, len(self.layers), tokens)
        return super().forward(latents, timesteps, conditions, run)

    def keep(self, kind: str, rows: tuple, weights: tuple, make: Callable[..., list]) -> Iterator:
        """The keys and values that `make` computes for each row, joined layer by layer.

        They are computed once in a run, and again if hooks have changed the `weights` or a step of
        training may have changed them.
        """
        for row in rows:
            made_with = self.kept.get((kind, id(row)), (None, None))[1]
            if made_with != weights or torch.is_grad_enabled():
                self.kept[kind, id(row)] = row, weights, make(row)
        layers = zip(*(self.kept[kind, id(row)][2] for row in rows), strict=True)
        return map(join_contexts, layers)

    def forget(self) -> None:
        self.kept.clear()
        rotary_table.cache_clear()
        return_freed_memory()


class Hallo3Model(comfy.model_base.BaseModel):
    """A model of v-prediction with zero terminal SNR, in the scale that stock samplers expect."""

    def __init__(self, model_config: "HostConfig", device=None):
        super().__init__(
            model_config,
            comfy.model_base.ModelType.V_PREDICTION,
            device=device,
            unet_model=HostDenoiser,
        )

    def _apply_model(
        self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds
    ) -> Tensor:
        """Tell the denoiser which hooks change the weights in this call."""
        require_known_patches(transformer_options, self.diffusion_model.config.layers)
        hooks = getattr(self.current_patcher, "current_hooks", None)
        weights = tuple((hook.hook_ref, hook.strength) for hook in hooks.hooks) if hooks else ()
        inputs = (x, t, c_concat, c_crossattn, control, transformer_options)
        return super()._apply_model(*inputs, hallo3_hooks=weights, **conds)

    def extra_conds(self, **kwargs) -> dict:
        require_known_conditioning(kwargs)
        if IDENTITY not in kwargs:
            raise InputError(
                "This conditioning has no portrait and no speech: connect the outputs of "
                "Hallo3 Segment Conditioning."
            )
        identity = kwargs[IDENTITY].identity
        layers, width = len(identity.features), identity.features[0].shape[-1]
        config = self.diffusion_model.config
        if (layers, width) != (config.layers, config.width):
            raise InputError(
                f"The Identity belongs to another model ({layers} layers of width {width}, not "
                f"{config.layers} of {config.width}): connect both outputs of one Load Hallo3 DiT."
            )
        return super().extra_conds(**kwargs) | {
            IDENTITY: CONDRows((kwargs[IDENTITY],)),
            SPEECH: CONDRows((kwargs[SPEECH],)),
        }

    def concat_cond(self, **kwargs) -> Tensor:
        return kwargs[MOTION].to(kwargs["device"])

    def memory_required(self, input_shape: list[int], cond_shapes: dict | None = None) -> float:
        """The bytes that a call needs for latents of `input_shape`, with all that is kept."""
        size = comfy.model_management.dtype_size(self.get_dtype_inference())
        voices = sum(count for (count,) in (cond_shapes or {}).get(SPEECH, ()))
        return sampling_bytes(self.diffusion_model.config, input_shape[0], size, voices)


class UNetSizes(dict):
    """The sizes of the model. Nodes for UNets ask for some that a transformer does not have."""

    def __missing__(self, name: str):
        raise InputError(
            f"This node is for UNets and asks for {name!r}, which Hallo3 does not have: remove it."
        )


class Companions(NamedTuple):
    """The networks of the same file that run once. Each has its own ModelPatcher."""

    reference_network: comfy.model_patcher.ModelPatcher
    audio_projector: comfy.model_patcher.ModelPatcher


class HostConfig(comfy.supported_models_base.BASE):
    unet_extra_config: ClassVar[dict] = {}
    sampling_settings = {
        "beta_schedule": "linear",
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "zsnr": True,
    }
    latent_format = Hallo3Latents
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]

    companions: Companions
    weights_fingerprint: Callable[[], str]
    """Of all weights of the file, before any patch."""

    def __init__(self, config: Hallo3Config, file: Path | None = None):
        super().__init__({"config": config})
        self.unet_config: UNetSizes = UNetSizes(self.unet_config)
        self.file = file

    def get_model(self, state_dict=None, prefix="", device=None) -> Hallo3Model:
        return Hallo3Model(self, device=device)

    def process_unet_state_dict_for_saving(self, state_dict: dict) -> dict:
        """The weights of all networks of the file, under the published names."""
        return published_weights(
            state_dict,
            self.companions.reference_network.model.state_dict(),
            self.companions.audio_projector.model.state_dict(),
        )


class RunOnce:
    """Calls a network on its device, or on another one, and takes it off the device afterwards."""

    def __init__(self, patcher: comfy.model_patcher.ModelPatcher, device=None):
        if device not in (None, patcher.load_device):
            patcher = on_device(patcher, device)
        self.patcher = patcher
        self.config: Any = getattr(patcher.model, "config", None)
        self.placement = {"device": patcher.load_device, "dtype": patcher.model.compute_dtype}

    def __call__(self, x: Tensor):
        comfy.model_management.load_models_gpu([self.patcher])
        with torch.no_grad():
            result = self.patcher.model(x.to(**self.placement))
        comfy.model_management.unload_model_and_clones(self.patcher)
        rotary_table.cache_clear()
        return result


def on_device(patcher: comfy.model_patcher.ModelPatcher, device: torch.device):
    """A patcher for another device, of a network that is not on a device now."""
    cpu = comfy.model_management.is_device_cpu(device)
    moved = patcher.clone(disable_dynamic=cpu)
    moved.load_device = device
    if moved.is_dynamic():
        moved.register_load_device(device)
    return moved
