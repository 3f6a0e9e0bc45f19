"""`evaluate`: measure videos of talking faces."""

import argparse
from pathlib import Path

from ..errors import InputError
from ..evaluation import evaluate
from ..evaluation.fid import features, frechet_distance, load_inception
from ..memory.device import choose_device

STOPPED = "Stopped."


def add(parser: argparse.ArgumentParser) -> None:
    argument = parser.add_argument
    argument("videos", type=Path, nargs="+", metavar="VIDEO")
    argument("--portrait", type=Path, help="a picture of the person (default: the first frame)")
    argument("--face-models", type=Path, help="folder with MediaPipe's and InsightFace's files")
    argument("--syncnet", type=Path, help="the authors' file syncnet_v2.model")
    argument("--fid", type=Path, help="pytorch-fid's Inception file; needs --real")
    argument("--real", type=Path, nargs="+", metavar="VIDEO", help="real videos, for FID")
    argument("--device", help="cpu, cuda, ... (default: cuda if there is one)")


def run(options: argparse.Namespace) -> int:
    if bool(options.fid) != bool(options.real):
        raise InputError(
            "FID compares videos with real ones: give both --fid FILE and --real VIDEO."
        )
    device = choose_device(options.device)
    inception = load_inception(options.fid, device) if options.fid else None
    for video in options.videos:
        report = evaluate(video, options.portrait, options.face_models, options.syncnet, device)
        print(f"{video}: " + "\n  ".join(report.lines()), flush=True)
    if inception:
        made, real = (features(inception, videos) for videos in (options.videos, options.real))
        distance = frechet_distance(made, real)
        print(f"FID: {distance:.2f} between {len(made)} frames and {len(real)} real frames")
    return 0
