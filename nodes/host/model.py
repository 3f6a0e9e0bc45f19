"""The denoiser as ComfyUI's own MODEL, and the networks that run once beside it."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from comfy.model_management import get_torch_device, unet_offload_device
from comfy.patcher_extension import CallbacksMP, WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ...hallo3_core import builtin, checkpoint
from ...hallo3_core.config import Hallo3Config
from ...hallo3_core.errors import InputError
from ...hallo3_core.layers import Attention, KeyValue
from ...hallo3_core.memory import return_freed_memory
from ...hallo3_core.memory_plan import sampling_bytes
from ...hallo3_core.model import NETWORKS, open_transformers, scale_names
from ...hallo3_core.transformer import Conditions, Denoiser, join_rows
from .previews import Hallo3Latents

IDENTITY, SPEECH, MOTION = "hallo3_identity", "hallo3_speech", "hallo3_motion"
"""What a Hallo3 conditioning carries besides the text."""

DTYPES = {
    "default": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}


class CONDRows(comfy.conds.CONDRegular):
    """Objects that belong to the rows of a batch and are handed on as they are, in a tuple."""

    def process_cond(self, batch_size: int, **kwargs) -> "CONDRows":
        return self._copy_with(self.cond * batch_size)

    def can_concat(self, other: "CONDRows") -> bool:
        return True

    def concat(self, others: list["CONDRows"]) -> tuple:
        return sum((other.cond for other in others), self.cond)

    def size(self) -> list[int]:
        return [len(self.cond)]


class HostDenoiser(Denoiser):
    """The denoiser behind the call that ComfyUI makes at every step.

    Keys and values that stay the same during a run of the sampler are kept until it ends.
    """

    def __init__(self, config: Hallo3Config, dtype=None, device=None, operations=None):
        super().__init__(config, operations, dtype=dtype, device=device)
        self.dtype = dtype
        self.kept: dict[tuple, tuple] = {}

    def forward(self, x: Tensor, timesteps: Tensor, transformer_options: dict, **inputs) -> Tensor:
        """v of the first half of the channels of `x`; the other half are motion latents."""
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
        transformer_options: dict,
        **others,
    ) -> Tensor:
        latents, motion = x.chunk(2, dim=1)
        identities, speech = hallo3_identity, hallo3_speech
        conditions = Conditions(
            context,
            motion,
            self.keep(
                "reference",
                identities,
                lambda row: self.reference_keys_values([t.to(x) for t in row.features]),
            ),
            self.keep("face", identities, lambda row: self.face_keys_values(row.face.to(x))),
            self.keep("audio", speech, lambda row: self.audio_keys_values(row.to(x))),
        )
        attention_of = partial(host_attention, transformer_options)
        return super().forward(latents, timesteps, conditions, attention_of)

    def keep(self, kind: str, rows: tuple, make: Callable[..., list[KeyValue]]) -> list[KeyValue]:
        """What `make` gives for each row, one after the other; made once in a run."""
        key = (kind, *map(id, rows))
        if key not in self.kept:
            made = {id(row): make(row) for row in rows}
            layers = zip(*(made[id(row)] for row in rows), strict=True)
            joined = [tuple(map(join_rows, zip(*layer, strict=True))) for layer in layers]
            self.kept[key] = rows, joined
        return self.kept[key][1]

    def forget(self, patcher: comfy.model_patcher.ModelPatcher) -> None:
        self.kept.clear()
        return_freed_memory()


def host_attention(transformer_options: dict, layer: int) -> Attention:
    """ComfyUI's attention for a layer.

    On a CPU its choice would be one for old GPUs, which takes twice as long as torch's.
    """
    transformer_options["block_index"] = layer

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attention = attention_pytorch if query.device.type == "cpu" else optimized_attention
        return attention(
            query,
            key,
            value,
            heads=query.shape[1],
            skip_reshape=True,
            skip_output_reshape=True,
            transformer_options=transformer_options,
        )

    return attend


class Hallo3Model(comfy.model_base.BaseModel):
    """v-prediction with zero terminal SNR, in the scale that stock samplers expect."""

    def __init__(self, model_config: "HostConfig", device=None):
        super().__init__(
            model_config,
            comfy.model_base.ModelType.V_PREDICTION,
            device=device,
            unet_model=HostDenoiser,
        )

    def extra_conds(self, **kwargs) -> dict:
        if IDENTITY not in kwargs:
            raise InputError(
                "This conditioning has no portrait and no speech: connect the outputs of "
                "Hallo3 Segment Conditioning."
            )
        identity = kwargs[IDENTITY]
        layers, width = len(identity.features), identity.features[0].shape[-1]
        config = self.diffusion_model.config
        if (layers, width) != (config.layers, config.width):
            raise InputError(
                f"The Identity was encoded by a reference network of {layers} layers of {width}, "
                f"the model has {config.layers} of {config.width}: use the two of one loader."
            )
        return super().extra_conds(**kwargs) | {
            IDENTITY: CONDRows((identity,)),
            SPEECH: CONDRows((kwargs[SPEECH],)),
        }

    def concat_cond(self, **kwargs) -> Tensor:
        return kwargs[MOTION].to(kwargs["device"])

    def memory_required(self, input_shape: list[int], cond_shapes: dict | None = None) -> float:
        """Bytes that a call on latents of `input_shape` takes, and what is kept between calls."""
        size = comfy.model_management.dtype_size(self.get_dtype_inference())
        return sampling_bytes(self.diffusion_model.config, input_shape[0], size)


class Companions(NamedTuple):
    """The networks of the same file that run once, each in a ModelPatcher of its own."""

    reference_network: comfy.model_patcher.ModelPatcher
    audio_projector: comfy.model_patcher.ModelPatcher


class HostConfig(comfy.supported_models_base.BASE):
    unet_extra_config = {}
    sampling_settings = {
        "beta_schedule": "linear",
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "zsnr": True,
    }
    latent_format = Hallo3Latents
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]

    companions: Companions

    def __init__(self, config: Hallo3Config):
        super().__init__({"config": config})

    def get_model(self, state_dict=None, prefix="", device=None) -> Hallo3Model:
        return Hallo3Model(self, device=device)

    def process_unet_state_dict_for_saving(self, state_dict: dict) -> dict:
        """All networks of the file it came from, in the published names."""
        states = (
            state_dict,
            self.companions.reference_network.model.state_dict(),
            self.companions.audio_projector.model.state_dict(),
        )
        saved = {}
        for state, (_, prefix, table) in zip(states, NETWORKS, strict=True):
            names = checkpoint.published_names(state, prefix, table)
            saved |= {names[ours]: value for ours, value in state.items()}
        return saved


class RunOnce:
    """Calls a network on its device, and lets it leave the device again."""

    def __init__(self, patcher: comfy.model_patcher.ModelPatcher):
        self.patcher = patcher
        self.config = getattr(patcher.model, "config", None)
        self.placement = {"device": patcher.load_device, "dtype": patcher.model.compute_dtype}

    def __call__(self, x: Tensor):
        comfy.model_management.load_models_gpu([self.patcher])
        with torch.no_grad():
            result = self.patcher.model(x.to(**self.placement))
        comfy.model_management.unload_model_and_clones(self.patcher)
        return result


def load_dit(file: Path | None, weight_dtype: torch.dtype | None):
    """MODEL and its companions, of a published checkpoint or (None) of the built-in model."""
    if file is None:
        model = builtin.load()
        config = model.config
        networks = (model.denoiser, model.reference_network, model.audio_projector)
        states = [network.state_dict() for network in networks]
    else:
        weights, config, layouts = open_transformers(file)
        states = [rename(weights, layout) for layout in layouts]
    host_config = HostConfig(config)
    host_config.quant_config = comfy.utils.detect_layer_quantization(states[0], "")
    dtype, manual_cast = choose_dtypes(states[0], weight_dtype, host_config)
    host_config.set_inference_dtype(dtype, manual_cast)
    host_config.companions = Companions(
        *(
            load_network(network, state, host_config)
            for (network, *_), state in zip(NETWORKS[1:], states[1:], strict=True)
        )
    )
    model = host_config.get_model()
    patcher = comfy.model_patcher.CoreModelPatcher(
        model, load_device=get_torch_device(), offload_device=unet_offload_device()
    )
    model.load_model_weights(states[0], assign=patcher.is_dynamic())
    denoiser = model.diffusion_model
    patcher.add_callback(CallbacksMP.ON_PRE_RUN, denoiser.forget)
    patcher.add_callback(CallbacksMP.ON_CLEANUP, denoiser.forget)
    return patcher, host_config.companions


def rename(weights: Mapping[str, Tensor], layout: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights under our names, each with its scale and the mark of it if it has them."""
    state = {}
    for ours, theirs in layout.items():
        state[ours] = weights[theirs]
        if scale_names(theirs)[0] in weights:
            for own, other in zip(scale_names(ours), scale_names(theirs), strict=True):
                state[own] = weights[other]
    return state


def choose_dtypes(
    state: Mapping[str, Tensor], weight_dtype: torch.dtype | None, host_config: HostConfig
) -> tuple[torch.dtype, torch.dtype | None]:
    """The dtype that weights are kept in and the one they are cast to, or None.

    Scaled fp8 weights stay what they are, and the choice is that of the others.
    """
    management, supported = comfy.model_management, HostConfig.supported_inference_dtypes
    scaled = host_config.quant_config is not None
    dtype = None if scaled else weight_dtype
    dtype = dtype or management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=supported,
        weight_dtype=None if scaled else comfy.utils.weight_dtype(state),
    )
    cast = management.unet_manual_cast(None if scaled else dtype, get_torch_device(), supported)
    return dtype, cast


def load_network(network: type[nn.Module], state: Mapping[str, Tensor], host_config: HostConfig):
    """A ModelPatcher of one of the networks that run once."""
    dtype, manual_cast = host_config.unet_config["dtype"], host_config.manual_cast_dtype
    operations = comfy.ops.pick_operations(
        dtype, manual_cast, load_device=get_torch_device(), model_config=host_config
    )
    config = host_config.unet_config["config"]
    module = network(config, operations, dtype=dtype, device=unet_offload_device())
    module.compute_dtype = manual_cast or dtype
    patcher = comfy.model_patcher.CoreModelPatcher(
        module.eval().requires_grad_(False), get_torch_device(), unet_offload_device()
    )
    module.load_state_dict(state, assign=patcher.is_dynamic())
    return patcher
