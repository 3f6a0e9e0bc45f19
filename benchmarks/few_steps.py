"""What the distilled model saves: `python -m benchmarks.few_steps`.

The example is animated by the command line with 4 steps and with 50 guided steps, in turn. Then one
segment is only sampled with each. The times are medians of the rounds.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hallo3_core import builtin, examples
from hallo3_core.animate import ModelAnimator
from hallo3_core.network.config import SAMPLE_RATE
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.settings import Settings, distilled
from hallo3_core.speech.encode import encode_speech


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def whole_job(*options: str) -> None:
    """Run the command line, from its start to the finished video, without the store."""
    with TemporaryDirectory() as folder:
        output = str(Path(folder, "video.mp4"))
        job = ("animate", "--no-store", "--quiet", "--output", output, *options)
        command = [sys.executable, "-m", "hallo3_core", *job]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def sampling(few: bool) -> Callable[[], object]:
    """The sampling of the first segment, with everything before it computed."""
    model, noise = builtin.load(few), SeededNoise(0)
    identity = encode_portrait(model.vae, model.reference_network, examples.portrait(), None, noise)
    speech = encode_speech(model.speech_encoder, torch.randn(2 * SAMPLE_RATE))
    settings = vars(Settings(**distilled(builtin.STEPS))) if few else {}
    animator = ModelAnimator(model, identity, speech, noise, **settings)

    def sample() -> None:
        animator.sample(0, identity.motion)

    sample()  # computes what all segments share
    return sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    compared = {
        "sampling a segment": (sampling(few=True), sampling(few=False)),
        "the whole job": (whole_job, lambda: whole_job("--undistilled")),
    }
    for name, works in compared.items():
        pairs = [[seconds(work) for work in works] for _ in range(rounds)]
        few_seconds, many_seconds = map(statistics.median, zip(*pairs, strict=True))
        ratio = statistics.median(many / few for few, many in pairs)
        print(f"{name}: {few_seconds:.2f} s, {many_seconds:.2f} s, {ratio:.1f} times", flush=True)


if __name__ == "__main__":
    main()
