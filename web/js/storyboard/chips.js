/** The chips of a card: options that its paragraph sets, values in force, and badges of its picture. */

import { button, element } from "./dom.js";
import { text } from "./texts.js";

/** What the field of an option says, and which names it offers: from the header of the plan. */
const FIELDS = {
  seed: { hint: "seedHint" },
  frames: { hint: "framesHint" },
  motion: { hint: "motionHint" },
  cfg: { hint: "cfgHint" },
  anchor: { hint: "anchorHint", choices: ({ anchors }) => anchors ?? [] },
  end: { hint: "endHint", choices: ({ anchors }) => (anchors ?? []).filter((name) => name !== "main") },
  hold: { hint: "holdHint" },
  seam: { choices: () => ["drop", "linear", "eased"] },
};
const LORA = "lora ";
const IN_FORCE = ["seed", "frames", "cfg", "anchor"]; // shown in grey where nothing sets them

/** The names of the options that a clip can set. */
export function optionNames({ loras = [] }) {
  return [...Object.keys(FIELDS), ...loras.map((file) => LORA + shortLora(file))];
}

/** Return hint and choices of the field for an option. */
export function fieldOf(name, header) {
  const { hint, choices } = FIELDS[name] ?? { hint: name.startsWith(LORA) ? "loraHint" : "" };
  return { hint: hint ? text(hint) : "", choices: choices?.(header ?? {}) ?? [] };
}

/** Return the value of an option as the text writes it, set or in force. */
export function valueOf(card, name) {
  if (name in card.set) return card.set[name];
  const lora = name.startsWith(LORA) && card.effective.loras?.find((other) => LORA + other.name === name);
  return lora ? strengths(lora) : String(card.effective[name] ?? "");
}

/**
 * Return the chips of a card.
 * @param {(name: string, chip: HTMLElement) => void} onOption a chip was pressed; "" is the one for another option
 */
export function chipsOf(card, canEdit, onOption) {
  const chip = (name, label, isSet) => {
    const className = `svi-chip ${isSet ? "is-set" : "is-in-force"}`;
    const made = button(label, () => onOption(name, made), { className, hint: `${name} ${valueOf(card, name)}`.trim() });
    made.dataset.option = name.split(" ")[0];
    made.disabled = !canEdit;
    return made;
  };
  const set = Object.entries(card.set).filter(([name]) => name !== "take");
  const made = set.map(([name, value]) => chip(name, label(name, value), true));
  for (const badge of card.badges ?? []) made.push(badgeOf(badge));
  if (card.take?.follows === false) made.push(badgeOf({ text: text("mayJump"), title: text("otherParent") }));
  for (const name of IN_FORCE) {
    const value = card.effective[name];
    if (!(name in card.set) && value !== null && value !== undefined) made.push(chip(name, label(name, value), false));
  }
  for (const lora of card.effective.loras ?? []) {
    if (!(LORA + lora.name in card.set)) made.push(chip(LORA + lora.name, label(LORA + lora.name, strengths(lora)), false));
  }
  if (canEdit) made.push(button("+", () => onOption("", made.at(-1)), { className: "svi-chip is-add", label: text("addOption") }));
  return made;
}

function badgeOf({ text: shown, title, severe }) {
  return element("span", `svi-chip is-badge ${severe ? "is-severe" : ""}`, { textContent: shown, title });
}

function label(name, value) {
  if (name === "cut") return "cut";
  if (name === "anchor") return `⚓ ${value}`;
  if (name.startsWith(LORA)) return `${name.slice(LORA.length)} ${value}`;
  return `${name} ${value}`;
}

function strengths({ high, low }) {
  return high === low || low === null || low === undefined ? String(high) : `${high}/${low}`;
}

/** Return the part of a LoRA's file name that the schedule can name. */
function shortLora(file) {
  return file.split(/[\\/]/).at(-1).replace(/\.\w+$/, "");
}
