"""FID (Heusel et al. 2017): how far all pictures of some videos are from those of real ones.

Its network is the Inception of the first TensorFlow: torchvision's, but for the pooling in its
blocks. The weights are the user's, `pt_inception-2015-12-05-6726825d.pth` as pytorch-fid publishes
them; a tensor missing or of another shape is refused.
"""

from collections.abc import Iterable
from functools import partial
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

SIDE = 299
CLASSES = 1008
BATCH = 16


class Pooled:
    """A block of Inception whose last branch pools in its own way."""

    pool = staticmethod(partial(F.avg_pool2d, count_include_pad=False))

    def _forward(self, x: Tensor) -> list[Tensor]:
        *branches, _ = super()._forward(x)
        return [*branches, self.branch_pool(self.pool(x, kernel_size=3, stride=1, padding=1))]


class PooledA(Pooled, InceptionA):
    pass


class PooledC(Pooled, InceptionC):
    pass


class PooledE(Pooled, InceptionE):
    pass


class LastE(Pooled, InceptionE):
    pool = staticmethod(F.max_pool2d)


def inception() -> Inception3:
    """The network in the names of its file, not initialised."""
    blocks = [BasicConv2d, PooledA, InceptionB, PooledC, InceptionD, PooledE, InceptionAux]
    network = Inception3(CLASSES, aux_logits=False, inception_blocks=blocks, init_weights=False)
    network.Mixed_7c = LastE(2048)
    return network


def load_inception(file: Path, device: torch.device | str = "cpu") -> Inception3:
    """From scaled pictures (batch, 3, 299, 299) in [-1, 1] to features (batch, 2048)."""
    network = inception()
    fill(network, file, "FID's Inception", "pytorch-fid's pt_inception-2015-12-05-6726825d.pth")
    network.fc = nn.Identity()
    return network.to(device)


def features(network: Inception3, videos: Iterable[Path]) -> Tensor:
    """(frames, 2048) float64 of all frames of the videos, on the CPU."""
    device, found = next(network.parameters()).device, []
    for video in videos:
        frames = iter(read_frames(video))
        while part := list(islice(frames, BATCH)):
            found.append(network(pictures(part).to(device)).cpu())
    return torch.cat(found).double()


def pictures(frames: list[np.ndarray]) -> Tensor:
    """(height, width, 3) uint8 of any size as the network sees them."""
    scaled = torch.from_numpy(np.stack(frames)).movedim(-1, 1) / 127.5 - 1
    return F.interpolate(scaled, (SIDE, SIDE), mode="bilinear")


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Squared, between the normal distributions of two sets of features (pictures, channels).

    The trace of the root of a product of covariances is the sum of the singular values of the
    product of their factors, which needs no root of a matrix.
    """
    root, other_root = _covariance_root(one), _covariance_root(other)
    means = (one.mean(0) - other.mean(0)).square().sum()
    spreads = root.square().sum() + other_root.square().sum()
    shared = torch.linalg.matrix_norm(root @ other_root.T, "nuc")
    return float(means + spreads - 2 * shared)


def _covariance_root(values: Tensor) -> Tensor:
    """R with R^T R the covariance."""
    centred = values - values.mean(0)
    return torch.linalg.qr(centred / (len(values) - 1) ** 0.5, mode="r").R
