// The settings of the store of finished segments, and room for the texts under our nodes.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { ask } from "./ask.js";
import { say, texts } from "./texts.js";

const SEGMENTS = "/hallo3/segments";

// The front end itself translates the settings and the command by their ids.
const { settings, commands } = texts.en;

function inWords({ folder, segments, bytes }) {
  const size = bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
  return say("kept", { folder, segments, size });
}

// What is left, in words. Nothing if the segments cannot be deleted.
async function emptyStore() {
  const answer = await ask(say("delete"), SEGMENTS, { method: "DELETE" });
  if (!answer) return;
  const detail = inWords(await answer.json());
  const summary = say("deleted");
  app.extensionManager.toast.add({ severity: "success", summary, detail, life: 5000 });
  return detail;
}

function storeElement() {
  const element = document.createElement("div");
  const text = document.createElement("span");
  const button = document.createElement("button");
  button.textContent = say("delete");
  button.className = "p-button p-component p-button-sm";
  button.onclick = async () => {
    const left = await emptyStore();
    if (left) text.textContent = `${left} `;
  };
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
      ...settings.Hallo3_SegmentStore_Empty,
      type: storeElement,
      defaultValue: null,
    },
    {
      id: "Hallo3.SegmentStore.Size",
      category: ["Hallo3", "Finished segments", "Size"],
      ...settings.Hallo3_SegmentStore_Size,
      type: "number",
      defaultValue: 20,
      attrs: { min: 0, max: 10000, showButtons: true },
    },
  ],
  commands: [
    {
      id: "Hallo3.EmptySegmentStore",
      ...commands.Hallo3_EmptySegmentStore,
      function: emptyStore,
    },
  ],
  menuCommands: [{ path: ["Hallo3"], commands: ["Hallo3.EmptySegmentStore"] }],
});
