/**
 * What the schedule's own parser says of the text of SVI Prompt Stream, below it while it is typed. Server side:
 * nodes/schedule_lint.py.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { chained } from "./chained.js";
import { mended } from "./messages.js";
import { showText } from "./text_widget.js";
import { textsOf } from "./texts.js";

const words = textsOf("lint");
const WIDGET = "svi_lint";
const PAUSE_MS = 300; // since the last key
const [ONE_LINE, THREE_LINES] = [40, 74]; // px

class Lint {
  constructor(node) {
    this.node = node;
    this.request = 0;
  }

  /** Ask the parser once nothing was typed for a moment; an answer that is still to come is of an older text. */
  later() {
    this.stop();
    this.timer = setTimeout(() => this.#check(), PAUSE_MS);
  }

  stop() {
    clearTimeout(this.timer);
    this.request++;
  }

  async #check() {
    const request = ++this.request;
    if (["text", "split"].some((name) => isLinked(this.node, name))) return this.#say(words("otherNode"), "faint");
    const [text, split] = ["text", "split"].map((name) => this.node.widgets.find((widget) => widget.name === name).value);
    if (!String(text).trim()) return this.#say(words("empty"), "faint");
    const answer = await this.#ask({ text, split });
    if (request !== this.request || !answer) return; // superseded, or no server
    if (answer.error) return this.#say(answer.error, "error");
    mended(this.node);
    if (answer.doubts.length) this.#say([clips(answer.num_clips), ...answer.doubts].join("\n"), "warn");
    else this.#say(clips(answer.num_clips), "faint");
  }

  async #ask(asked) {
    try {
      const body = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) };
      const response = await api.fetchApi("/svi/lint", body);
      return response.ok ? await response.json() : { error: (await response.json()).error };
    } catch (error) {
      console.debug("SVI: the text could not be checked:", error.message);
      return null;
    }
  }

  #say(text, kind) {
    const shown = text.replace(/^schedule, line/gm, "Line");
    showText(this.node, WIDGET, shown, { height: kind === "faint" ? ONE_LINE : THREE_LINES, kind });
  }
}

const clips = (number) => words("clips", { n: number });

function isLinked(node, name) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  return slot >= 0 && node.isInputConnected(slot);
}

app.registerExtension({
  name: "SVI.ScheduleLint",

  nodeCreated(node) {
    if (node.comfyClass !== "SVIPromptStream") return;
    const lint = new Lint(node);
    for (const widget of node.widgets.filter(({ name }) => ["text", "split"].includes(name))) {
      widget.callback = chained(widget.callback, () => lint.later());
    }
    node.onConfigure = chained(node.onConfigure, () => lint.later());
    node.onConnectionsChange = chained(node.onConnectionsChange, () => lint.later());
    node.onRemoved = chained(node.onRemoved, () => lint.stop());
    lint.later();
  },
});
