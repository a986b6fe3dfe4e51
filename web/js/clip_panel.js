/**
 * The clip panel on SVI Generate: watch, keep and re-roll the finished clips of a run. Server side: nodes/clip_panel.py.
 *
 * The panel shows the run's folder, so it survives a reload. The widget appears with the first clip and is saved neither in the
 * workflow nor in the prompt.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { chained } from "./chained.js";
import { ClipView } from "./clip_view.js";
import { textsOf } from "./texts.js";

const text = textsOf("clips");
const NODE = "SVIGenerate";
const WIDGET = "svi_clips";
const HEIGHT = 292; // px, the view's minimum height plus the margin of a DOM widget
const SETTLE_MS = 150; // delay while a name is typed or a graph loads
const LAST_RUN = "svi_run"; // node property for a filename_prefix that is linked or holds patterns: the folder of the last run

/** @type {Set<ClipPanel>} */
const panels = new Set();

class ClipPanel {
  constructor(node) {
    this.node = node;
    this.run = null; // the server's name of the run; null until it answers
    this.request = 0;
    this.view = new ClipView({
      urlOf: (clip) => api.apiURL(`/view?${new URLSearchParams(clip.file)}`),
      onKeep: (clip, keep) => this.keep(clip, keep),
      onReroll: (clip) => this.reroll(clip),
    });
  }

  /** Show the run's folder after a short delay. */
  refresh() {
    const request = ++this.request;
    this.loading = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#load(request), SETTLE_MS);
  }

  async #load(request) {
    const name = this.#runName();
    let answer = { run: null, clips: [] }; // for an incomplete name, for instance
    try {
      answer = await ask(`/svi/clips?${new URLSearchParams({ run: name })}`);
    } catch (error) {
      console.debug(`SVI: no clips of ${name}:`, error.message);
    }
    if (request !== this.request) return; // superseded by a newer request
    this.loading = false;
    this.run = answer.run;
    if (answer.clips.length) this.#appear();
    this.view.setClips(answer.clips);
    if (!answer.clips.length) this.view.say(text("none"));
  }

  /** Add a finished clip if it belongs to this node's run. */
  onClip({ node, run, ...clip }) {
    if (this.#prefixVaries() && String(node).split(":").at(-1) === String(this.node.id)) {
      this.node.properties[LAST_RUN] = run;
      if (this.run !== run) return this.refresh();
    }
    if (this.loading) return this.refresh(); // the requested list may lack it
    if (run !== this.run) return;
    this.#appear();
    this.view.addClip(clip);
  }

  async keep(clip, keep) {
    try {
      const { kept } = await ask("/svi/keep", { run: this.run, key: clip.key, keep });
      this.view.setKept(clip.key, kept);
    } catch (error) {
      this.view.say(error.message, true);
    }
  }

  async reroll(clip) {
    try {
      const stream = promptStream(this.node);
      const [schedule, split] = ["text", "split"].map((name) => stream.widgets.find((widget) => widget.name === name));
      const answer = await ask("/svi/reroll", { text: schedule.value, split: split.value, index: clip.index });
      app.canvas.emitBeforeChange();
      schedule.value = answer.text;
      schedule.callback?.(answer.text);
      app.canvas.emitAfterChange();
      app.canvas.setDirty(true, true);
      this.view.say(text(clip.index ? "rerolledLater" : "rerolled", { n: clip.index + 1, seed: String(answer.seed) }));
    } catch (error) {
      this.view.say(error.message, true);
    }
  }

  remove() {
    panels.delete(this);
    clearTimeout(this.timer);
    this.request++;
    this.view.destroy();
  }

  /** Whether only the server knows which folder filename_prefix means. */
  #prefixVaries() {
    return isLinked(this.node, "filename_prefix") || /%[^%]+%/.test(this.#prefix());
  }

  #prefix() {
    return String(this.node.widgets?.find((widget) => widget.name === "filename_prefix")?.value ?? "");
  }

  #runName() {
    return this.#prefixVaries() ? (this.node.properties[LAST_RUN] ?? "") : this.#prefix();
  }

  /** Put the view on the node, and make the node large enough for it. */
  #appear() {
    if (this.widget) return;
    this.widget = this.node.addDOMWidget(WIDGET, WIDGET, this.view.element, {
      serialize: false, // not in the prompt
      hideOnZoom: false,
      getMinHeight: () => HEIGHT,
    });
    this.widget.serialize = false; // not in the workflow
    const [width, height] = this.node.computeSize();
    this.node.setSize([Math.max(width, this.node.size[0]), Math.max(height, this.node.size[1])]);
    this.node.setDirtyCanvas(true, true);
  }
}

/**
 * Return the SVI Prompt Stream of `node`, if its text can be changed.
 * @throws {Error} with instructions
 */
function promptStream(node) {
  let origin = node.getInputNode(node.findInputSlot("prompts"));
  while (origin?.type === "Reroute") origin = origin.getInputNode(0);
  if (origin?.type !== "SVIPromptStream") {
    throw new Error(text("noStream"));
  }
  if (isLinked(origin, "text") || isLinked(origin, "split")) {
    throw new Error(text("otherText"));
  }
  return origin;
}

/** Whether the widget called `name` takes its value from another node. */
function isLinked(node, name) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  return slot >= 0 && node.isInputConnected(slot);
}

/**
 * Return the answer of one of the pack's routes: GET without a body, else POST.
 * @throws {Error} with the server's reason
 */
async function ask(route, body) {
  const posted = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await api.fetchApi(route, body && posted);
  const answer = await response.json().catch(() => ({ error: text("noAnswer", { status: `${response.status} ${response.statusText}` }) }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

app.registerExtension({
  name: "SVI.ClipPanel",

  setup() {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL("./clip_panel.css", import.meta.url).href;
    document.head.append(link);
    api.addEventListener("svi.clip", ({ detail }) => panels.forEach((panel) => panel.onClip(detail)));
    api.addEventListener("reconnected", () => panels.forEach((panel) => panel.refresh()));
  },

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new ClipPanel(node);
    panels.add(panel);
    const prefix = node.widgets.find((widget) => widget.name === "filename_prefix");
    prefix.callback = chained(prefix.callback, () => panel.refresh());
    node.onConfigure = chained(node.onConfigure, () => panel.refresh());
    node.onConnectionsChange = chained(node.onConnectionsChange, () => panel.refresh());
    node.onRemoved = chained(node.onRemoved, () => panel.remove());
    panel.refresh();
  },
});
