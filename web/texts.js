// Our own texts in the language of the front end; they are in locales/.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

export const texts = await api.getCustomNodesI18n();

export function say(name, values = {}) {
  const language = app.extensionManager.setting.get("Comfy.Locale");
  const text = texts[language]?.hallo3?.[name] ?? texts.en.hallo3[name];
  return text.replace(/{(\w+)}/g, (_, each) => values[each]);
}
