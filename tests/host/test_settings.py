"""Every setting of the sampling is an input of the nodes and an option of the command line."""

import argparse
import importlib
from dataclasses import dataclass, fields

import pytest

from hallo3_core.cli import animate
from hallo3_core.settings import Settings, setting

SAMPLING = ("Hallo3AnimatePortrait", "Hallo3SampleSegment")
NAMES = [
    "steps",
    "guidance",
    "sampler",
    "seed",
    "guidance_start",
    "guidance_end",
    "text_guidance",
    "speech_strength",
    "identity_strength",
    "colour_anchor",
]


@pytest.fixture
def nodes_settings(host):
    """The module of the nodes that makes inputs of the settings."""
    kind = host.nodes.NODE_CLASS_MAPPINGS["Hallo3SampleSegment"]
    return importlib.import_module(f"{kind.__module__.rpartition('.')[0]}.settings")


@pytest.fixture(params=SAMPLING)
def inputs(host, request):
    """Makes the inputs of a node, as they are now."""
    kind = host.nodes.NODE_CLASS_MAPPINGS[request.param]
    return lambda: {put.id: put for put in kind.define_schema().inputs}


def options() -> dict[str, str]:
    """The options of `animate`, by the name of the setting."""
    parser = argparse.ArgumentParser()
    animate.add(parser)
    return {action.dest: action.option_strings[0] for action in parser._actions}


def test_every_setting_is_an_input_and_an_option(inputs, nodes_settings):
    shown = [name for name in inputs() if name in NAMES]
    whole_clip = "following" in inputs()  # the last setting works between segments
    assert shown == NAMES[: len(NAMES) - 1 + whole_clip]
    found = [part for field in fields(Settings) for part in nodes_settings.numbers_of(field)]
    assert [name for name, *_ in found] == NAMES
    for name, default, text in found[: len(shown)]:
        assert inputs()[name].default == default
        assert text in inputs()[name].tooltip
    assert options().keys() >= {field.name for field in fields(Settings)}


def test_a_new_setting_becomes_an_input_and_an_option(inputs, nodes_settings, monkeypatch):
    pack = nodes_settings.Settings

    @dataclass(frozen=True)
    class More(pack):
        liveliness: float = setting(0.5, "How strong it is.", most=2, step=0.25, advanced=True)

    monkeypatch.setattr(nodes_settings, "Settings", More)
    monkeypatch.setattr(animate, "Settings", More)
    new = inputs()["liveliness"]
    shown = [name for name in inputs() if name in (*NAMES, "liveliness")]
    assert shown[-1] == "liveliness"
    assert (new.default, new.min, new.max, new.step) == (0.5, 0.0, 2.0, 0.25)
    assert (new.tooltip, new.optional, new.advanced) == ("How strong it is.", True, True)
    assert nodes_settings.settings_of({"liveliness": 1.5}).liveliness == 1.5
    assert nodes_settings.settings_of({}).liveliness == 0.5
    assert options()["liveliness"] == "--liveliness"


def test_the_settings_of_a_node(nodes_settings):
    given = {"steps": 7, "guidance": 2.0, "seed": 4, "guidance_end": 0.5}
    found = nodes_settings.settings_of(given)
    assert (found.steps, found.guidance, found.seed, found.interval) == (7, 2.0, 4, (0.0, 0.5))
    assert found.sampler == Settings.sampler


def test_a_wrong_interval(host, nodes_settings):
    with pytest.raises(Exception, match=r"The guidance interval is 0.8 to 0.2: give two numbers"):
        nodes_settings.settings_of({"guidance_start": 0.8, "guidance_end": 0.2})
