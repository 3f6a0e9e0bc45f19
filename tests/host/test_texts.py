"""The texts of the nodes: every node explains itself, and its texts are the same everywhere."""

import json
import re
from collections import Counter

import pytest

from locales.make import DEFINITIONS, LOCALES, PAGES, files, help_page
from locales.translate import TRANSLATIONS, languages

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
    written = {*LOCALES.rglob("*.json"), *PAGES.rglob("*.md")}
    by_hand = {DEFINITIONS.with_name(f"{name}.json") for name in ("main", "commands", "settings")}
    assert expected.keys() == written - by_hand
    for path, text in expected.items():
        assert path.read_text("utf-8") == text, path


def test_a_text_that_changes_is_not_up_to_date(nodes):
    nodes["Hallo3FindFace"]["input"]["required"]["face_index"][1]["tooltip"] = "Another text."
    changed = {path for path, text in files(nodes).items() if path.read_text("utf-8") != text}
    assert {DEFINITIONS, PAGES / "Hallo3FindFace.md", PAGES / "Hallo3FindFace" / "ja.md"} < changed
    assert {TRANSLATIONS / "ja.json", LOCALES / "ja" / "nodeDefs.json"} < changed
    assert PAGES / "Hallo3CropFace" / "ja.md" not in changed


@pytest.mark.parametrize("language", languages(), ids=lambda each: each.language)
def test_every_text_is_translated(language):
    """With the test above: the file of a language has exactly the texts that are used."""
    assert language.missing() == []
    for english, text in language.known.items():
        kept = r"`[^`]+`|\{\w+\}|\*\*|^(?:- |\d+\. )"
        assert Counter(re.findall(kept, text)) == Counter(re.findall(kept, english)), text
        numbers = Counter(re.findall(r"\d+", english)) - Counter(re.findall(r"\d+", text))
        assert not numbers, (english, text)
        assert not set("|@") & set(text), f"ComfyUI's front end gives these a meaning: {text}"


@pytest.mark.parametrize("language", languages(), ids=lambda each: each.language)
def test_every_node_is_called_by_its_translated_name(nodes, language):
    names = [node["display_name"] for node in nodes.values()]
    translated = {name: language.known[name].lower() for name in names}
    assert len(set(translated.values())) == len(names)
    for english, text in language.known.items():
        for name in names:
            if re.search(rf"\b{name}\b", english):
                assert translated[name] in text.lower(), (name, text)


def test_the_front_end_has_its_texts():
    """What our scripts name is in the texts, and nothing else."""
    scripts = "".join(file.read_text("utf-8") for file in PAGES.parent.glob("*.js"))
    texts = {
        name: json.loads((LOCALES / "en" / f"{name}.json").read_text("utf-8"))
        for name in ("main", "settings", "commands")
    }
    ids = {name.replace(".", "_") for name in re.findall(r'id: "(.+)"', scripts)}
    assert ids == {*texts["settings"], *texts["commands"]}
    assert {*re.findall(r'say\("(\w+)"', scripts)} == texts["main"]["hallo3"].keys()
    for category in texts["main"]["settingsCategories"]:
        assert scripts.count(f'"{category}"') == len(texts["settings"])


def test_a_text_without_a_translation_stays_english(nodes, tmp_path, monkeypatch):
    (tmp_path / "xx.json").write_text('{"Find Face": "FACE", "seed": "", "Gone.": "GONE"}', "utf-8")
    monkeypatch.setattr("locales.translate.TRANSLATIONS", tmp_path)
    written = files(nodes)
    definitions = json.loads(written[LOCALES / "xx" / "nodeDefs.json"])
    assert definitions["Hallo3FindFace"]["display_name"] == "FACE"
    assert definitions["Hallo3Sampler"]["display_name"] == "Hallo3 Sampler"
    kept = json.loads(written[tmp_path / "xx.json"])
    assert (kept["Find Face"], kept["seed"], kept["Hallo3 Sampler"]) == ("FACE", "", "")
    assert "Gone." not in kept


def test_a_help_page_keeps_what_is_written_by_hand(nodes):
    page = help_page(["By hand.\n\n- A list", "More\n\nAlso by hand."], nodes["Hallo3Scheduler"])
    assert page.startswith("# Hallo3 Scheduler\n\nThe published noise schedule")
    assert "SamplerCustomAdvanced.\n\nBy hand.\n\n- A list\n\n## Inputs\n\n| input |" in page
    assert "| model | MODEL | The denoiser, from Load Hallo3 DiT. |\n| steps | INT |" in page
    assert page.endswith("\n\n## More\n\nAlso by hand.\n")
