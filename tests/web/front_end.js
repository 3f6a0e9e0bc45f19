// ComfyUI's front end, as far as our scripts use it. It remembers what they did.

import { readFileSync } from "node:fs";

const LOCALES = new URL("locales/", import.meta.url);
const read = (name) => JSON.parse(readFileSync(new URL(`${name}.json`, LOCALES), "utf-8"));
const textsIn = (language) => ({
  ...read(`${language}/main`),
  settings: read(`${language}/settings`),
  commands: read(`${language}/commands`),
});

export const done = {}; // what our scripts did since `begin`

class Graph {
  nodes = [];
  links = new Map();
  subgraphs = new Map();

  add(node) {
    node.id ??= this.nodes.length + 1;
    node.graph = this;
    this.nodes.push(node);
    return node;
  }

  getNodeById(id) {
    return this.nodes.find((node) => String(node.id) === String(id));
  }
}

export class Node {
  constructor(type, { inputs = [], outputs = [], widgets = [], inside } = {}) {
    Object.assign(this, { type, comfyClass: type, pos: [0, 0], size: [300, 200], flags: {} });
    this.inputs = inputs.map((kind, slot) => ({ name: `${slot}`, type: kind, link: null }));
    this.outputs = outputs.map((kind) => ({ type: kind, links: [] }));
    this.widgets = widgets.map((value) => widget("file", value));
    if (inside) this.subgraph = inside.reduce((graph, node) => (graph.add(node), graph), new Graph());
  }

  isSubgraphNode() {
    return Boolean(this.subgraph);
  }

  addWidget(type, name, value, callback) {
    this.widgets.push({ ...widget(name, value), type, callback });
    return this.widgets.at(-1);
  }

  addDOMWidget(name, type, element) {
    this.widgets.push({ ...widget(name), type, element });
    return this.widgets.at(-1);
  }

  computeSize() {
    const heights = this.widgets.map((each) => each.options.getMinHeight?.() ?? 0);
    return [300, heights.reduce((sum, height) => sum + height, 0)];
  }

  setSize(size) {
    this.size = size;
  }

  connect(slot, target, into) {
    const link = this.graph.links.size + 1;
    this.graph.links.set(link, { origin_id: this.id });
    this.outputs[slot].links.push(link);
    target.inputs[into].link = link;
  }

  // The node that is connected to an input.
  source(slot) {
    return this.graph.getNodeById(this.graph.links.get(this.inputs[slot].link)?.origin_id);
  }
}

function widget(name, value) {
  return { name, value, options: { values: [] }, callback: (file) => done.shown.push(file) };
}

const MADE = {
  LoadImage: { outputs: ["IMAGE"], widgets: [""] },
  LoadAudio: { outputs: ["AUDIO"], widgets: [""] },
  LoadVideo: { outputs: ["VIDEO"], widgets: [""] },
  SaveVideo: { inputs: ["VIDEO"], widgets: [""] },
};

export const app = {
  registerExtension: (extension) => Object.assign(done.extension, extension),
  refreshComboInNodes: async () => done.refreshed++,
  extensionManager: {
    setting: { get: () => done.language },
    toast: { add: (message) => done.messages.push(message) },
    dialog: { confirm: async (question) => (done.questions.push(question), done.agree) },
  },
};

export const api = {
  getCustomNodesI18n: async () => ({ en: textsIn("en"), de: textsIn("de") }),
  apiURL: (path) => `/api${path}`,
  addEventListener: (name, listener) => done.listeners.push([name, listener]),
  dispatchCustomEvent(name, detail) {
    for (const [heard, listener] of done.listeners) if (heard === name) listener({ detail });
  },
  async fetchApi(path, { method = "GET", body } = {}) {
    done.requests.push(`${method} ${path}`);
    const answer = done.answers[`${method} ${path}`];
    if (answer) return answer(body);
    if (path === "/upload/image") return Response.json({ name: body.get("image").name });
    throw new TypeError("Failed to fetch");
  },
};

globalThis.window = { LiteGraph: { createNode: (type) => new Node(type, MADE[type]) } };
globalThis.document = { createElement: (tag) => (done.element = { tag, style: {}, click() {} }) };
globalThis.requestAnimationFrame = (work) => work();

// Loads a script of ours into an empty front end. Its state is new, too.
export async function begin(script) {
  Object.assign(done, { questions: [], messages: [], requests: [], shown: [], refreshed: 0 });
  Object.assign(done, { agree: true, language: "en", answers: {}, extension: {}, listeners: [] });
  app.rootGraph = app.graph = new Graph();
  api.getWorkflowTemplates = async () => done.templates;
  begin.count = (begin.count ?? 0) + 1;
  await import(`./extensions/hallo3/${script}?${begin.count}`);
  done.extension.setup?.();
}

export const add = (node) => {
  app.graph.add(node);
  done.extension.nodeCreated?.(node);
  return node;
};

// Until what began before has ended: it waits for no real time.
export const settled = () => new Promise((end) => setTimeout(end, 1));
