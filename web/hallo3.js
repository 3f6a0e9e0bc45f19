// The settings of the store of finished segments, and room for the texts under our nodes.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const SEGMENTS = "/hallo3/segments";

function inWords({ folder, segments, bytes }) {
  const size = bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
  return `${segments} ${segments === 1 ? "segment" : "segments"}, ${size} in ${folder}`;
}

async function emptyStore() {
  const answer = await api.fetchApi(SEGMENTS, { method: "DELETE" });
  const detail = inWords(await answer.json());
  const summary = "Finished segments are deleted";
  app.extensionManager.toast.add({ severity: "success", summary, detail, life: 5000 });
  return detail;
}

function storeElement() {
  const element = document.createElement("div");
  const text = document.createElement("span");
  const button = document.createElement("button");
  button.textContent = "Delete";
  button.className = "p-button p-component p-button-sm";
  button.onclick = async () => (text.textContent = `${await emptyStore()} `);
  api
    .fetchApi(SEGMENTS)
    .then((answer) => answer.json())
    .then((store) => (text.textContent = `${inWords(store)} `));
  element.append(text, button);
  return element;
}

// Classic nodes give a text two lines and hide the rest. In pixels:
const CHARACTER = 6;
const LINE = 16;
const AROUND = 26;

function makeRoom({ detail: { nodeId, text } }) {
  const node = app.graph.getNodeById(nodeId);
  if (!node?.comfyClass?.startsWith("Hallo3") || window.LiteGraph.vueNodesMode) return;
  const widget = node.widgets?.find((each) => each.name === "$$node-text-preview");
  if (!widget) return;
  const width = Math.floor((node.size[0] - 2 * AROUND) / CHARACTER);
  const lines = text.split("\n").reduce((sum, line) => sum + Math.ceil(line.length / width), 0);
  widget.options.getMinHeight = () => Math.max(58, AROUND + LINE * lines);
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
}

// The sentence of an error of ours, where the user looks.
function showError({ detail: { node_id, exception_type, exception_message } }) {
  if (!exception_type.startsWith("hallo3_core.")) return;
  api.dispatchCustomEvent("progress_text", { nodeId: node_id, text: exception_message.trim() });
}

app.registerExtension({
  name: "Hallo3",
  setup() {
    api.addEventListener("progress_text", (event) => requestAnimationFrame(() => makeRoom(event)));
    api.addEventListener("execution_error", showError);
  },
  settings: [
    {
      id: "Hallo3.SegmentStore.Empty",
      category: ["Hallo3", "Finished segments", "Empty"],
      name: "What is kept",
      tooltip: "Finished segments of Animate Portrait. Without them a clip is computed anew.",
      type: storeElement,
      defaultValue: null,
    },
    {
      id: "Hallo3.SegmentStore.Size",
      category: ["Hallo3", "Finished segments", "Size"],
      name: "Disk space in GB",
      tooltip: "The segments that were not used for the longest time are deleted first. 0 keeps none.",
      type: "number",
      defaultValue: 20,
      attrs: { min: 0, max: 10000, showButtons: true },
    },
  ],
  commands: [
    { id: "Hallo3.EmptySegmentStore", label: "Hallo3: delete finished segments", function: emptyStore },
  ],
});
