/** The graph that ComfyUI shows, and its nodes by their ids in the queued graph: "12", or "31:4" for node 4 inside the subgraph node 31. */

import { app } from "../../../scripts/app.js";

/** Return what tells the workflow that is shown from others: their nodes may have the same ids, and undo loads a graph, too. */
export function workflow() {
  return app.extensionManager.workflow?.activeWorkflow;
}

/** Return the nodes from the root graph down to the node `id`, which is the last one; null without it, as in another workflow. */
export function pathTo(id) {
  const path = [];
  let graph = app.rootGraph ?? app.graph;
  for (const step of String(id).split(":")) {
    const node = graph?.getNodeById(Number(step)) ?? graph?.getNodeById(step);
    if (!node) return null;
    path.push(node);
    graph = node.subgraph;
  }
  return path;
}

/** Return the node `id`; null without it. */
export function nodeAt(id) {
  return pathTo(id)?.at(-1) ?? null;
}
