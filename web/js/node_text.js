/**
 * What a node says, on the node, after each run: the plan's summary, and the size that an anchor gives the video. Server side:
 * SUMMARY_KEY in nodes/bridge/schemas.py.
 *
 * ComfyUI shows the text output of its own nodes only. The widget appears with the first text and is saved neither in the workflow nor
 * in the prompt.
 */

import { app } from "../../../scripts/app.js";

const HEIGHTS = { SVIPlan: 200, SVIAnchorEncode: 54 }; // px
const WIDGET = "svi_text";
const STYLE =
  "box-sizing: border-box; width: 100%; height: 100%; padding: 8px; overflow: auto; white-space: pre-wrap; " +
  "overflow-wrap: anywhere; border-radius: 8px; font: 12px/1.4 Inter, system-ui, sans-serif; text-align: left; user-select: text; " +
  "color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222);";

/** Show `text` on `node`. */
function show(node, text) {
  let widget = node.widgets?.find((other) => other.name === WIDGET);
  if (!widget) {
    const element = document.createElement("div");
    const height = HEIGHTS[node.comfyClass];
    element.className = `svi-text ${node.comfyClass}`;
    element.tabIndex = 0; // scrolls with the keyboard
    element.style.cssText = STYLE;
    element.style.minHeight = `${height - 20}px`;
    element.addEventListener("wheel", (event) => event.stopPropagation());
    widget = node.addDOMWidget(WIDGET, WIDGET, element, { serialize: false, hideOnZoom: false, getMinHeight: () => height });
    widget.serialize = false;
    const needed = node.computeSize();
    node.setSize([0, 1].map((side) => Math.max(needed[side], node.size[side])));
  }
  widget.element.textContent = text;
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "SVI.NodeText",

  nodeCreated(node) {
    if (!(node.comfyClass in HEIGHTS)) return;
    const original = node.onExecuted;
    node.onExecuted = function (output, ...more) {
      original?.call(this, output, ...more);
      const text = output?.svi_summary?.[0];
      if (text) show(this, text);
    };
  },
});
