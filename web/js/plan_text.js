/**
 * The plan's summary on SVI Plan, after each run. Server side: nodes/dry_run/plan.py.
 *
 * ComfyUI shows the text output of its own nodes only. The widget appears with the first plan and is saved neither in the workflow nor
 * in the prompt.
 */

import { app } from "../../../scripts/app.js";

const NODE = "SVIPlan";
const WIDGET = "svi_plan";
const HEIGHT = 200; // px
const STYLE =
  "box-sizing: border-box; width: 100%; height: 100%; min-height: 180px; padding: 8px; overflow: auto; white-space: pre-wrap; " +
  "overflow-wrap: anywhere; border-radius: 8px; font: 12px/1.4 Inter, system-ui, sans-serif; text-align: left; user-select: text; " +
  "color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222);";

/** Show `text` on `node`. */
function show(node, text) {
  let widget = node.widgets?.find((other) => other.name === WIDGET);
  if (!widget) {
    const element = document.createElement("div");
    element.className = "svi-plan";
    element.tabIndex = 0; // scrolls with the keyboard
    element.style.cssText = STYLE;
    element.addEventListener("wheel", (event) => event.stopPropagation());
    widget = node.addDOMWidget(WIDGET, WIDGET, element, { serialize: false, hideOnZoom: false, getMinHeight: () => HEIGHT });
    widget.serialize = false;
    const [width, height] = node.computeSize();
    node.setSize([Math.max(width, node.size[0]), Math.max(height, node.size[1])]);
  }
  widget.element.textContent = text;
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "SVI.PlanText",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const original = node.onExecuted;
    node.onExecuted = function (output, ...more) {
      original?.call(this, output, ...more);
      const text = output?.svi_summary?.[0];
      if (text) show(this, text);
    };
  },
});
