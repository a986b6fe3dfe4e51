/**
 * How far a run is, on SVI Generate and on the subgraphs around it; what is kept when it ends early, as a toast. Server side:
 * nodes/bridge/shown_progress.py.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { hideText, showText } from "./text_widget.js";

const WIDGET = "svi_status";
const HEIGHT = 56; // px, two lines
const KINDS = { running: undefined, done: "faint", stopped: "warn", failed: "error" };

/** Yield the nodes that an execution id such as "12:5" leads through: the subgraph's node, then the one in it. */
function* nodesOf(executionId) {
  let graph = app.rootGraph ?? app.graph;
  for (const id of String(executionId).split(":")) {
    const node = graph?.getNodeById(Number(id));
    if (!node) return; // of another workflow
    yield node;
    graph = node.subgraph;
  }
}

function onProgress({ node: id, state, text }) {
  const nodes = [...nodesOf(id)];
  if (nodes.at(-1)?.comfyClass !== "SVIGenerate") return;
  const [generate, ...around] = nodes.reverse();
  showText(generate, WIDGET, text, { height: HEIGHT, before: "svi_clips", kind: KINDS[state] });
  for (const node of around) {
    if (state === "running") showText(node, WIDGET, text, { height: HEIGHT });
    else hideText(node, WIDGET); // a widget that is promoted later must not find it before itself
  }
  if (state === "stopped") {
    app.extensionManager.toast.add({ severity: "info", summary: "SVI Generate", detail: text, life: 15_000 });
  }
}

app.registerExtension({
  name: "SVI.RunStatus",

  setup() {
    api.addEventListener("svi.progress", ({ detail }) => onProgress(detail));
  },
});
