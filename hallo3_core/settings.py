"""The settings of the sampling.

`Settings` is the only list of these settings. Each field becomes an option of the command line and
an input of the nodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import InputError
from .sampling.guidance import ALWAYS, Interval
from .sampling.samplers import FEW, SAMPLERS
from .sampling.schedule import TRAINING_STEPS, spaced

SAME = -1.0
"""The guidance of the prompt is that of the speech."""


class Choice(NamedTuple):
    """The help text of a setting, and its limits: a range of numbers, or a list of options.

    If a setting is two numbers, `parts` has the name and the help text of each. A graph may omit
    an `advanced` setting. A setting that is added to the list must be advanced, so that saved
    graphs still load.
    """

    help: str
    least: float = 0
    most: float = 1
    step: float = 1
    options: tuple[str, ...] = ()
    parts: Mapping[str, str] = MappingProxyType({})
    advanced: bool = False


def setting(default, help: str, **limits):
    """A field of `Settings`. `limits` are the other arguments of `Choice`."""
    return field(default=default, metadata={"choice": Choice(help, **limits)})


@dataclass(frozen=True)
class Settings:
    """The settings of the sampling. Raises `InputError` if a value is not usable."""

    steps: int = setting(
        50,
        "Sampling steps of each segment. Twice the steps take twice the time. The published "
        "program uses 50. The built-in model needs 4.",
        least=1,
        most=TRAINING_STEPS - 1,
    )
    guidance: float = setting(
        3.5,
        "Classifier-free guidance: how strongly speech and prompt steer the video. Too much "
        "distorts the mouth. 1 is twice as fast. The published program uses 3.5. For the "
        "built-in model, use 1.",
        most=30,
        step=0.1,
    )
    sampler: str = setting(
        "sde-dpm++2m",
        "The sampling method. The published program uses sde-dpm++2m. dpm++2m and ddim add no "
        "noise between the steps, and need fewer steps. For a distilled model, choose few.",
        options=tuple(SAMPLERS),
    )
    seed: int = setting(
        0, "Decides the random noise. The same seed gives the same video.", most=2**64 - 1
    )
    interval: Interval = setting(
        ALWAYS,
        "The part of the steps that uses guidance, from 0 to 1. Steps without guidance are twice "
        "as fast.",
        step=0.05,
        parts={
            "guidance_start": "Guidance begins after this share of the steps. Steps without "
            "guidance are twice as fast. The published program uses 0.",
            "guidance_end": "Guidance ends after this share of the steps. The last steps need it "
            "least. The published program uses 1.",
        },
        advanced=True,
    )
    text_guidance: float = setting(
        SAME,
        "Guidance of the prompt alone. -1: the same as guidance. With another number, guidance is "
        "for the speech only. Each step with a prompt then takes three calls of the model, "
        "not two.",
        least=SAME,
        most=30,
        step=0.1,
        advanced=True,
    )
    speech_strength: float = setting(
        1.0,
        "How strongly the speech moves the face. 0: as in silence. Above 1 the mouth moves more "
        "than the model has learned.",
        most=2,
        step=0.05,
        advanced=True,
    )
    identity_strength: float = setting(
        1.0,
        "How strongly the portrait and the face embedding hold the likeness. 0: the model sees the "
        "person only in the frames before.",
        most=2,
        step=0.05,
        advanced=True,
    )
    colour_anchor: float = setting(
        0.0,
        "Keeps the colours of a long video steady. Each segment continues from the last frames: "
        "this says how strongly they get the portrait's colours. 0: not at all, as published.",
        step=0.05,
        advanced=True,
    )

    @property
    def guidances(self) -> tuple[float, float]:
        """Guidance of the speech, and of the prompt."""
        same = self.text_guidance == SAME
        return self.guidance, self.guidance if same else self.text_guidance

    def __post_init__(self):
        spaced(self.steps)
        for each in fields(self):
            number, limits = getattr(self, each.name), each.metadata["choice"]
            if isinstance(number, float) and not limits.least <= number <= limits.most:
                named = each.name.replace("_", " ")
                raise InputError(
                    f"The {named} is {number:g}: give a number from {limits.least:g} to "
                    f"{limits.most:g}."
                )
        start, end = self.interval
        if not 0 <= start <= end <= 1:
            raise InputError(
                f"The guidance interval is {start} to {end}: give two numbers from 0 to 1, such as "
                "0 0.7."
            )


def distilled(steps: int) -> dict[str, Any]:
    """The settings for a model that is distilled to `steps` steps."""
    return {"steps": steps, "guidance": 1.0, "sampler": FEW}
