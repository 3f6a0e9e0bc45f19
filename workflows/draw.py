"""Draws the shipped workflows in a running ComfyUI's own front end, and runs them.

    python workflows/draw.py http://127.0.0.1:8188 [--run]

Every graph below becomes a .json (UI format) and a .jpg (a screenshot of it) in this folder. With
--run each one is queued from the browser, too, and must finish with a video. Needs playwright
and Chromium; the pack does not.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
BUILT_IN = "built-in tiny model"

LOADED = {
    "dit": ("Hallo3LoadDiT", (0, 0), {"model_name": BUILT_IN}, {}),
    "vae": ("Hallo3LoadVAE", (0, 160), {"vae_name": BUILT_IN}, {}),
    "wav2vec2": ("Hallo3LoadSpeechEncoder", (0, 290), {"encoder_name": BUILT_IN}, {}),
    "portrait": ("LoadImage", (0, 420), {"image": "hallo3_portrait.png"}, {}),
    "sound": ("LoadAudio", (0, 800), {"audio": "hallo3_speech.wav"}, {}),
    "identity": (
        "Hallo3EncodeIdentity",
        (340, 0),
        {"seed": 0},
        {"image": "portrait", "vae": "vae", "reference_network": "dit.1"},
    ),
    "speech": (
        "Hallo3EncodeSpeech",
        (340, 280),
        {},
        {"audio": "sound", "speech_encoder": "wav2vec2"},
    ),
}
WHO = {"identity": "identity", "speech": "speech"}
FILES = """Runs as it is, on the built-in tiny model with random weights (coloured noise).

For the real thing choose these files in the three loaders:
- models/diffusion_models: mp_rank_00_model_states.pt (Hallo3)
- models/vae: 3d-vae.pt (Hallo3), or a CogVideoX VAE in diffusers' names
- models/audio_encoders: wav2vec2-base-960h (folder or file)

Example files: python -m hallo3_core examples ComfyUI/input"""


def sample(index: int, at: tuple[int, int], **links: str) -> tuple:
    settings = {"segment_index": index, "steps": 10, "seed": 0}
    return ("Hallo3SampleSegment", at, settings, {"model": "dit", **WHO, **links})


def decode(latent: str, at: tuple[int, int]) -> tuple:
    links = {"latent": latent, "vae": "vae", "identity": "identity"}
    return ("Hallo3DecodeVAE", at, {}, links)


def extend(index: int, frames: str, at: tuple[int, int]) -> tuple:
    settings = {"segment_index": index, "seed": 0}
    links = {"frames": frames, "identity": "identity", "vae": "vae"}
    return ("Hallo3ExtendWithMotionFrames", at, settings, links)


def save(frames: str, at: tuple[int, int]) -> dict:
    x, y = at
    return {
        "video": ("CreateVideo", at, {"fps": 25}, {"images": frames, "audio": "sound"}),
        "save": ("SaveVideo", (x + 290, y), {"filename_prefix": "hallo3"}, {"video": "video"}),
    }


WORKFLOWS = {
    "1 Quick start": (
        "One segment of 1.88 s.\n\n" + FILES,
        {
            **LOADED,
            "sample": sample(0, (680, 0)),
            "decode": decode("sample", (1020, 0)),
            **save("decode", (1020, 180)),
        },
    ),
    "2 Any length": (
        "The whole speech. Stop whenever you like and queue again: finished segments are kept.\n\n"
        + FILES,
        {
            **LOADED,
            "animate": (
                "Hallo3AnimatePortrait",
                (680, 0),
                {"steps": 10, "seed": 0},
                {"model": "dit", "vae": "vae", **WHO},
            ),
            "save": (
                "SaveVideo",
                (1040, 0),
                {"filename_prefix": "hallo3"},
                {"video": "animate.3"},
            ),
        },
    ),
    "3 Three segments by hand": (
        "The motion frames pass through a blend with the portrait on their way to the next "
        "segment, which holds its colours; put any image node there.\n\n" + FILES,
        {
            **LOADED,
            "sample 0": sample(0, (680, 0)),
            "decode 0": decode("sample 0", (680, 420)),
            "blend 0": (
                "ImageBlend",
                (680, 560),
                {"blend_factor": 0.1},
                {"image1": "decode 0.0", "image2": "identity.1"},
            ),
            "extend 1": extend(1, "blend 0", (680, 740)),
            "sample 1": sample(1, (1020, 0), motion="extend 1"),
            "decode 1": decode("sample 1", (1020, 420)),
            "blend 1": (
                "ImageBlend",
                (1020, 560),
                {"blend_factor": 0.1},
                {"image1": "decode 1.0", "image2": "identity.1"},
            ),
            "extend 2": extend(2, "blend 1", (1020, 740)),
            "sample 2": sample(2, (1360, 0), motion="extend 2"),
            "decode 2": decode("sample 2", (1360, 420)),
            "join": (
                "BatchImagesNode",
                (1360, 560),
                {},
                {f"images.image{i}": f"decode {i}" for i in range(3)},
            ),
            **save("join", (1360, 720)),
        },
    ),
    "4 Stock samplers": (
        "Segment Conditioning hands a segment to any sampler of ComfyUI. Above, Hallo3 Sampler and "
        "Scheduler give the published sampling; below, KSampler.\n\n" + FILES,
        {
            **LOADED,
            "segment": (
                "Hallo3SegmentConditioning",
                (680, 0),
                {"segment_index": 0},
                {"model": "dit", **WHO},
            ),
            "noise": ("RandomNoise", (680, 200), {"noise_seed": 0}, {}),
            "sampler": ("Hallo3Sampler", (680, 320), {}, {}),
            "sigmas": ("Hallo3Scheduler", (680, 420), {"steps": 10}, {"model": "dit"}),
            "guider": (
                "CFGGuider",
                (1020, 0),
                {"cfg": 3.5},
                {"model": "dit", "positive": "segment", "negative": "segment.1"},
            ),
            "custom": (
                "SamplerCustomAdvanced",
                (1020, 180),
                {},
                {
                    "noise": "noise",
                    "guider": "guider",
                    "sampler": "sampler",
                    "sigmas": "sigmas",
                    "latent_image": "segment.2",
                },
            ),
            "decode": decode("custom", (1020, 360)),
            **save("decode", (1020, 500)),
            "ksampler": (
                "KSampler",
                (680, 560),
                {"steps": 10, "cfg": 3.5, "sampler_name": "dpmpp_2m_sde", "seed": 0},
                {
                    "model": "dit",
                    "positive": "segment",
                    "negative": "segment.1",
                    "latent_image": "segment.2",
                },
            ),
            "decode 2": decode("ksampler", (1020, 850)),
            "preview": ("PreviewImage", (1320, 850), {}, {"images": "decode 2"}),
        },
    ),
}

CANVAS = {"x": 60, "y": 40, "width": 1540, "height": 900}
"""The part of the page that shows the graph."""

DRAW = """async ([spec, note]) => {
  const app = window.app, LiteGraph = window.LiteGraph;
  app.graph.clear();
  const nodes = {};
  for (const [key, [type, pos, widgets]] of Object.entries(spec)) {
    const node = LiteGraph.createNode(type);
    if (!node) throw new Error('no node ' + type);
    node.pos = pos;
    app.graph.add(node);
    for (const [name, value] of Object.entries(widgets)) {
      const widget = node.widgets.find(widget => widget.name === name);
      if (!widget) throw new Error(type + ' has no ' + name);
      widget.value = value;
    }
    for (const widget of node.widgets || [])
      if (widget.name === 'control_after_generate') widget.value = 'fixed';
    nodes[key] = node;
  }
  for (const [key, [type, pos, widgets, links]] of Object.entries(spec))
    for (const [name, from] of Object.entries(links)) {
      const [source, output] = from.split('.');
      const slot = nodes[key].findInputSlot(name);
      if (slot < 0) throw new Error(type + ' has no input ' + name);
      nodes[source].connect(Number(output || 0), nodes[key], slot);
      await new Promise(done => setTimeout(done, 50));  // a batch grows its next input
    }
  const text = LiteGraph.createNode('MarkdownNote') || LiteGraph.createNode('Note');
  text.pos = [340, 470];
  text.size = [310, 400];
  app.graph.add(text);
  text.widgets[0].value = note;
  return JSON.stringify(app.graph.serialize(), null, 1);
}"""

FIT = """() => {
  const canvas = window.app.canvas;
  if (canvas.ds.fitToBounds) {
    let box = [1e9, 1e9, -1e9, -1e9];
    for (const node of window.app.graph._nodes) {
      box[0] = Math.min(box[0], node.pos[0]); box[1] = Math.min(box[1], node.pos[1] - 30);
      box[2] = Math.max(box[2], node.pos[0] + node.size[0]);
      box[3] = Math.max(box[3], node.pos[1] + node.size[1]);
    }
    canvas.ds.fitToBounds(
      [box[0] - 130, box[1] - 120, box[2] - box[0] + 180, box[3] - box[1] + 260], {zoom: 1}
    );
  }
  canvas.setDirty(true, true);
}"""


def open_page(browser, address: str) -> Page:
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(address)
    page.wait_for_function("window.app && window.app.graph && window.LiteGraph", timeout=60_000)
    time.sleep(3)
    page.evaluate("() => window.app.extensionManager.setting.set('Comfy.Minimap.Visible', false)")
    return page


def run(page: Page, address: str, graph: str) -> list[str]:
    """Queue a graph from the browser; the names of the videos it saved."""
    page.evaluate("json => window.app.loadGraphData(JSON.parse(json))", graph)
    before = set(history(page, address))
    page.evaluate("() => window.app.queuePrompt(0)")
    for _ in range(300):
        time.sleep(2)
        new = {key: value for key, value in history(page, address).items() if key not in before}
        for entry in new.values():
            if entry["status"]["status_str"] != "success":
                raise SystemExit(json.dumps(entry["status"])[:2000])
            return [
                file["filename"]
                for output in entry["outputs"].values()
                for kind in output.values()
                for file in kind
                if isinstance(file, dict)
            ]
    raise SystemExit("no result after ten minutes")


def history(page: Page, address: str) -> dict:
    return page.request.get(f"{address}/history").json()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--run", action="store_true")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--headless", "--no-sandbox", "--disable-gpu"],
        )
        page = open_page(browser, options.address)
        for name, (note, spec) in WORKFLOWS.items():
            graph = page.evaluate(DRAW, [spec, note])
            (HERE / f"{name}.json").write_text(graph + "\n")
            page.evaluate("json => window.app.loadGraphData(JSON.parse(json))", graph)
            time.sleep(1)
            page.evaluate(FIT)
            time.sleep(1)
            page.screenshot(path=HERE / f"{name}.jpg", type="jpeg", quality=80, clip=CANVAS)
            made = run(page, options.address, graph) if options.run else []
            print(name, made, flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
