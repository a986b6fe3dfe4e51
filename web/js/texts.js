/**
 * The texts of the pack's own parts of the page. They stand in locales/<language>/main.json under "svi", one object for each part;
 * what the language of the page lacks is shown in English. `{name}` is replaced, and `one|many` chooses by the first number.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const languages = await readLanguages();

async function readLanguages() {
  try {
    return await api.getCustomNodesI18n();
  } catch (error) {
    console.error("SVI: the texts of the page cannot be read:", error);
    return {};
  }
}

function patternOf(part, key) {
  const language = app.extensionManager?.setting.get("Comfy.Locale");
  return languages[language]?.svi?.[part]?.[key] ?? languages.en?.svi?.[part]?.[key] ?? key;
}

/** Return the function that gives the texts of a part of the page, by key and values. */
export function textsOf(part) {
  return (key, values = {}) => {
    const forms = patternOf(part, key).split("|");
    const amount = Object.values(values).find((value) => typeof value === "number");
    const form = forms.length > 1 && amount !== 1 ? forms[1] : forms[0];
    return form.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  };
}
