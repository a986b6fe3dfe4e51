/**
 * How far a run is, on SVI Generate; at the foot of the page if that node is inside a subgraph, where nobody sees it. What is kept when
 * a run is cancelled, as a toast. Server side: nodes/bridge/shown_progress.py.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { showToast } from "./messages.js";
import { nodeAt } from "./shown_graph.js";
import { showText } from "./text_widget.js";

const WIDGET = "svi_status";
const HEIGHT = 56; // px, two lines
const KINDS = { running: undefined, done: "faint", stopped: "warn", failed: "error" };
const NOTICE_MS = 15_000;
const LINGER_MS = 10_000; // after the run has ended
const FOOT_GAP = 20; // px
const FOOT_STYLE =
  "position: fixed; left: 50%; transform: translateX(-50%); z-index: 1000; max-width: 60vw; padding: 8px 14px; " +
  "border-radius: 8px; font: 13px/1.4 Inter, system-ui, sans-serif; text-align: center; white-space: pre-wrap; pointer-events: none; " +
  "color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #222); border: 1px solid var(--border-color, #4e4e4e);";

/** Return the height of ComfyUI's bottom panel in px, 0 while it is closed: the storyboard has buttons there. */
function panelHeight() {
  return document.querySelector(".bottom-panel")?.offsetHeight ?? 0;
}

/** The line at the foot of the page. */
class Foot {
  show(text, isOver) {
    clearTimeout(this.timer);
    this.element ??= this.#make();
    this.element.textContent = text;
    this.element.style.bottom = `${panelHeight() + FOOT_GAP}px`;
    this.element.hidden = false;
    if (isOver) this.timer = setTimeout(() => this.hide(), LINGER_MS);
  }

  hide() {
    clearTimeout(this.timer);
    if (this.element) this.element.hidden = true;
  }

  #make() {
    const element = document.createElement("div");
    element.className = "svi-foot";
    element.style.cssText = FOOT_STYLE;
    element.setAttribute("role", "status");
    document.body.append(element);
    return element;
  }
}

const foot = new Foot();
let removeNotice; // of the run that was stopped last

function onProgress({ node: id, state, text }) {
  const node = nodeAt(id);
  if (node?.comfyClass !== "SVIGenerate") {
    if (state !== "running") foot.hide(); // another workflow is shown now
    return;
  }
  showText(node, WIDGET, text, { height: HEIGHT, before: "svi_clips", kind: KINDS[state] });
  if (node.graph && node.graph !== (app.rootGraph ?? app.graph)) foot.show(text, state !== "running");
  removeNotice?.(); // it lies over the progress of the next run
  removeNotice = state === "stopped" ? showToast("info", "SVI Generate", text, NOTICE_MS) : undefined;
}

app.registerExtension({
  name: "SVI.RunStatus",

  setup() {
    api.addEventListener("svi.progress", ({ detail }) => onProgress(detail));
  },

  afterConfigureGraph: () => foot.hide(),
});
