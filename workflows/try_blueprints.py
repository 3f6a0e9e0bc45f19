"""Uses the blueprints in the front end of a running ComfyUI as a user does, and runs them.

    python workflows/try_blueprints.py http://127.0.0.1:8188 [NAME ...]

Each blueprint (or each NAME) is found by the search, placed on an empty canvas, given files by
dropping them on it, and run, in both styles of nodes. It must save a video. Restore the Face needs
RealESRGAN_x4plus.safetensors in models/upscale_models. This script needs playwright and Chromium;
the pack does not.
"""

import base64
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

from blueprints import BLUEPRINTS
from front_end import CLASSIC, MODERN, arguments, chromium, open_page, run
from playwright.sync_api import Page, sync_playwright

EXAMPLES = Path(__file__).resolve().parents[1] / "hallo3_core" / "builtin" / "example"
PICTURE, PAIR, SOUND, VIDEO = "portrait.png", "pair.png", "speech.wav", "video.mp4"
TYPES = {".png": "image/png", ".wav": "audio/wav", ".mp4": "video/mp4"}

FILES = {
    "Talking Portrait (Hallo3)": (PICTURE, SOUND),
    "Portrait and Speech to Video (Hallo3)": (PICTURE, SOUND),
    "Continue a Video (Hallo3)": (VIDEO, SOUND),
    "Dialogue of Two (Hallo3)": (PAIR, SOUND, SOUND),
    "New Words for a Video (Hallo3)": (VIDEO, SOUND),
    "Restore the Face (Hallo3)": (VIDEO,),
}
"""What is dropped on each. The first one makes the video for those that need one."""

PLACE = (760, 170)
"""Where a blueprint is placed, in pixels of the page."""

DROP = """async ([files, x, y]) => {
  const dataTransfer = new DataTransfer();
  for (const [name, type, text] of files) {
    const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    dataTransfer.items.add(new File([bytes], name, { type }));
  }
  const target = document.elementFromPoint(x, y);
  const where = { dataTransfer, bubbles: true, cancelable: true, clientX: x, clientY: y };
  target.dispatchEvent(new DragEvent("dragenter", where));
  target.dispatchEvent(new DragEvent("dragover", where));
  await new Promise((done) => setTimeout(done, 200));
  target.dispatchEvent(new DragEvent("drop", where));
}"""


def place(page: Page, name: str) -> None:
    page.evaluate("() => window.app.graph.clear()")
    time.sleep(1)
    page.mouse.dblclick(1100, 850)
    time.sleep(1)
    page.keyboard.type(name.removesuffix(" (Hallo3)"), delay=20)
    time.sleep(2)
    page.keyboard.press("Enter")
    time.sleep(1)
    page.mouse.click(*PLACE)
    time.sleep(2)
    titles = page.evaluate("() => window.app.graph.nodes.map((node) => node.title)")
    if titles != [name]:
        raise SystemExit(f"{name}: the search gave {titles}")


def drop(page: Page, contents: dict[str, bytes], names: tuple[str, ...]) -> None:
    files = [
        (f"{number} {name}", TYPES[Path(name).suffix], base64.b64encode(contents[name]).decode())
        for number, name in enumerate(names)
    ]
    page.evaluate(DROP, [files, PLACE[0] + 40, PLACE[1] + 100])
    time.sleep(3)


def main() -> int:
    options = arguments(__doc__, BLUEPRINTS).parse_args()
    contents = {name: (EXAMPLES / name).read_bytes() for name in (PICTURE, PAIR, SOUND)}
    first, *_ = FILES
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        for name in dict.fromkeys((first, *options.names)):
            for style in (CLASSIC, MODERN):
                page = open_page(browser, options.address, style)
                page.request.post(f"{options.address}/hallo3/examples")  # so that nobody is asked
                place(page, name)
                drop(page, contents, FILES[name])
                (made,), _ = run(page, options.address)
                print(f"{name}: {made}", flush=True)
                if name == first:
                    query = urlencode({"filename": made, "type": "output"})
                    contents[VIDEO] = page.request.get(f"{options.address}/view?{query}").body()
                page.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
