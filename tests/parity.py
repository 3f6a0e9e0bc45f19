"""Check the core against numbers recorded from the published program.

    python tests/parity.py FOLDER [--tolerance 1e-4] [--device cuda]

FOLDER is laid out like tests/fixtures: configuration, weights (safetensors, or the published
.pt files in their place), inputs, results and the random numbers drawn. Prints the maximum error
of every tensor relative to its standard deviation and exits with 1 past the tolerance.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2Model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hallo3_core.animate import animate
from hallo3_core.autoencoder import vae
from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.clip.segments import Segment
from hallo3_core.memory.device import choose_device
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.model.loading import load_transformers, load_vae
from hallo3_core.network.transformer import Conditions
from hallo3_core.noise import Purpose
from hallo3_core.portrait.encode import Identity, encode_identity
from hallo3_core.portrait.framing import published
from hallo3_core.prediction import predict_v
from hallo3_core.sampling.guidance import guided
from hallo3_core.sampling.samplers import SAMPLERS, sample
from hallo3_core.sampling.schedule import Schedule, denoiser_alphas
from hallo3_core.speech.encode import Speech, encode_speech
from hallo3_core.speech.windows import segment_windows, windows
from hallo3_core.text import TextEncoder

FIXTURES = Path(__file__).parent / "fixtures"
CPU = torch.device("cpu")

Check = tuple[str, str, Tensor, Tensor]
"""Name of the check, name of the recorded tensor, what we get, what was recorded."""


class Recorded:
    """One of the folder's safetensors files, on a device."""

    def __init__(self, folder: Path, name: str, device: torch.device = CPU):
        tensors = load_file(folder / f"{name}.safetensors")
        self.tensors = {name: value.to(device) for name, value in tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def names(self, start: str) -> list[str]:
        return sorted(name for name in self.tensors if name.startswith(start))

    def video(self, name: str) -> Tensor:
        """A recorded (batch, frames, channels, ...) as (batch, channels, frames, ...)."""
        return self.tensors[name].transpose(1, 2)


class RecordedStream:
    """Recorded random numbers of one stream, handed out in order."""

    def __init__(self, draws: list[Tensor]):
        self.draws = iter(draws)

    def normal(self, *shape: int) -> Tensor:
        draw = next(self.draws)
        assert draw.shape == shape, f"{tuple(draw.shape)} was recorded, {shape} was asked for"
        return draw

    uniform = normal


class RecordedNoise:
    """The random numbers of the recorded long video."""

    def __init__(self, recorded: Recorded):
        self.recorded = recorded

    def stream(self, purpose: Purpose, segment: int = 0) -> RecordedStream:
        recorded = self.recorded
        if purpose == "reference":
            return RecordedStream([recorded["noise.reference.posterior"]])
        if purpose == "motion":
            moment = f"noise.after_{segment - 1}" if segment else "noise.start"
            return RecordedStream(
                [recorded[f"{moment}.mask_uniform"], recorded[f"{moment}.posterior"]]
            )
        if purpose == "initial":
            return RecordedStream([recorded.video(f"noise.segment_{segment}.initial")])
        return RecordedStream(step_draws(recorded, f"noise.segment_{segment}.draw."))


def step_draws(recorded: Recorded, start: str) -> list[Tensor]:
    """The draws that were used: the only one of the first step, the second of each later one."""
    count = len(recorded.names(start))
    return [recorded.video(f"{start}{i}") for i in range(0, count, 2)]


def weights_file(folder: Path, name: str) -> Path:
    """The safetensors file, or the published PyTorch file that stands in its place."""
    safetensors = folder / f"{name}_weights.safetensors"
    if safetensors.exists():
        return safetensors
    published = [file for file in folder.rglob("*.pt") if ("vae" in file.name) == (name == "vae")]
    if not published:
        raise SystemExit(f"{folder} has neither {safetensors.name} nor a .pt file in its place.")
    return published[0]


def load_model(folder: Path, dtype: torch.dtype, device: torch.device = CPU) -> Hallo3:
    sizes = json.loads((folder / "config.json").read_text())["config"]
    audio = json.loads((folder / "audio_config.json").read_text())
    latent_size = sizes["lat_h"], sizes["lat_w"]
    speech_encoder = Wav2Vec2Model(Wav2Vec2Config(**audio["wav2vec2"]))
    weights = read_weights(folder / "wav2vec2_weights.safetensors")
    speech_encoder.load_state_dict({name: value.float() for name, value in weights.items()})
    model = Hallo3(
        *load_transformers(weights_file(folder, "transformer"), dtype, latent_size),
        load_vae(weights_file(folder, "vae"), dtype),
        speech_encoder.eval().requires_grad_(False),
        TextEncoder,
    )
    return model.placed(device)


def check_forward(folder: Path, model: Hallo3) -> Iterator[Check]:
    recorded, denoiser = Recorded(folder, "forward", model.device), model.denoiser
    features, prediction = model.reference_network(recorded.video("in.reference_latents"))
    for i, tokens in enumerate(features):
        yield (
            "reference",
            f"reference_features.{i}",
            tokens,
            recorded[f"out.reference_features.{i}"],
        )
    yield (
        "reference",
        "reference_prediction",
        prediction,
        recorded.video("out.reference_prediction"),
    )
    audio = model.audio_projector(recorded["in.audio"])
    yield "projectors", "audio_tokens", audio, recorded["out.audio_tokens"]
    face = denoiser.face_projector(recorded["in.face"])
    yield "projectors", "face_tokens", face, recorded["out.face_tokens"]
    conditions = recorded_conditions(recorded, model, slice(0, 2))
    latents = recorded.video("in.noisy_latents")
    prediction = denoiser(latents, recorded["in.timesteps"], conditions)
    yield "denoiser", "prediction", prediction, recorded.video("out.prediction")


def recorded_conditions(recorded: Recorded, model: Hallo3, rows: slice) -> Conditions:
    """The conditions of some rows of the recorded batch, [unconditional, conditional]."""
    denoiser = model.denoiser
    text = recorded["in.text"][rows]
    features, _ = model.reference_network(recorded.video("in.reference_latents"))
    return denoiser.conditions(
        text,
        recorded.video("in.motion_latents")[rows],
        denoiser.reference_keys_values(features),
        denoiser.face_keys_values(recorded["in.face"][rows]),
        model.audio_projector(recorded["in.audio"][rows]),
    )


def check_schedules(folder: Path, model: Hallo3) -> Iterator[Check]:
    recorded = Recorded(folder, "schedules")
    for name in recorded.names("alphas_cumprod_sqrt."):
        schedule = Schedule.published(int(name.rpartition(".")[2]))
        yield "schedule", name, schedule.alphas, recorded[name]
        name = name.replace("alphas_cumprod_sqrt", "timesteps")
        # the recorded ones end with a -1 that no step uses
        yield "schedule", name, schedule.timesteps, recorded[name][:-1]
    name = "denoiser_alphas_cumprod_sqrt"
    yield "schedule", name, denoiser_alphas(), recorded[name]


def check_sampler(folder: Path, model: Hallo3) -> Iterator[Check]:
    forward = Recorded(folder, "forward", model.device)
    without, with_all = (
        partial(predict_v, model, recorded_conditions(forward, model, slice(row, row + 1)))
        for row in range(2)
    )
    guidance = json.loads((folder / "config.json").read_text())["guidance"]
    for file in sorted(folder.glob("sampler_*_steps.safetensors")):
        recorded = Recorded(folder, file.stem)
        initial = recorded.video("in.initial_noise").to(model.device)
        draws = RecordedStream(step_draws(recorded, "draw."))
        *_, latents = sample(
            guided(without, with_all, guidance),
            initial,
            Schedule.published(int(file.stem.split("_")[1])),
            SAMPLERS["sde-dpm++2m"],
            partial(draws.normal, *initial.shape),
        )
        yield "sampler", f"{file.stem} latents", latents, recorded.video("out.latents")


def check_vae(folder: Path, model: Hallo3) -> Iterator[Check]:
    recorded = Recorded(folder, "vae", model.device)
    for name in recorded.names("in.pixels_"):
        frames = name.rpartition("_")[2]
        pixels, noise = recorded[name], recorded[f"posterior_noise_{frames}"]
        moments = model.vae.encode(pixels).latent_dist.parameters
        yield "vae", f"moments_{frames}", moments, recorded[f"out.moments_{frames}"]
        latents = vae.encode(model.vae, pixels, RecordedStream([noise.cpu()])) / vae.LATENT_SCALE
        yield "vae", f"sample_{frames}", latents, recorded[f"out.sample_{frames}"]
    for name in recorded.names("in.latents_"):
        frames = torch.cat(list(vae.decode(model.vae, recorded[name] * vae.LATENT_SCALE)), dim=2)
        out = recorded.names("out.frames_")[0]
        yield "vae", out.removeprefix("out."), frames, recorded[out]


def check_audio(folder: Path, model: Hallo3) -> Iterator[Check]:
    recorded = Recorded(folder, "audio")
    cases = json.loads((folder / "audio_config.json").read_text())["cases"]
    for case, expected in cases.items():
        speech = encode_speech(model.speech_encoder, recorded[f"in.{case}.waveform"])
        assert speech.frames == expected["frames"], f"{case} has {speech.frames} frames"
        yield "speech", f"{case}.features", speech.features, recorded[f"out.{case}.features"]
        count = len(speech.features)
        for end, start in (("head", 0), ("tail", count - 4)):
            around = windows(speech.features, start, start + 4)
            yield "speech", f"{case}.windows_{end}", around, recorded[f"out.{case}.windows_{end}"]


def check_portrait(folder: Path, model: Hallo3) -> Iterator[Check]:
    recorded = Recorded(folder, "portrait")
    for name in recorded.names("in."):
        case = name.removeprefix("in.")
        fitted = recorded[f"out.{case}"]
        image, canvas = recorded[name][0], tuple(fitted.shape[-2:])
        framing = published(tuple(image.shape[-2:]), canvas)
        yield "portrait", case, framing.apply(image), fitted


def recorded_identity(recorded: Recorded, model: Hallo3) -> Identity:
    return encode_identity(
        model.vae,
        model.reference_network,
        recorded["in.portrait"],
        recorded["in.reference"],
        RecordedNoise(recorded),
        recorded["in.face"],
    )


def recorded_segments(folder: Path, model: Hallo3) -> Iterator[Segment]:
    """The recorded long video, made again with the recorded noise."""
    recorded = Recorded(folder, "long_video")
    job = json.loads((folder / "config.json").read_text())
    speech = Speech(recorded["in.audio_features"], job["speech_frames"])
    return animate(
        model,
        recorded_identity(recorded, model),
        speech,
        RecordedNoise(recorded),
        text=recorded["in.text"],
        steps=job["steps"],
        guidance=job["guidance"],
        fade=False,
    )


def check_long_video(folder: Path, model: Hallo3) -> Iterator[Check]:
    recorded = Recorded(folder, "long_video")
    features = recorded["in.audio_features"]
    everything = windows(features, 0, len(features))
    yield "long video", "audio_windows", everything, recorded["mid.audio_windows"]
    identity = recorded_identity(recorded, model)
    yield "long video", "start_latents", identity.motion, recorded.video("mid.start_latents")
    frames = []
    for segment in recorded_segments(folder, model):
        i = segment.index
        speech = segment_windows(features, i)[0]
        yield "long video", f"segment_{i}.audio", speech, recorded[f"mid.segment_{i}.audio"]
        latents = recorded.video(f"out.segment_{i}.latents")
        yield "long video", f"segment_{i}.latents", segment.latents, latents
        frames.append(segment.frames)
    video = torch.cat(frames).permute(0, 3, 1, 2)[None]
    yield "long video", "video", video, recorded["out.video"]


CHECKS = (
    check_schedules,
    check_forward,
    check_sampler,
    check_vae,
    check_audio,
    check_portrait,
    check_long_video,
)


def error(ours: Tensor, recorded: Tensor) -> float:
    """Maximum error relative to the standard deviation of what was recorded."""
    if ours.shape != recorded.shape:
        raise SystemExit(f"{tuple(recorded.shape)} was recorded, we have {tuple(ours.shape)}")
    ours, recorded = ours.cpu().double(), recorded.cpu().double()
    return ((ours - recorded).abs().max() / recorded.std()).item()


@torch.no_grad()
def compare(folder: Path, device: torch.device = CPU) -> Iterator[tuple[str, str, float]]:
    """Check, tensor and error, for everything recorded in `folder`, in float32."""
    model = load_model(folder, torch.float32, device)
    for check in CHECKS:
        for name, tensor, ours, recorded in check(folder, model):
            yield name, tensor, error(ours, recorded)


@torch.no_grad()
def bfloat16_error(folder: Path, device: torch.device = CPU) -> float:
    """Error of the first segment's latents in bfloat16, relative to their norm."""
    segment = next(recorded_segments(folder, load_model(folder, torch.bfloat16, device)))
    recorded = Recorded(folder, "long_video").video("out.segment_0.latents")
    return ((segment.latents.cpu() - recorded).norm() / recorded.norm()).item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="default: %(default)s")
    parser.add_argument("--bf16-tolerance", type=float, default=0.05, help="default: %(default)s")
    parser.add_argument("--device", help="cpu, cuda, ... (default: cuda if there is one)")
    options = parser.parse_args()
    device = choose_device(options.device)
    rows = [(*row, options.tolerance) for row in compare(options.folder, device)]
    bfloat16 = bfloat16_error(options.folder, device)
    rows.append(("bf16 (relative norm)", "segment_0.latents", bfloat16, options.bf16_tolerance))
    failed = 0
    for name, tensor, difference, tolerance in rows:
        passed = difference <= tolerance
        failed += not passed
        print(f"{name:21} {tensor:32} {difference:9.2e}  {'ok' if passed else 'TOO LARGE'}")
    print(f"{len(rows) - failed} of {len(rows)} agree with the published program.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
