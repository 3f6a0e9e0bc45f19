import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { add, api, app, begin, done, Node } from "./front_end.js";

const KINDS = { png: "image/png", wav: "audio/wav", mp4: "video/mp4", txt: "text/plain" };

const file = (name) => new File([""], name, { type: KINDS[name.split(".")[1]] });
const drop = (node, ...names) => node.onDragDrop({ dataTransfer: { files: names.map(file) } });
const ours = () => new Node("Hallo3AnimatePortrait");
const types = () => app.graph.nodes.map((node) => node.type);
const fileOf = (node) => node.widgets[0].value;

const blueprint = (inputs, inside = [ours()], outputs = ["VIDEO"]) =>
  add(new Node("blueprint", { inputs, outputs, inside }));

// A blueprint that has its loader inside. The widget of the loader is outside, too.
function withLoaderInside() {
  const loader = new Node("LoadImage", { inputs: ["INT", "COMBO"] });
  loader.inputs[1].widget = { name: "image" };
  loader.inputs[1].link = 7;
  const node = new Node("blueprint", { inputs: ["FLOAT", "COMBO"], inside: [ours(), loader] });
  node.subgraph.links.set(7, { origin_slot: 1 });
  node.widgets.push({ name: "0" }, { name: "1", value: "", options: { values: [] } });
  return add(node);
}

beforeEach(() => begin("blueprints.js"));

test("dropped files go into the inputs of their kind, and the video is saved", async () => {
  const node = blueprint(["VIDEO", "AUDIO", "FLOAT", "IMAGE"]);
  assert.equal(await drop(node, "me.png", "voice.wav"), true);
  assert.deepEqual(types(), ["blueprint", "LoadImage", "LoadAudio", "SaveVideo"]);
  const [sound, picture, save] = [node.source(1), node.source(3), app.graph.nodes[3]];
  assert.deepEqual([sound.type, fileOf(sound)], ["LoadAudio", "voice.wav"]);
  assert.deepEqual([picture.type, fileOf(picture)], ["LoadImage", "me.png"]);
  assert.deepEqual(sound.widgets[0].options.values, ["voice.wav"]);
  assert.deepEqual(done.shown, ["me.png", "voice.wav"]);
  assert.deepEqual([save.source(0), fileOf(save)], [node, "hallo3"]);
  assert.equal(node.source(0), undefined);
});

test("files of one kind go into one input after the other", async () => {
  const node = blueprint(["IMAGE", "IMAGE"]);
  await drop(node, "a.png", "b.png");
  assert.deepEqual([fileOf(node.source(0)), fileOf(node.source(1))], ["a.png", "b.png"]);
  const [first, second] = [node.source(0).pos, node.source(1).pos];
  assert.equal(first[0], second[0]);
  assert.ok(second[1] >= first[1] + node.source(0).size[1], "the loaders overlap");
});

test("if no input is open, the first of that kind gets another file", async () => {
  const node = blueprint(["IMAGE", "IMAGE"]);
  await drop(node, "a.png", "b.png");
  await drop(node, "c.png");
  assert.deepEqual([fileOf(node.source(0)), fileOf(node.source(1))], ["c.png", "b.png"]);
  assert.equal(types().filter((type) => type === "LoadImage").length, 2);
  assert.equal(types().filter((type) => type === "SaveVideo").length, 1);
});

test("a loader inside gets the file", async () => {
  const node = withLoaderInside();
  const changes = [];
  node.onWidgetChanged = (...change) => changes.push(change.slice(0, 3));
  await drop(node, "me.png");
  assert.deepEqual(types(), ["blueprint"]);
  assert.equal(node.widgets[1].value, "me.png");
  assert.deepEqual(changes, [["1", "me.png", ""]]);
});

test("the front end itself gets files that no input takes", async () => {
  const node = blueprint(["IMAGE"]);
  assert.equal(await drop(node, "notes.txt", "voice.wav"), false);
  assert.deepEqual([done.requests, types()], [[], ["blueprint"]]);
  assert.equal(await drop(node, "notes.txt", "me.png"), true);
  assert.deepEqual(done.requests, ["POST /upload/image"]);
});

test("the user reads why a file was not taken, and the other files are", async () => {
  const node = blueprint(["IMAGE", "AUDIO", "VIDEO"]);
  done.answers["POST /upload/image"] = (body) => {
    const { name } = body.get("image");
    if (name === "me.png") return new Response(null, { status: 413, statusText: "Too Large" });
    if (name === "film.mp4") throw new TypeError("Failed to fetch");
    return Response.json({ name });
  };
  await drop(node, "me.png", "film.mp4", "voice.wav");
  const severity = "error";
  assert.deepEqual(done.messages, [
    { severity, summary: "me.png", detail: "413 Too Large" },
    { severity, summary: "film.mp4", detail: "Failed to fetch" },
  ]);
  assert.deepEqual([node.source(0), node.source(2)], [undefined, undefined]);
  assert.equal(fileOf(node.source(1)), "voice.wav");
});

test("a video that is saved already is not saved twice", async () => {
  await drop(blueprint(["IMAGE"], [ours(), new Node("SaveVideo")]), "me.png");
  await drop(blueprint(["IMAGE"], [ours()], ["IMAGE"]), "me.png");
  assert.ok(!types().includes("SaveVideo"));
});

test("other nodes stay as they are", () => {
  const stock = add(new Node("blueprint", { inputs: ["IMAGE"], inside: [new Node("KSampler")] }));
  const plain = add(new Node("Hallo3FindFace", { inputs: ["IMAGE"] }));
  const closed = blueprint(["LATENT"]);
  for (const node of [stock, plain, closed])
    assert.deepEqual([node.onDragDrop, node.widgets], [undefined, []]);
});

test("the button opens files of the kinds that the inputs take", async () => {
  const node = blueprint(["IMAGE", "AUDIO"]);
  const [button] = node.widgets;
  assert.deepEqual([button.type, button.name, button.serialize], ["button", "choose files", false]);
  button.callback();
  const input = done.element;
  assert.deepEqual([input.type, input.accept, input.multiple], ["file", "image/*,audio/*", true]);
  input.files = [file("me.png"), file("notes.txt")];
  await input.onchange();
  assert.equal(fileOf(node.source(0)), "me.png");
});

test("the node shows the video that is saved inside, and only that", () => {
  const node = blueprint(["IMAGE"]);
  const executed = (id, filename) => {
    const images = [{ filename, subfolder: "", type: "output" }];
    api.dispatchCustomEvent("executed", { node: id, output: { images } });
  };
  executed(`${node.id}:3`, "preview.png");
  executed(`${node.id}`, "a.mp4");
  assert.deepEqual(node.widgets.map((each) => each.type), ["button"]);
  executed(`${node.id}:3`, "a.mp4");
  executed(`${node.id}:3`, "b b.mp4");
  const [, video] = node.widgets;
  assert.equal(node.widgets.length, 2);
  assert.equal(video.element.src, "/api/view?filename=b+b.mp4&subfolder=&type=output");
  assert.equal(video.serialize, false);
});
