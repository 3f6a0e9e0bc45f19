"""Memory of a real ComfyUI at work: `python -m benchmarks.host_memory COMFYUI` (Linux).

Starts ComfyUI's server on the CPU with only this pack, queues Animate Portrait with the built-in
model and only its video connected, and reads the server's resident memory:

- the peak for a short and for a long speech, each in a new server
- the memory that is left after `POST /free`
- both over several runs, one after the other

Run it with ComfyUI's Python.
"""

import argparse
from pathlib import Path

from run import find_comfyui

from .comfyui_server import running

BUILT_IN = "built-in tiny model"


def animate(sound: str, seed: int, steps: int) -> dict:
    """Animate Portrait in API form, with only its video connected."""
    return {
        "dit": _node("Hallo3LoadDiT", model_name=BUILT_IN, weight_dtype="default"),
        "vae": _node("Hallo3LoadVAE", vae_name=BUILT_IN),
        "encoder": _node("Hallo3LoadSpeechEncoder", encoder_name=BUILT_IN),
        "image": _node("LoadImage", image="hallo3_portrait.png"),
        "audio": _node("LoadAudio", audio=sound),
        "identity": _node(
            "Hallo3EncodeIdentity",
            image=["image", 0],
            vae=["vae", 0],
            reference_network=["dit", 1],
            growth=1.2,
            seed=seed,
        ),
        "speech": _node("Hallo3EncodeSpeech", audio=["audio", 0], speech_encoder=["encoder", 0]),
        "animate": _node(
            "Hallo3AnimatePortrait",
            model=["dit", 0],
            vae=["vae", 0],
            identity=["identity", 0],
            speech=["speech", 0],
            steps=steps,
            guidance=3.5,
            sampler="sde-dpm++2m",
            seed=seed,
        ),
        "save": _node(
            "SaveVideo", video=["animate", 3], filename_prefix="v", format="auto", codec="auto"
        ),
    }


def _node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comfyui", type=Path, default=find_comfyui(), nargs="?")
    parser.add_argument("--port", type=int, default=8195)
    parser.add_argument("--short", type=float, default=10, help="seconds (%(default)s)")
    parser.add_argument("--long", type=float, default=180, help="seconds (%(default)s)")
    parser.add_argument("--runs", type=int, default=10, help="one after the other (%(default)s)")
    parser.add_argument("--steps", type=int, default=1, help="sampling steps (%(default)s)")
    options = parser.parse_args()
    peaks = {}
    for seconds in (options.short, options.long):
        with running(options.comfyui, options.port) as host:
            start = host.memory()
            host.run(animate(host.speech(seconds), 0, options.steps))
            peaks[seconds], end = host.memory("VmHWM"), host.memory()
            host.free()
            print(
                f"{seconds:g} s: before {start:.0f} MB, "
                f"peak {peaks[seconds]:.0f}, after {end:.0f}, "
                f"after /free {host.memory():.0f}",
                flush=True,
            )
            if seconds == options.short:
                for run in range(1, options.runs + 1):
                    host.forget_peak()
                    host.run(animate(host.speech(options.short), run, options.steps))
                    peak, end = host.memory("VmHWM"), host.memory()
                    host.free()
                    print(
                        f"run {run}: peak {peak:.0f} MB, after {end:.0f}, "
                        f"after /free {host.memory():.0f}",
                        flush=True,
                    )
    print(f"long against short: {peaks[options.long] / peaks[options.short]:.3f}")


if __name__ == "__main__":
    main()
