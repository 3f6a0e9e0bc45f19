import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { add, app, begin, done, Node, settled } from "./front_end.js";

const PORTRAIT = "hallo3_portrait.png";
const SPEECH = "hallo3_speech.wav";
const ASK = "GET /hallo3/examples";
const COPY = "POST /hallo3/examples";

const load = (type, file) => new Node(type, { widgets: [file] });

function open(...nodes) {
  nodes.forEach(add);
  return settled();
}

beforeEach(async () => {
  await begin("examples.js");
  done.answers[ASK] = () => Response.json([PORTRAIT, SPEECH, "hallo3_song.wav"]);
  done.answers[COPY] = () => Response.json([]);
});

test("the missing examples of a graph are offered in one question, copied and shown", async () => {
  const portrait = load("LoadImage", PORTRAIT);
  portrait.onWidgetChanged = (...change) => done.shown.push(change.slice(0, 3));
  await open(portrait, load("LoadAudio", SPEECH), load("LoadImage", "mine.png"));
  const [{ title, message, itemList }] = done.questions;
  assert.equal(done.questions.length, 1);
  assert.equal(title, "Example files of Hallo3");
  assert.match(message, /Copy them there\?$/);
  assert.deepEqual(itemList, [PORTRAIT, SPEECH]);
  assert.deepEqual(done.requests, [ASK, COPY]);
  assert.equal(done.refreshed, 1);
  assert.deepEqual(done.shown, [PORTRAIT, ["file", PORTRAIT, PORTRAIT], SPEECH]);
  assert.deepEqual(done.messages, []);
});

test("a loader in a subgraph counts", async () => {
  const { subgraph } = new Node("subgraph", { inside: [load("LoadAudio", SPEECH)] });
  app.rootGraph.subgraphs.set("1", subgraph);
  done.extension.nodeCreated(subgraph.nodes[0]);
  await settled();
  assert.deepEqual(done.questions[0].itemList, [SPEECH]);
  assert.deepEqual(done.shown, [SPEECH]);
});

test("nobody is asked about other files, other nodes and nodes that are in no graph", async () => {
  await open(load("LoadImage", "mine.png"), load("LoadImage", `x${PORTRAIT}`));
  await open(load("LoadVideo", PORTRAIT), new Node("LoadImage"));
  done.extension.nodeCreated(load("LoadImage", PORTRAIT));
  await settled();
  assert.deepEqual(done.requests, []);
});

test("nobody is asked if the files are there", async () => {
  done.answers[ASK] = () => Response.json(["hallo3_song.wav"]);
  await open(load("LoadImage", PORTRAIT));
  assert.deepEqual([done.requests, done.questions], [[ASK], []]);
});

test("after a no, nothing is copied and nobody is asked again", async () => {
  done.agree = false;
  await open(load("LoadImage", PORTRAIT));
  await open(load("LoadAudio", SPEECH));
  assert.equal(done.questions.length, 1);
  assert.deepEqual([done.requests, done.shown], [[ASK], []]);
});

test("a node that is still on the pointer is waited for", async () => {
  const node = load("LoadImage", PORTRAIT);
  node.flags.ghost = true;
  await open(node);
  assert.deepEqual(done.requests, []);
  node.flags.ghost = false;
  while (!done.questions.length) await settled();
});

test("the user reads why the files were not copied", async () => {
  done.answers[COPY] = () => new Response("Nothing can be written.", { status: 500 });
  await open(load("LoadImage", PORTRAIT));
  const detail = "Nothing can be written.";
  assert.deepEqual(done.messages, [
    { severity: "error", summary: "Example files of Hallo3", detail },
  ]);
  assert.deepEqual([done.refreshed, done.shown], [0, []]);
});

test("the command copies without a question", async () => {
  await done.extension.commands.find(({ id }) => id === "Hallo3.CopyExamples").function();
  assert.deepEqual([done.requests, done.questions], [[COPY], []]);
});
