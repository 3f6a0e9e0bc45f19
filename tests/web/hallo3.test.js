import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { add, api, begin, done, Node, settled } from "./front_end.js";

const EMPTY = "DELETE /hallo3/segments";

const run = (name) => done.extension.commands.find(({ id }) => id === name).function();

beforeEach(() => begin("hallo3.js"));

test("the user reads what is left in the emptied store, in the language of the front end", async () => {
  done.answers[EMPTY] = () => Response.json({ folder: "/f", segments: 2, bytes: 34_400_000 });
  await run("Hallo3.EmptySegmentStore");
  done.language = "de";
  done.answers[EMPTY] = () => Response.json({ folder: "/f", segments: 2, bytes: 1_260_000_000 });
  await run("Hallo3.EmptySegmentStore");
  const [english, german] = done.messages;
  assert.equal(english.summary, "Finished segments are deleted");
  assert.equal(english.detail, "Segments: 2, 34 MB in /f");
  assert.match(german.detail, /^Segmente: 2, 1\.3 GB/);
});

test("a language that we do not have shows English", async () => {
  done.language = "tlh";
  done.answers[EMPTY] = () => Response.json({ folder: "/f", segments: 0, bytes: 0 });
  await run("Hallo3.EmptySegmentStore");
  assert.equal(done.messages[0].detail, "Segments: 0, 0 MB in /f");
});

test("the user reads why the segments were not deleted, and sees what is still there", async () => {
  done.answers["GET /hallo3/segments"] = () =>
    Response.json({ folder: "/f", segments: 2, bytes: 34_400_000 });
  done.answers[EMPTY] = () => new Response("/f cannot be deleted.", { status: 500 });
  const made = [];
  const { createElement } = document;
  document.createElement = () => (made.push({ append() {} }), made.at(-1));
  done.extension.settings.find(({ id }) => id === "Hallo3.SegmentStore.Empty").type();
  document.createElement = createElement;
  const [, text, button] = made;
  await settled();
  await button.onclick();
  const expected = { severity: "error", summary: "Delete", detail: "/f cannot be deleted." };
  assert.deepEqual(done.messages, [expected]);
  assert.equal(text.textContent, "Segments: 2, 34 MB in /f ");
});

test("the sentence of an error of ours stands under its node", () => {
  const texts = [];
  api.addEventListener("progress_text", ({ detail }) => texts.push(detail));
  const fail = (exception_type) =>
    api.dispatchCustomEvent("execution_error", {
      node_id: "4",
      exception_type,
      exception_message: "Wrong.\n",
    });
  fail("builtins.ValueError");
  fail("hallo3_core.errors.InputError");
  assert.deepEqual(texts, [{ nodeId: "4", text: "Wrong." }]);
});

test("a node of ours grows with its text", () => {
  const height = (type, text) => {
    const node = add(new Node(type));
    const widget = node.addDOMWidget("$$node-text-preview", "text");
    api.dispatchCustomEvent("progress_text", { nodeId: node.id, text });
    return [widget.options.getMinHeight?.(), node.size[1]];
  };
  assert.deepEqual(height("Hallo3FindFace", "a\n".repeat(30)), [26 + 16 * 30, 26 + 16 * 30]);
  assert.deepEqual(height("Hallo3FindFace", "x".repeat(300)), [26 + 16 * 8, 200]);
  assert.deepEqual(height("KSampler", "a\n".repeat(30)), [undefined, 200]);
});
