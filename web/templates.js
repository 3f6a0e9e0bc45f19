// Our templates in the order of their numbers. ComfyUI lists them as the disk does: in no order.

import { api } from "../../scripts/api.js";

// ComfyUI serves this script as /extensions/FOLDER/templates.js, from the pack's folder.
const [folder] = new URL(import.meta.url).pathname.split("/").slice(-2).map(decodeURIComponent);
const listed = api.getWorkflowTemplates;

api.getWorkflowTemplates = async function () {
  const templates = await listed.call(this);
  templates[folder]?.sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  return templates;
};
