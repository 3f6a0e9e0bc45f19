"""From many channels to those that are heard and to the one that is animated."""

import logging

import torch
from torch import Tensor

CANCELLED = 0.1
"""Channels cancel each other where their mean has less than this part of the power that it would
have if they had nothing in common."""
LEFT, RIGHT = "L", "R"
FRONT_CENTRE = {"FLC": LEFT, "FRC": RIGHT}
"""The channels whose names do not end with their side."""

logger = logging.getLogger(__name__)


def heard(names: list[str], powers: Tensor) -> Tensor:
    """How channels are mixed to be heard, (1 or 2, channels).

    `names` are FFmpeg's, such as FL and LFE, and `powers` (channels, channels) the sums of the
    products of samples. One or two channels stay. Of a layout with sides, left and right are the
    means of what is on that side or in the middle; of any other all channels have one mean. So
    nothing is lost and nothing can be louder than full scale.
    """
    if len(names) <= 2:
        return torch.eye(len(names))
    sides = [FRONT_CENTRE.get(name, name[-1:]) for name in names]
    if LEFT not in sides or RIGHT not in sides or "NONE" in names:
        return mean(list(range(len(names))), powers)[None]
    groups = [
        [channel for channel, side in enumerate(sides) if side != other] for other in (RIGHT, LEFT)
    ]
    return torch.stack([mean(group, powers) for group in groups])


def mean(group: list[int], powers: Tensor) -> Tensor:
    """Weights (channels,) of the mean of some channels; of the loudest, where they cancel."""
    part = powers[group][:, group]
    weights = torch.zeros(len(powers))
    if part.sum() < CANCELLED * part.trace():
        loudest = group[part.diagonal().argmax()]
        logger.warning(
            "The channels of the sound cancel each other out (one may be inverted): channel %d is "
            "taken for the voice.",
            loudest + 1,
        )
        weights[loudest] = 1
    else:
        weights[group] = 1 / len(group)
    return weights
