"""Inputs for the settings of the sampling, made from the fields of `Settings`."""

from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from typing import Any

from comfy_api.latest import io

from ..hallo3_core.settings import Choice, Settings

LINKED_SEED = "Link one seed to all nodes of a video: each segment gets its own noise from it."
BETWEEN = "colour_anchor"
"""The setting that works between segments. A node that samples one segment does not have it."""


def segment_settings_inputs() -> list[io.Input]:
    """Inputs for all settings of one segment."""
    return settings_inputs(*(field.name for field in fields(Settings) if field.name != BETWEEN))


def settings_inputs(*names: str) -> list[io.Input]:
    """Inputs for the fields of `Settings` that have these names, or for all fields."""
    return [
        setting_input(field.metadata["choice"], *number)
        for field in fields(Settings)
        if not names or field.name in names
        for number in numbers_of(field)
    ]


def settings_of(inputs: Mapping[str, object]) -> Settings:
    """The `Settings` that the inputs of a node say. Raises `InputError` if they make no sense."""
    values: dict[str, Any] = {}
    for field in fields(Settings):
        found = tuple(inputs.get(name, default) for name, default, _ in numbers_of(field))
        values[field.name] = found if field.metadata["choice"].parts else found[0]
    return Settings(**values)


def numbers_of(field: Field) -> Iterator[tuple[str, object, str]]:
    """Name, default and text of each input that a field has: two for a setting of two numbers."""
    choice: Choice = field.metadata["choice"]
    default: Any = field.default
    if choice.parts:
        for (name, text), number in zip(choice.parts.items(), default, strict=True):
            yield name, float(number), text
    else:
        yield field.name, default, choice.help


def setting_input(choice: Choice, name: str, default, text: str) -> io.Input:
    shared = {"default": default, "tooltip": text}
    if choice.advanced:
        shared |= {"optional": True, "advanced": True}
    if choice.options:
        return io.Combo.Input(name, options=list(choice.options), **shared)
    number = type(default)
    limits = {"min": choice.least, "max": choice.most, "step": choice.step}
    shared |= {limit: number(value) for limit, value in limits.items()}
    if name == "seed":
        shared["tooltip"] = f"{text} {LINKED_SEED}"
        shared["control_after_generate"] = io.ControlAfterGenerate.fixed
    return (io.Int if number is int else io.Float).Input(name, **shared)
