/**
 * A text of the pack's own on a node, in both renderers. It is saved neither in the workflow nor in the prompt.
 */

const STYLE =
  "box-sizing: border-box; width: 100%; height: 100%; padding: 6px 8px; overflow: auto; white-space: pre-wrap; " +
  "overflow-wrap: anywhere; border-radius: 8px; font: 12px/1.4 Inter, system-ui, sans-serif; text-align: left; user-select: text; " +
  "color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222);";
const COLOURS = { error: "#ff8a7a", warn: "#f0cf70", faint: "var(--descrip-text, #999)" };

/**
 * Show `text` in the widget `name` of `node`, which is made with the first text.
 * @param {object} look
 * @param {number} look.height px that the text needs
 * @param {boolean} [look.grows] it takes free space of the node, too
 * @param {string} [look.before] name of the widget that it stands above; else it is the last
 * @param {"error" | "warn" | "faint"} [look.kind] its colour
 */
export function showText(node, name, text, { height, grows = false, before, kind }) {
  const widget = node.widgets?.find((other) => other.name === name) ?? addWidget(node, name, before, grows);
  Object.assign(sizes.get(widget.element), { height, grows });
  widget.element.style.minHeight = `${height - 20}px`;
  widget.element.style.color = COLOURS[kind] ?? "";
  widget.element.textContent = text;
  grow(node);
  node.setDirtyCanvas(true, true);
  return widget;
}

/** @type {WeakMap<HTMLElement, {height: number, grows: boolean}>} */
const sizes = new WeakMap();

function addWidget(node, name, before, grows) {
  const element = document.createElement("div");
  element.className = `svi-text ${name} ${node.comfyClass}`;
  element.tabIndex = 0; // scrolls with the keyboard
  element.setAttribute("role", "status");
  element.style.cssText = STYLE;
  element.addEventListener("wheel", (event) => event.stopPropagation());
  const size = { height: 0, grows: false };
  sizes.set(element, size);
  const heights = { getMinHeight: () => size.height, getMaxHeight: () => (size.grows ? undefined : size.height) };
  const widget = node.addDOMWidget(name, name, element, { serialize: false, hideOnZoom: false, ...heights });
  widget.serialize = false;
  if (!grows) {
    // The newer renderer gives all widgets with a layout size an equal share of the node's free height.
    widget.computeLayoutSize = undefined;
    widget.computeSize = (width) => [width ?? 0, size.height];
  }
  const place = node.widgets.findIndex((other) => other.name === before);
  if (place >= 0) node.widgets.splice(place, 0, ...node.widgets.splice(node.widgets.indexOf(widget), 1));
  return widget;
}

/** Make `node` large enough for its widgets. */
function grow(node) {
  const needed = node.computeSize();
  if (node.size[0] >= needed[0] && node.size[1] >= needed[1]) return;
  node.setSize([0, 1].map((side) => Math.max(needed[side], node.size[side])));
}
