// The example pictures and sounds: when a graph names them and ComfyUI's input folder does not have
// them, we ask whether to copy them there.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { ask } from "./ask.js";
import { say, texts } from "./texts.js";

const EXAMPLES = "/hallo3/examples";
const LOADERS = ["LoadImage", "LoadAudio"];
const NAME = /^hallo3_[a-z]+\.(png|wav)$/;

let created = []; // loaders whose values are not set yet
let asked = false; // once is enough

const graphs = () => [app.rootGraph, ...app.rootGraph.subgraphs.values()];
const aMoment = () => new Promise((done) => setTimeout(done, 100));

// One question for all loaders of a graph.
function consider(node) {
  if (!LOADERS.includes(node.comfyClass)) return;
  if (created.push(node) === 1) setTimeout(() => offer(created.splice(0)));
}

async function offer(loaders) {
  while (app.graph.nodes.some((node) => node.flags.ghost)) await aMoment(); // still on the pointer
  const present = graphs();
  const files = loaders
    .filter((node) => present.includes(node.graph))
    .map((node) => node.widgets?.[0]?.value);
  if (asked || !files.some((file) => NAME.test(file))) return;
  const missing = await (await api.fetchApi(EXAMPLES)).json();
  const itemList = missing.filter((name) => files.includes(name));
  if (!itemList.length || asked) return;
  asked = true;
  const question = { title: say("examples"), message: say("offer"), itemList };
  if (await app.extensionManager.dialog.confirm(question)) await copy();
}

async function copy() {
  if (!(await ask(say("examples"), EXAMPLES, { method: "POST" }))) return;
  await app.refreshComboInNodes();
  for (const graph of graphs())
    for (const node of graph.nodes)
      for (const widget of node.widgets ?? [])
        if (NAME.test(widget.value)) showAgain(node, widget);
}

// As if the user had chosen the same file again: the node shows it, and is not marked as wrong.
function showAgain(node, widget) {
  widget.callback?.(widget.value);
  node.onWidgetChanged?.(widget.name, widget.value, widget.value, widget);
}

app.registerExtension({
  name: "Hallo3.Examples",
  nodeCreated: consider,
  commands: [
    {
      id: "Hallo3.CopyExamples",
      ...texts.en.commands.Hallo3_CopyExamples,
      function: copy,
    },
  ],
  menuCommands: [{ path: ["Hallo3"], commands: ["Hallo3.CopyExamples"] }],
});
