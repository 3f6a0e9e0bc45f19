"""Runs the shipped workflows in a running ComfyUI, and makes pictures of their results.

    python workflows/results.py http://127.0.0.1:8188 [NAME ...]

Each workflow gets a moving picture in this folder, which ComfyUI shows among its templates. Those
of the documentation go to docs/pictures: animated WebP files, and strips of frames. The example
files must be in ComfyUI's input folder (`python -m hallo3_core examples`).

ComfyUI asks for the picture of a pack's template as NAME.jpg, and for nothing else. So these files
have that name, but are animated WebP: browsers tell pictures by their first bytes.
"""

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import av
import numpy as np
from graphs import WORKFLOWS
from parts import Workflow
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
EXAMPLES = ROOT / "hallo3_core" / "builtin" / "example"
PICTURES = ROOT / "docs" / "pictures"
FPS = 25
SIDE = 256
"""Of the moving picture at the top of the README, in pixels."""
WAVE = 44
"""Height of the speech below it."""
CARD = 320
"""Width of the picture of a template, in pixels."""
INK, PAPER, MARK = (70, 74, 84), (250, 250, 250), (214, 69, 65)

Film = list[Image.Image]


def ask(address: str, path: str, data: dict | None = None) -> bytes:
    body = None if data is None else json.dumps(data).encode()
    with urlopen(Request(address + path, body, {"Content-Type": "application/json"})) as answer:
        return answer.read()


def prompt_of(workflow: Workflow, known: dict) -> dict:
    """A workflow as ComfyUI's server takes it; `known` is its /object_info."""
    prompt, bypassed = {}, workflow.bypassed
    for key, (kind, _, widgets, links, *_) in workflow.nodes.items():
        if kind == "MarkdownNote" or key in bypassed:
            continue
        inputs = first_choices(known[kind]["input"].get("required", {}))
        inputs |= widgets
        for name, place in links.items():
            if place := past(place, bypassed, workflow, known):
                source, _, slot = place.partition(".")
                inputs[name] = [source, int(slot or 0)]
        prompt[key] = {"class_type": kind, "inputs": inputs}
    return prompt


def past(place: str, bypassed: set[str], workflow: Workflow, known: dict) -> str | None:
    """Where a link begins without the bypassed nodes: they pass on what has the type of it."""
    source, _, slot = place.partition(".")
    if source not in bypassed:
        return place
    kind, _, _, links, *_ = workflow.nodes[source]
    type_ = known[kind]["output"][int(slot or 0)]
    taken = known[kind]["input"]["required"]
    same = [link for name, link in links.items() if taken[name][0] == type_]
    return past(same[0], bypassed, workflow, known) if same else None


def first_choices(required: dict, before: str = "") -> dict:
    """What widgets have in a new node; those behind a choice have its name `before` theirs."""
    values = {}
    for name, (type_, *options) in required.items():
        given = options[0] if options else {}
        choices = type_ if isinstance(type_, list) else given.get("options")
        if "default" in given:
            values[before + name] = given["default"]
        elif choices and isinstance(choices[0], dict):
            values[before + name] = choices[0]["key"]
            behind = choices[0]["inputs"].get("required", {})
            values |= first_choices(behind, f"{before}{name}.")
        elif choices:
            values[before + name] = choices[0]
    return values


def run(address: str, workflow: Workflow) -> dict[str, Film]:
    """The films that the nodes of a workflow show, by the names of the nodes."""
    known = json.loads(ask(address, "/object_info"))
    queued = ask(address, "/prompt", {"prompt": prompt_of(workflow, known)})
    name = json.loads(queued)["prompt_id"]
    while not (history := json.loads(ask(address, f"/history/{name}"))):
        time.sleep(1)
    if history[name]["status"]["status_str"] != "success":
        raise SystemExit(json.dumps(history[name]["status"])[:2000])
    return {
        key: [
            frame
            for file in shown["images"]
            for frame in frames_of(file["filename"], ask(address, f"/view?{urlencode(file)}"))
        ]
        for key, shown in history[name]["outputs"].items()
        if "images" in shown
    }


def frames_of(name: str, content: bytes) -> Film:
    """The frames of a video, or a picture."""
    if not name.endswith(".mp4"):
        return [Image.open(io.BytesIO(content)).convert("RGB")]
    with av.open(io.BytesIO(content)) as video:
        return [frame.to_image() for frame in video.decode(video=0)]


def beside(*pictures: Image.Image) -> Image.Image:
    """Pictures of one height in a row."""
    row = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width
    return row


def with_speech(film: Film) -> Film:
    """The portrait, the video beside it, and below them the speech with a mark at this moment."""
    portrait = Image.open(EXAMPLES / "portrait.png").convert("RGB").resize((SIDE, SIDE))
    wave = wave_picture(2 * SIDE, len(film) / FPS)
    made = []
    for index, frame in enumerate(film):
        picture = Image.new("RGB", (2 * SIDE, SIDE + WAVE), PAPER)
        picture.paste(beside(portrait, frame.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
        picture.paste(wave, (0, SIDE))
        x = round(index / len(film) * 2 * SIDE)
        ImageDraw.Draw(picture).line((x, SIDE, x, SIDE + WAVE), MARK, 2)
        made.append(picture)
    return made


def wave_picture(width: int, seconds: float) -> Image.Image:
    """The loudness of the example speech over time."""
    with av.open(str(EXAMPLES / "speech.wav")) as sound:
        rate = sound.streams.audio[0].rate
        samples = np.concatenate(
            [frame.to_ndarray().ravel() for frame in sound.decode(audio=0)]
        ).astype(np.float32)
    samples = np.pad(samples, (0, max(0, round(seconds * rate) - len(samples))))
    loud = np.array([np.abs(part).max() for part in np.array_split(samples, width)])
    picture = Image.new("RGB", (width, WAVE), PAPER)
    draw = ImageDraw.Draw(picture)
    for x, height in enumerate(loud / loud.max() * (WAVE / 2 - 4)):
        draw.line((x, WAVE / 2 - height, x, WAVE / 2 + height), INK)
    return picture


def save_film(name: str, film: Film, quality: int = 60) -> None:
    first, *rest = film
    file = PICTURES / f"{name}.webp"
    first.save(
        file, save_all=True, append_images=rest, duration=1000 // FPS, loop=0, quality=quality
    )
    print(f"{file}: {len(film)} frames, {file.stat().st_size / 1e3:.0f} kB", flush=True)


def save_strip(name: str, film: Film, count: int = 6) -> None:
    """`count` frames at equal distances, in a row."""
    chosen = [film[(2 * i + 1) * len(film) // (2 * count)] for i in range(count)]
    save_film(name, [beside(*chosen)], quality=85)


def save_card(name: str, film: Film) -> None:
    """The picture of a template: every second frame, small."""
    height = round(CARD * film[0].height / film[0].width)
    small = [frame.resize((CARD, height), Image.Resampling.LANCZOS) for frame in film[::2]]
    file = HERE / f"{name}.jpg"
    first, *rest = small
    options = {"append_images": rest, "duration": 2000 // FPS, "loop": 0, "quality": 50}
    first.save(file, format="WEBP", save_all=True, **options)
    print(f"{file}: {len(small)} frames, {file.stat().st_size / 1e3:.0f} kB", flush=True)


def any_length(films: dict[str, Film]) -> None:
    save_film("speaks", with_speech(films["save"]))
    save_strip("2-any-length", films["save"])


def stock_samplers(films: dict[str, Film]) -> None:
    pairs = zip(films["save"], films["preview"], strict=True)
    save_film("4-stock-samplers", [beside(*pair) for pair in pairs])


def group_and_song(films: dict[str, Film]) -> None:
    group = Image.open(EXAMPLES / "group.png").convert("RGB")
    height = films["save"][0].height
    group = group.resize((3 * height, height), Image.Resampling.LANCZOS)
    save_film("6-group-and-song", [beside(group, frame) for frame in films["save"]])


DOCUMENTED: dict[str, Callable[[dict[str, Film]], None]] = {
    "1 Quick start": lambda films: save_film("1-quick-start", films["save"]),
    "2 Any length": any_length,
    "3 Three segments by hand": lambda films: save_strip("3-three-segments", films["save"]),
    "4 Stock samplers": stock_samplers,
    "6 Group and song": group_and_song,
    "7 Dialogue": lambda films: save_strip("7-dialogue", films["save"], 4),
    "9 New words": lambda films: save_strip("9-new-words", films["save"]),
}
"""The pictures of the documentation."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("names", nargs="*", default=list(WORKFLOWS))
    options = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    for name in options.names:
        films = run(options.address, WORKFLOWS[name])
        save_card(name, films["save"])
        if name in DOCUMENTED:
            DOCUMENTED[name](films)


if __name__ == "__main__":
    main()
