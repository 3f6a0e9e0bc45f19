"""How the segments of a clip are sampled.

One dataclass for the command line, the nodes and Python: a new setting is a new field here, with
its help text and its limits. The command line makes an option of it, and the nodes an input.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

from .errors import InputError
from .sampling.guidance import ALWAYS, Interval
from .sampling.samplers import SAMPLERS
from .sampling.schedule import TRAINING_STEPS, Schedule


class Choice(NamedTuple):
    """What a setting does, in words, and what it may be: a number in a range, or an option."""

    help: str
    least: float = 0
    most: float = 1
    step: float = 1
    options: tuple[str, ...] = ()


def setting(default, help: str, **limits):
    return field(default=default, metadata={"choice": Choice(help, **limits)})


@dataclass(frozen=True)
class Settings:
    """Raises `InputError` where a value makes no sense."""

    steps: int = setting(
        50,
        "Sampling steps of a segment. The published program uses 50.",
        least=1,
        most=TRAINING_STEPS - 1,
    )
    guidance: float = setting(
        3.5,
        "How strongly speech and prompt steer the video (classifier-free guidance). The published "
        "program uses 3.5. With 1 a step takes half the time.",
        most=30,
        step=0.1,
    )
    sampler: str = setting(
        "sde-dpm++2m",
        "The published program uses sde-dpm++2m. The other two add no noise while sampling and "
        "need fewer steps.",
        options=tuple(SAMPLERS),
    )
    seed: int = setting(0, "The same seed gives the same video.", most=2**64 - 1)
    interval: Interval = setting(
        ALWAYS,
        "The part of the steps, from 0 to 1, with guidance. Steps without it take half the time.",
        step=0.05,
    )

    def __post_init__(self):
        Schedule.published(self.steps)
        if not isfinite(self.guidance):
            raise InputError(f"The guidance is {self.guidance}: choose a number, such as 3.5.")
        start, end = self.interval
        if not 0 <= start <= end <= 1:
            raise InputError(
                f"The guidance interval is {start} to {end}: give two numbers from 0 to 1, such as "
                "0 0.7."
            )
