/**
 * What this pack's nodes say, as toasts: notices of a run, and errors with their own words. ComfyUI's panel shows that a node has an
 * error, and the words only in a tooltip.
 *
 * A node that checks several widgets together gets ComfyUI's error once for each of them: it stays on the widget that it is about.
 */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { nodeAt, workflow } from "./shown_graph.js";

const LIFE_MS = { error: 60_000, warn: 20_000, info: 12_000 };
const MAIN_WIDGET = { SVIPromptStream: "text" }; // for an error that names no widget

const KINDS = { error: "error", warn: "warning", info: "info" };

/** @type {{remove: () => void, node: ?object}[]} errors on the page and the nodes that they are of; over once a run is queued */
let errors = [];

function toast(severity, summary, detail, node = null) {
  const remove = showToast(severity, summary, detail);
  if (severity === "error") errors.push({ remove, node });
}

/**
 * Show a toast for `life` milliseconds; return the function that takes it off the page. Front end 1.58 knows it by an id, those before
 * by the message.
 */
export function showToast(severity, summary, detail, life = LIFE_MS[severity]) {
  const { toast } = app.extensionManager;
  if (toast.dismiss) {
    const id = toast[KINDS[severity]](summary, { description: detail, duration: life });
    return () => toast.dismiss(id);
  }
  const message = { severity, summary, detail, life };
  toast.add(message);
  return () => toast.remove(message);
}

function removeErrors(areOver = () => true) {
  for (const { remove } of errors.filter(areOver)) remove();
  errors = errors.filter((error) => !areOver(error));
}

/** Take the errors of a node off the page: its mistake is mended. Another workflow's node may have the same id, and is another object. */
export function mended(node) {
  removeErrors((error) => error.node === node);
}

const isOurs = (type) => String(type).startsWith("SVI");
const nameOf = (type) => LiteGraph.registered_node_types[type]?.title ?? type;
const inputOf = (error) => error.extra_info?.input_name ?? "";

/** Return what an error says, without the name of the input before it. */
function reasonOf(error) {
  const text = error.details || error.message;
  const prefix = `${inputOf(error)} - `;
  return text.startsWith(prefix) ? text.slice(prefix.length) : text;
}

/** Return the errors of a node with one for each mistake, on the widget that its reason names first. */
export function oneForEachMistake(type, errors) {
  const byReason = grouped(errors);
  return [...byReason].map(([reason, same]) => {
    const named = same.find((error) => reason.split(/[^\w]/, 1)[0] === inputOf(error));
    return named ?? same.find((error) => inputOf(error) === MAIN_WIDGET[type]) ?? same[0];
  });
}

function grouped(errors) {
  const groups = new Map();
  for (const error of errors) groups.set(reasonOf(error), [...(groups.get(reasonOf(error)) ?? []), error]);
  return groups;
}

/** Say what the server refused of a workflow, and leave one error for each mistake to ComfyUI's own panel. */
function onRefused(nodeErrors, from) {
  for (const [id, node] of Object.entries(nodeErrors ?? {})) {
    if (!isOurs(node.class_type)) continue;
    const checked = node.errors.filter((error) => error.type === "custom_validation_failed");
    const kept = new Set(oneForEachMistake(node.class_type, checked));
    node.errors = node.errors.filter((error) => kept.has(error) || !checked.includes(error));
    const place = from === workflow() ? nodeAt(id) : null;
    for (const error of node.errors) toast("error", nameOf(node.class_type), reasonOf(error), place);
  }
}

app.registerExtension({
  name: "SVI.Messages",

  setup() {
    api.addEventListener("svi.notice", ({ detail }) => toast(detail.severity, detail.summary, detail.detail));
    api.addEventListener("execution_error", ({ detail }) => {
      if (isOurs(detail.node_type)) toast("error", nameOf(detail.node_type), detail.exception_message.trim());
    });
    const queuePrompt = api.queuePrompt;
    api.queuePrompt = async function (...given) {
      const from = workflow();
      try {
        const answer = await queuePrompt.apply(this, given);
        removeErrors();
        onRefused(answer?.node_errors, from); // of a result that the run leaves out
        return answer;
      } catch (error) {
        removeErrors();
        onRefused(error?.response?.node_errors, from);
        throw error;
      }
    };
  },
});
