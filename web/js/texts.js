/**
 * The texts of the pack's own parts of the page. They stand in locales/<language>/main.json under "svi", one object for each part;
 * what the language of the page lacks is shown in English. `{name}` is replaced, and `one|many` chooses by the first number.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const LIMIT_MS = 8000; // for each answer: ComfyUI's page opens only once this file is loaded

const languages = await readLanguages();

/** Return the texts by language. Without any this file is not loaded, nor a part of the page that would stand there without words. */
async function readLanguages() {
  try {
    const ofAllPacks = await ask("/i18n"); // fails if ComfyUI cannot read the texts of any one pack
    if (ofAllPacks.en?.svi) return ofAllPacks;
  } catch (error) {
    console.error("SVI: the page is shown in English, since the texts of all packs cannot be read:", error);
  }
  return { en: await ask("/svi/texts") };
}

async function ask(route) {
  const response = await api.fetchApi(route, { signal: AbortSignal.timeout(LIMIT_MS) });
  if (!response.ok) throw new Error(`${route}: ${response.status} ${response.statusText}`);
  return response.json();
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
