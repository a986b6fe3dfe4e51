/**
 * Everything that the storyboard takes from ComfyUI's front end. No other file of this folder imports or names a part of it. A node is
 * named by its id in the queued graph.
 */

import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { nodeAt, pathTo, workflow } from "../shown_graph.js";

export { workflow };

const SUBGRAPH_INPUT = -10; // origin of links that come from outside a subgraph; the front end writes it as number and as text
const TAB = "svi-storyboard";
const COMMAND = "SVI.Storyboard.Toggle";
const LOOP = "SVIGenerate";
const HOSTS = [LOOP, "SVIPromptStream"]; // nodes that get a button
const REROUTE = "Reroute";
const PICTURE_HEIGHT = 340; // px of a Load Image that need not grow once its picture is there: that would be an undo step of its own
const LOADING_MS = 20_000; // how long a graph may take to load

let isConfiguring = false; // the front end is reading a graph

/**
 * Add the storyboard to the page.
 * @param {object} given
 * @param {(key: string) => string} given.text
 * @param {(container: HTMLElement, narrow: boolean) => void} given.mount called again for the same container when the page redraws
 * @param {(narrow: boolean) => void} given.unmount
 * @param {(node: object) => void} given.onGraph another graph is shown
 * @param {(node: string) => void} given.onOpen the button of an SVI Generate was pressed
 */
export function register({ text, mount, unmount, onGraph, onOpen }) {
  const tab = { id: TAB, type: "custom", title: text("title") };
  const open = (node) => {
    if (node.comfyClass === LOOP) onOpen(idOf(node));
    if (!document.querySelector(".svi-board")) toggle();
  };
  app.registerExtension({
    name: "SVI.Storyboard",
    commands: [{ id: COMMAND, label: text("toggle"), icon: "pi pi-images", function: toggle }],
    keybindings: [{ combo: { key: "s", alt: true }, commandId: COMMAND }],
    menuCommands: [{ path: ["View"], commands: [COMMAND] }],
    bottomPanelTabs: [{ ...tab, render: (container) => mount(container, false), destroy: () => unmount(false) }],

    setup() {
      app.extensionManager.registerSidebarTab({
        ...tab,
        label: text("sidebar"),
        icon: "pi pi-images",
        tooltip: text("title"),
        render: (container) => mount(container, true),
        destroy: () => unmount(true),
      });
    },

    nodeCreated(node) {
      if (!HOSTS.includes(node.comfyClass)) return;
      const button = node.addWidget("button", text("open"), null, () => open(node), { serialize: false });
      button.serialize = false; // not in the workflow
      button.tooltip = text("openHint");
    },

    beforeConfigureGraph: () => void (isConfiguring = true),

    afterConfigureGraph() {
      isConfiguring = false;
      onGraph();
    },
  });
}

/** Load the style sheet that lies next to this file. */
export function loadStyle(name) {
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL(name, import.meta.url).href }));
}

/** Show or hide the bottom panel's tab. */
export function toggle() {
  return app.extensionManager.command.execute(`Workspace.ToggleBottomPanelTab.${TAB}`);
}

/** Call `handler` with the details of an event of the server or the page. */
export function on(name, handler) {
  api.addEventListener(name, ({ detail }) => handler(detail));
}

/** Fetch a route of the server. */
export function fetchRoute(route, options) {
  return api.fetchApi(route, options);
}

/** Return the address of a route, for a picture. */
export function routeUrl(route) {
  return api.apiURL(route);
}

/** Return the address of a file that the server holds. */
export function fileUrl(file) {
  return api.apiURL(`/view?${new URLSearchParams(file)}`);
}

/**
 * Wait until the front end has loaded what it is loading: a template, another tab's workflow, an undo. What is written into the graph
 * before is lost with it, and what is written before the front end is done with it is no undo step of its own.
 */
export async function graphAtRest() {
  const until = performance.now() + LOADING_MS;
  while (isLoading() && performance.now() < until) await new Promise((done) => setTimeout(done, 20));
  isConfiguring = false; // a graph that could not be loaded is never announced
}

function isLoading() {
  const tracker = workflow()?.changeTracker;
  return isConfiguring || Boolean(tracker?._restoringState || tracker?.constructor.isLoadingGraph);
}

/** Return the graph as it would be queued. */
export async function queuedGraph() {
  return (await app.graphToPrompt()).output;
}

/** Queue the graph once. */
export function queue() {
  return app.queuePrompt(0, 1);
}

/** Stop the running prompt; finished clips stay. */
export function interrupt(promptId) {
  return api.interrupt(promptId);
}

/** Return the prompts that the server runs now: [{id, graph}]. */
export async function runningPrompts() {
  const { queue_running: running } = await (await api.fetchApi("/queue")).json();
  return running.map(([, id, graph]) => ({ id, graph }));
}

/** Store an image in ComfyUI's input folder; return its name for Load Image. */
export async function uploadImage(file) {
  const body = new FormData();
  body.append("image", file);
  const response = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  const { name, subfolder } = await response.json();
  return subfolder ? `${subfolder}/${name}` : name;
}

/** Return the value of a node's widget, wherever it is written; undefined without one. */
export function read(id, name) {
  return sourceOf(id, name)?.value;
}

/** Do `change`, which may be several edits, as one undo step. */
export function asOneStep(change) {
  app.canvas.emitBeforeChange();
  try {
    change();
  } finally {
    app.canvas.emitAfterChange();
    app.canvas.setDirty(true, true);
  }
}

/** Write a value into a node's widget, wherever it is written; return whether there is one. */
export function write(id, name, value) {
  const widget = sourceOf(id, name);
  if (!widget) return false;
  widget.value = value;
  widget.callback?.(value);
  return true;
}

/** Select a node and bring it into view, inside its subgraph. */
export function showNode(id) {
  const node = nodeAt(id);
  if (!node) return;
  if (node.graph !== app.canvas.graph) app.canvas.setGraph(node.graph);
  app.canvas.selectNode(node);
  app.canvas.centerOnNode(node);
  app.canvas.setDirty(true, true);
}

/**
 * Add an anchor from an uploaded image to SVI Generate `id`: Load Image, SVI Anchor Encode and SVI Named Anchor, in its own graph.
 * @param {object} given
 * @param {string} given.image name in the input folder
 * @param {string} given.name of the anchor
 * @param {object} given.encoder widget values of SVI Anchor Encode
 */
export function addAnchor(id, { image, name, encoder }) {
  const generate = nodeAt(id);
  const below = Math.max(...generate.graph._nodes.map(({ pos, size }) => pos[1] + size[1])) + 80;
  const added = [];
  const add = (type, left, widgets) => {
    const node = LiteGraph.createNode(type);
    node.pos = [generate.pos[0] + left, below];
    generate.graph.add(node);
    added.push(node);
    for (const widget of node.widgets ?? []) if (widget.name in widgets) widget.value = widgets[widget.name];
    return node;
  };
  try {
    const picture = add("LoadImage", -700, { image });
    const encode = add("SVIAnchorEncode", -360, encoder);
    const named = add("SVINamedAnchor", -20, { name });
    picture.connect(0, encode, slotOf(encode, "image"));
    encode.connect(0, named, slotOf(named, "anchor"));
    connectAs(generate, slotOf(generate, "vae"), encode, slotOf(encode, "vae"));
    connectAs(generate, slotOf(generate, "anchors"), named, slotOf(named, "anchors"));
    named.connect(0, generate, slotOf(generate, "anchors"));
    picture.setSize([picture.size[0], Math.max(picture.size[1], PICTURE_HEIGHT)]);
    picture.widgets.find((widget) => widget.name === "image")?.callback?.(image);
    generate.graph.updateExecutionOrder();
  } catch (error) {
    for (const node of added) generate.graph.remove(node);
    throw error;
  }
}

function slotOf(node, input) {
  return node.inputs.findIndex((other) => other.name === input);
}

/** Connect an input of `node` to what another input is connected to, in the same graph. */
function connectAs(other, otherSlot, node, slot) {
  const link = linkOf(other, otherSlot);
  if (!link) return;
  const { graph } = other;
  if (isFromOutside(link)) graph.inputNode.slots[link.origin_slot].connect(node.inputs[slot], node);
  else graph.getNodeById(link.origin_id).connect(link.origin_slot, node, slot);
}

function isFromOutside(link) {
  return Number(link.origin_id) === SUBGRAPH_INPUT;
}

/** Return the link to an input; the method of all nodes, since that of a subgraph's node answers for its outputs. */
function linkOf(node, slot) {
  return LiteGraph.LGraphNode.prototype.getInputLink.call(node, slot);
}

/** Return the id of a node in the queued graph; of a subgraph that is used several times, the first use. */
function idOf(node) {
  const root = app.rootGraph ?? app.graph;
  const search = (graph) => {
    if (graph === node.graph) return [node.id];
    for (const other of graph.nodes ?? graph._nodes) {
      const inside = other.subgraph && search(other.subgraph);
      if (inside) return [other.id, ...inside];
    }
    return null;
  };
  return search(root)?.join(":") ?? String(node.id);
}

/** Return the widget that holds the value of a node's input: its own, or the one of a subgraph or a primitive in front of it. */
function sourceOf(id, name) {
  const path = pathTo(id);
  return path && widgetBehind(path, name);
}

function widgetBehind(path, name) {
  const node = path.at(-1);
  const slot = node.inputs?.findIndex((input) => input.name === name || input.widget?.name === name) ?? -1;
  const link = slot < 0 ? null : linkOf(node, slot);
  if (!link) return node.widgets?.find((widget) => widget.name === name);
  if (!isFromOutside(link)) return widgetOfOrigin(path, node.graph.getNodeById(link.origin_id));
  const outer = path.slice(0, -1);
  return widgetBehind(outer, outer.at(-1).inputs[link.origin_slot].name);
}

function widgetOfOrigin(path, origin) {
  if (origin?.type === REROUTE && linkOf(origin, 0)) {
    return widgetOfOrigin(path, origin.graph.getNodeById(linkOf(origin, 0).origin_id));
  }
  return origin?.widgets?.[0]; // a primitive
}
