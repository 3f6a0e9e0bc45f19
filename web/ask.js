// Asks ComfyUI's server. If it refuses, or is not there, the user reads why.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

// The answer, or nothing. The message has this title, and stays until the user closes it.
export async function ask(title, path, options) {
  try {
    const answer = await api.fetchApi(path, options);
    if (answer.ok) return answer;
    throw new Error((await answer.text()) || `${answer.status} ${answer.statusText}`);
  } catch ({ message }) {
    app.extensionManager.toast.add({ severity: "error", summary: title, detail: message });
  }
}
