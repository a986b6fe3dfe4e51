/**
 * What a node says, on the node, after each run: the plan's summary, and the size that an anchor gives the video. Server side:
 * SUMMARY_KEY in nodes/bridge/schemas.py.
 *
 * ComfyUI shows the text output of its own nodes only. The widget appears with the first text.
 */

import { app } from "../../../scripts/app.js";
import { showText } from "./text_widget.js";

const HEIGHTS = { SVIPlan: 200, SVIAnchorEncode: 54 }; // px
const WIDGET = "svi_text";

app.registerExtension({
  name: "SVI.NodeText",

  nodeCreated(node) {
    if (!(node.comfyClass in HEIGHTS)) return;
    const original = node.onExecuted;
    node.onExecuted = function (output, ...more) {
      original?.call(this, output, ...more);
      const text = output?.svi_summary?.[0];
      if (text) showText(this, WIDGET, text, { height: HEIGHTS[this.comfyClass], grows: true });
    };
  },
});
