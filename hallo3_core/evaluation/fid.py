"""FID (Heusel et al. 2017): the distance between the frames of videos and the frames of real ones.

Its network is the Inception of the first TensorFlow release. It differs from torchvision's only in
the pooling inside its blocks. The user provides the weights: the file
`pt_inception-2015-12-05-6726825d.pth` of pytorch-fid.
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import Inception3
from torchvision.models.inception import (
    BasicConv2d,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

from ..checkpoints.user_file import fill
from ..media.video import read_frames

INCEPTION_SIDE = 299
CLASSES = 1008
BATCH = 16


def average(x: Tensor) -> Tensor:
    """The mean of 3 x 3 pixels, without those beyond the edge."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class PooledA(InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(average(x))]


class PooledC(InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(average(x))]


class PooledE(InceptionE):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(average(x))]


class LastE(InceptionE):
    """The last block, whose pooling takes the maximum."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        return [*super()._forward(x)[:-1], self.branch_pool(pooled)]


def inception() -> Inception3:
    """The network without initialised weights. Its tensors have the names of the weights file."""
    blocks = [BasicConv2d, PooledA, InceptionB, PooledC, InceptionD, PooledE, InceptionAux]
    network = Inception3(CLASSES, aux_logits=False, inception_blocks=blocks, init_weights=False)
    network.Mixed_7c = LastE(2048)
    return network


def load_inception(file: Path, device: torch.device | str = "cpu") -> Inception3:
    """Load the network from scaled pictures (batch, 3, 299, 299) in [-1, 1] to (batch, 2048).

    Raises `InputError` if a tensor of the file is missing or has another shape.
    """
    network = inception()
    fill(network, file, "FID's Inception", "pytorch-fid's pt_inception-2015-12-05-6726825d.pth")
    network.fc = nn.Identity()
    return network.to(device)


def features(network: Inception3, videos: Iterable[Path]) -> Tensor:
    """The features of all frames of the videos, (frames, 2048) float64 on the CPU."""
    device, found = next(network.parameters()).device, []
    for video in videos:
        frames = iter(read_frames(video))
        while part := list(islice(frames, BATCH)):
            found.append(network(pictures(part).to(device)).cpu())
    return torch.cat(found).double()


def pictures(frames: list[np.ndarray]) -> Tensor:
    """Scale frames (height, width, 3) uint8 for the network: (frames, 3, 299, 299) in [-1, 1]."""
    scaled = torch.from_numpy(np.stack(frames)).movedim(-1, 1) / 127.5 - 1
    return F.interpolate(scaled, (INCEPTION_SIDE, INCEPTION_SIDE), mode="bilinear")


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """The squared Fréchet distance of two sets of features (pictures, channels).

    A normal distribution is fitted to each set. No matrix square root is needed: the trace of the
    root of the product of two covariances is the sum of the singular values of the product of
    their factors.
    """
    root, other_root = _covariance_root(one), _covariance_root(other)
    means = (one.mean(0) - other.mean(0)).square().sum()
    spreads = root.square().sum() + other_root.square().sum()
    shared = torch.linalg.matrix_norm(root @ other_root.T, "nuc")
    return float(means + spreads - 2 * shared)


def _covariance_root(values: Tensor) -> Tensor:
    """A factor R of the covariance: R^T R is the covariance of values (pictures, channels)."""
    centred = values - values.mean(0)
    return torch.linalg.qr(centred / (len(values) - 1) ** 0.5, mode="r").R
