"""The texts of the nodes: every node explains itself, and its texts are the same everywhere."""

import pytest

from locales.make import DEFINITIONS, PAGES, files, help_page

LONGEST = 200


@pytest.fixture
def nodes(host) -> dict[str, dict]:
    """Our nodes as ComfyUI lists them."""
    return {
        name: kind.GET_NODE_INFO_V1()
        for name, kind in host.nodes.NODE_CLASS_MAPPINGS.items()
        if name.startswith("Hallo3")
    }


def test_every_node_explains_itself(nodes):
    assert len(nodes) == 24
    for node in nodes.values():
        assert node["description"]
        assert node["category"].startswith("Hallo3")
        inputs = node["input"]["required"] | node["input"].get("optional", {})
        tooltips = [options["tooltip"] for _, options in inputs.values()]
        for tooltip in [*tooltips, *node["output_tooltips"]]:
            assert 0 < len(tooltip) <= LONGEST, tooltip


def test_translations_and_help_pages_are_up_to_date(nodes):
    """If this fails, run `python -m locales.make`."""
    expected = files(nodes)
    assert expected.keys() == {DEFINITIONS, *PAGES.glob("*.md")}
    for path, text in expected.items():
        assert path.read_text("utf-8") == text, path


def test_a_text_that_changes_is_not_up_to_date(nodes):
    nodes["Hallo3FindFace"]["input"]["required"]["face_index"][1]["tooltip"] = "Another text."
    changed = [path for path, text in files(nodes).items() if path.read_text("utf-8") != text]
    assert changed == [DEFINITIONS, PAGES / "Hallo3FindFace.md"]


def test_a_help_page_keeps_what_is_written_by_hand(nodes):
    page = help_page(["By hand.\n\n- A list", "More\n\nAlso by hand."], nodes["Hallo3Scheduler"])
    assert page.startswith("# Hallo3 Scheduler\n\nThe published noise schedule")
    assert "SamplerCustomAdvanced.\n\nBy hand.\n\n- A list\n\n## Inputs\n\n| input |" in page
    assert "| model | MODEL | The denoiser, from Load Hallo3 DiT. |\n| steps | INT |" in page
    assert page.endswith("\n\n## More\n\nAlso by hand.\n")
