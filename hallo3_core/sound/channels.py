"""Mixing of many channels: to mono or stereo for the video, and to mono for the animation."""

import logging

import torch
from torch import Tensor

CANCELLED = 0.1
"""Channels cancel each other out if the power of their mean, divided by the power that it would
have if the channels were uncorrelated, is below this."""
LEFT, RIGHT = "L", "R"
FRONT_CENTRE = {"FLC": LEFT, "FRC": RIGHT}
"""The side of the channels whose names do not end with their side."""

logger = logging.getLogger(__name__)


def mixing_weights(names: list[str], powers: Tensor) -> Tensor:
    """Weights that mix channels to mono or stereo, (1 or 2, channels).

    `names` are FFmpeg's channel names, such as FL and LFE. `powers` (channels, channels) is
    `Sound.powers`. One or two channels are kept as they are. If the layout has a left and a right
    side, left is the mean of the left and middle channels, and right is the mean of the right and
    middle channels. Otherwise all channels become one mean. So no channel is lost, and the result
    is never louder than full scale.
    """
    if len(names) <= 2:
        return torch.eye(len(names))
    sides = [FRONT_CENTRE.get(name, name[-1:]) for name in names]
    if LEFT not in sides or RIGHT not in sides or "NONE" in names:
        return mean_weights(list(range(len(names))), powers)[None]
    groups = [
        [channel for channel, side in enumerate(sides) if side != other] for other in (RIGHT, LEFT)
    ]
    return torch.stack([mean_weights(group, powers) for group in groups])


def mean_weights(group: list[int], powers: Tensor) -> Tensor:
    """Weights (channels,) of the mean of the channels in `group`.

    If these cancel each other out, the loudest has weight 1, and a warning is logged.
    """
    part = powers[group][:, group]
    weights = torch.zeros(len(powers))
    if part.sum() < CANCELLED * part.trace():
        loudest = group[part.diagonal().argmax()]
        logger.warning(
            "The channels of the sound cancel each other out (one may be inverted): only channel "
            "%d is used.",
            loudest + 1,
        )
        weights[loudest] = 1
    else:
        weights[group] = 1 / len(group)
    return weights
