/**
 * The finished clips of a run on its SVI Generate node: watch, keep, re-roll. The server's side is nodes/clip_panel.py.
 *
 * What is shown comes from the run's folder, so it is there again after a reload. The widget appears with the first clip and is
 * saved neither in the workflow nor in the prompt.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { ClipView } from "./clip_view.js";

const NODE = "SVIGenerate";
const WIDGET = "svi_clips";
const HEIGHT = 292; // px, the view's least height and the margin of a DOM widget
const SETTLE_MS = 150; // a name that is being typed, a graph that is being loaded
const LINKED_RUN = "svi_run"; // property of a node whose filename_prefix is linked: the folder of its last run

/** @type {Set<ClipPanel>} */
const panels = new Set();

class ClipPanel {
  constructor(node) {
    this.node = node;
    this.run = null; // as the server calls it; null until it has answered
    this.request = 0;
    this.view = new ClipView({
      urlOf: (clip) => api.apiURL(`/view?${new URLSearchParams(clip.file)}`),
      onKeep: (clip, keep) => this.keep(clip, keep),
      onReroll: (clip) => this.reroll(clip),
    });
  }

  /** Show what lies in the run's folder, once the node has settled. */
  refresh() {
    const request = ++this.request;
    this.loading = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#load(request), SETTLE_MS);
  }

  async #load(request) {
    const name = this.#runName();
    let answer = { run: null, clips: [] }; // of a name that is still being typed, say
    try {
      answer = await ask(`/svi/clips?${new URLSearchParams({ run: name })}`);
    } catch (error) {
      console.debug(`SVI: no clips of ${name}:`, error.message);
    }
    if (request !== this.request) return; // another one is under way
    this.loading = false;
    this.run = answer.run;
    if (answer.clips.length) this.#appear();
    this.view.setClips(answer.clips);
    if (!answer.clips.length) this.view.say("No finished clips in this folder yet.");
  }

  /** Take the news of a finished clip, if it is of this node's run. */
  onClip({ node, run, ...clip }) {
    if (this.#prefixIsLinked() && String(node).split(":").at(-1) === String(this.node.id)) {
      this.node.properties[LINKED_RUN] = run;
      if (this.run !== run) return this.refresh();
    }
    if (this.loading) return this.refresh(); // the list that is on its way may lack it
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
      const [text, split] = ["text", "split"].map((name) => stream.widgets.find((widget) => widget.name === name));
      const answer = await ask("/svi/reroll", { text: text.value, split: split.value, index: clip.index });
      app.canvas.emitBeforeChange();
      text.value = answer.text;
      text.callback?.(answer.text);
      app.canvas.emitAfterChange();
      app.canvas.setDirty(true, true);
      const others = clip.index ? "; the clips before it are reused" : "";
      this.view.say(`Clip ${clip.index + 1} has seed ${answer.seed} in the schedule now. Press Run${others}.`);
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

  #prefixIsLinked() {
    return this.node.inputs?.some((input) => input.name === "filename_prefix" && input.link != null) ?? false;
  }

  #runName() {
    if (this.#prefixIsLinked()) return this.node.properties[LINKED_RUN] ?? "";
    return String(this.node.widgets?.find((widget) => widget.name === "filename_prefix")?.value ?? "");
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
 * Return the SVI Prompt Stream that feeds `node` and can be written to.
 * @throws {Error} with what to do instead
 */
function promptStream(node) {
  let origin = node.getInputNode(node.findInputSlot("prompts"));
  while (origin?.type === "Reroute") origin = origin.getInputNode(0);
  if (origin?.type !== "SVIPromptStream") {
    throw new Error("The schedule does not come straight from SVI Prompt Stream: write [seed N] above this clip's prompt there.");
  }
  if (origin.inputs?.some((input) => ["text", "split"].includes(input.name) && input.link != null)) {
    throw new Error("The text of SVI Prompt Stream comes from another node: write [seed N] above this clip's prompt there.");
  }
  return origin;
}

/**
 * Return what one of the pack's routes answers: GET without a body, else POST.
 * @throws {Error} with the server's reason
 */
async function ask(route, body) {
  const posted = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await api.fetchApi(route, body && posted);
  const answer = await response.json().catch(() => ({ error: `The server answered ${response.status} ${response.statusText}.` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function chained(original, added) {
  return function (...given) {
    const result = original?.apply(this, given);
    added();
    return result;
  };
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
