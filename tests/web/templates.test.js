import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { api, begin, done } from "./front_end.js";

beforeEach(() => begin("templates.js"));

test("our templates are in the order of their numbers, and those of others stay", async () => {
  done.templates = { hallo3: ["10 b", "2 c", "1 a"], other: ["9 z", "1 y"] };
  const shown = await api.getWorkflowTemplates();
  assert.deepEqual(shown, { hallo3: ["1 a", "2 c", "10 b"], other: ["9 z", "1 y"] });
});

test("a host that does not list ours keeps what it lists", async () => {
  done.templates = { other: ["9 z", "1 y"] };
  assert.deepEqual(await api.getWorkflowTemplates(), { other: ["9 z", "1 y"] });
});
