/**
 * Small windows over the storyboard: menus, a field for one value, and sheets. One is open at a time. Escape and a click elsewhere close
 * it, and the focus goes back to where it was.
 */

import { button, element } from "./dom.js";

const MARGIN = 8; // px to the edges of the window

let open = null;

/** Close the open popup, if any. */
export function closePopup() {
  if (!open) return;
  const { box, before, onClose } = open;
  open = null;
  const hadFocus = box.contains(document.activeElement);
  document.removeEventListener("pointerdown", closeFromOutside, true);
  box.remove();
  onClose?.();
  if (hadFocus && before?.isConnected) before.focus({ preventScroll: true });
}

/** Show `content` next to `anchor`, or in the middle of the page without one; return the popup's element. */
export function openPopup(anchor, content, { label, role = "dialog", className = "", onClose } = {}) {
  const again = anchor && open?.anchor === anchor;
  closePopup();
  if (again && role === "menu") return null; // a second click on its button closes a menu
  const box = element("div", `svi-board-popup ${className}`, { role, "aria-label": label, tabIndex: -1 }, [content]);
  box.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key !== "Escape") return;
    event.preventDefault();
    closePopup();
  });
  open = { box, anchor, before: document.activeElement, onClose };
  document.body.append(box);
  document.addEventListener("pointerdown", closeFromOutside, true);
  if (anchor) place(box, anchor);
  return box;
}

/**
 * Show a menu. An item without `run` is a heading; one with `reason` cannot be chosen.
 * @param {{text: string, key?: string, run?: () => void, reason?: string, danger?: boolean}[]} items
 */
export function openMenu(anchor, label, items) {
  const list = element("div", "svi-board-menu");
  for (const { text, key = "", run, reason = "", danger = false } of items) {
    if (!run) {
      list.append(element("div", "svi-board-menu-heading", { textContent: text }));
      continue;
    }
    const row = button("", () => {
      closePopup();
      run();
    });
    row.setAttribute("role", "menuitem");
    row.classList.toggle("is-danger", danger);
    row.disabled = Boolean(reason);
    row.title = reason;
    row.append(element("span", "", { textContent: text }), element("kbd", "", { textContent: key }));
    list.append(row);
  }
  const box = openPopup(anchor, list, { label, role: "menu" });
  box?.addEventListener("keydown", (event) => moveInMenu(event, list));
  list.querySelector("button:not(:disabled)")?.focus({ preventScroll: true });
}

/**
 * Ask for one value in place.
 * @param {(value: string) => void} given.onDone called with the text on Enter or the button; not on Escape
 */
export function openField(anchor, { label, value, hint, done, clear, choices = [], onDone }) {
  const field = element("input", "", { type: "text", value, "aria-label": label, spellcheck: false, autocomplete: "off" });
  const finish = (text) => {
    closePopup();
    onDone(text.trim());
  };
  const form = element("form", "svi-board-field", {}, [
    element("label", "", { textContent: label }),
    field,
    element("div", "svi-board-hint", { textContent: hint, hidden: !hint }),
  ]);
  if (choices.length) {
    form.append(element("div", "svi-board-choices", {}, choices.map((choice) => button(choice, () => finish(choice)))));
  }
  const clearing = clear ? [button(clear, () => finish(""))] : [];
  const ending = element("button", "is-main", { type: "submit", textContent: done });
  form.append(element("div", "svi-board-field-end", {}, [...clearing, ending]));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    finish(field.value);
  });
  openPopup(anchor, form, { label });
  field.focus({ preventScroll: true });
  field.select();
}

function closeFromOutside(event) {
  if (open && !open.box.contains(event.target) && !open.anchor?.contains(event.target)) closePopup();
}

function moveInMenu(event, list) {
  const rows = [...list.querySelectorAll("button:not(:disabled)")];
  const here = rows.indexOf(document.activeElement);
  const target = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: rows.length - 1 }[event.key];
  if (target === undefined) {
    if (event.key === "Tab") closePopup();
    return;
  }
  event.preventDefault();
  rows.at(target % rows.length)?.focus();
}

function place(box, anchor) {
  const [at, size] = [anchor.getBoundingClientRect(), box.getBoundingClientRect()];
  const below = at.bottom + 4 + size.height <= innerHeight - MARGIN;
  const top = below ? at.bottom + 4 : Math.max(MARGIN, at.top - 4 - size.height);
  const left = Math.max(MARGIN, Math.min(at.left, innerWidth - size.width - MARGIN));
  Object.assign(box.style, { top: `${top}px`, left: `${left}px` });
}
