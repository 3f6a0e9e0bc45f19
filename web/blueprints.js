// Subgraphs of our nodes, such as the blueprints: they take files that are dropped on them, or chosen
// with a button, and show the video that is saved inside.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { ask } from "./ask.js";
import { say } from "./texts.js";

// What loads a file, what it gives, and its height on the canvas, by the kind of the file. The first
// widget of a loader is the file.
const KINDS = {
  image: { loader: "LoadImage", type: "IMAGE", height: 380 },
  audio: { loader: "LoadAudio", type: "AUDIO", height: 200 },
  video: { loader: "LoadVideo", type: "VIDEO", height: 420 },
};
const SAVE = "SaveVideo";
const VIDEO = "hallo3_video"; // the name of the widget that shows the video
const GAP = 60;
const WIDTH = 320; // of a loader

const isOurs = (node) =>
  node.isSubgraphNode?.() && node.subgraph.nodes.some((each) => each.type.startsWith("Hallo3"));

const kindOf = (file) => KINDS[file.type.split("/")[0]];

// The widget outside that sets the file of a loader inside.
function widgetFor(node, { loader }) {
  const inside = node.subgraph.nodes.find((each) => each.type === loader);
  const link = inside && node.subgraph.links.get(inside.inputs.find((each) => each.widget)?.link);
  const name = node.inputs[link?.origin_slot]?.name;
  return name && node.widgets.find((widget) => widget.name === name);
}

const socketsFor = (node, { type }) => node.inputs.filter((each) => each.type === type);

const takes = (node, kind) => widgetFor(node, kind) ?? socketsFor(node, kind)[0];

// The name that ComfyUI gives the file; none if it does not take the file.
async function upload(file) {
  const body = new FormData();
  body.append("image", file);
  const answer = await ask(file.name, "/upload/image", { method: "POST", body });
  return (await answer?.json())?.name;
}

function choose(node, widget, file) {
  if (!widget.options.values.includes(file)) widget.options.values.push(file);
  const before = widget.value;
  widget.value = file;
  widget.callback?.(file);
  node.onWidgetChanged?.(widget.name, file, before, widget);
}

function add(type, pos) {
  const node = window.LiteGraph.createNode(type);
  node.pos = pos;
  app.graph.add(node);
  return node;
}

// A loader for the first open socket, or the loader that the first socket has already.
function loaderFor(node, kind) {
  const sockets = socketsFor(node, kind);
  const open = sockets.find((each) => each.link == null);
  if (!open) return app.graph.getNodeById(app.graph.links.get(sockets[0].link).origin_id);
  const slot = node.inputs.indexOf(open);
  const above = node.inputs.slice(0, slot).filter((each) => each.link != null);
  const heights = above.map((each) => Object.values(KINDS).find(({ type }) => type === each.type));
  const top = heights.reduce((sum, each) => sum + (each?.height ?? 0), node.pos[1]);
  const loader = add(kind.loader, [node.pos[0] - WIDTH - GAP, top]);
  loader.connect(0, node, slot);
  return loader;
}

function saveVideo(node) {
  const slot = node.outputs.findIndex((each) => each.type === "VIDEO");
  const used = node.outputs.some((each) => each.links?.length);
  if (slot < 0 || used || node.subgraph.nodes.some((each) => each.type === SAVE)) return;
  const save = add(SAVE, [node.pos[0] + node.size[0] + GAP, node.pos[1]]);
  save.widgets[0].value = "hallo3";
  node.connect(slot, save, 0);
}

async function fill(node, files) {
  for (const file of files) {
    const kind = kindOf(file);
    const widget = widgetFor(node, kind);
    const name = await upload(file);
    if (!name) continue;
    if (widget) choose(node, widget, name);
    else {
      const loader = loaderFor(node, kind);
      choose(loader, loader.widgets[0], name);
    }
  }
  saveVideo(node);
}

const wanted = (node, files) => files.filter((file) => kindOf(file) && takes(node, kindOf(file)));

async function drop(node, event) {
  const files = wanted(node, [...event.dataTransfer.files]);
  if (!files.length) return false; // the front end makes nodes for them
  await fill(node, files);
  return true;
}

function openFiles(node) {
  const input = document.createElement("input");
  const kinds = Object.keys(KINDS).filter((name) => takes(node, KINDS[name]));
  Object.assign(input, { type: "file", multiple: true, accept: kinds.map((k) => `${k}/*`).join() });
  input.onchange = () => fill(node, wanted(node, [...input.files]));
  input.click();
}

function begin(node) {
  if (!isOurs(node) || !Object.values(KINDS).some((kind) => takes(node, kind))) return;
  node.onDragOver = (event) => [...event.dataTransfer.items].some((each) => each.kind === "file");
  node.onDragDrop = (event) => drop(node, event);
  const button = node.addWidget("button", say("choose"), null, () => openFiles(node));
  button.serialize = false;
}

// The element that shows the video of a node. It is not saved with the graph.
function videoOf(node) {
  const shown = node.widgets.find((widget) => widget.name === VIDEO);
  if (shown) return shown.element;
  const video = Object.assign(document.createElement("video"), { controls: true, loop: true });
  video.style.width = "100%";
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => node.size[0] * 0.7 };
  node.addDOMWidget(VIDEO, "video", video, options).serialize = false;
  node.setSize([node.size[0], node.computeSize()[1]]);
  return video;
}

function showVideo({ detail: { node: id, output } }) {
  const [outside, inside] = String(id).split(":");
  const node = inside && app.rootGraph.getNodeById(outside);
  const file = output?.images?.find((each) => /\.(mp4|mov|webm)$/.test(each.filename));
  if (file && node && isOurs(node))
    videoOf(node).src = api.apiURL(`/view?${new URLSearchParams(file)}`);
}

app.registerExtension({
  name: "Hallo3.Blueprints",
  nodeCreated: begin,
  setup: () => api.addEventListener("executed", showVideo),
});
