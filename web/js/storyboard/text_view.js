/** The schedule as text, in place of the cards. */

import { button, element, say } from "./dom.js";
import { text } from "./texts.js";

export class TextView {
  /**
   * @param {import("./story.js").Story} story
   * @param {import("./board.js").Board} board
   */
  constructor(story, board) {
    Object.assign(this, { story, board });
    this.field = element("textarea", "svi-board-text", { spellcheck: false, "aria-label": text("textViewHint") });
    this.field.addEventListener("keydown", (event) => this.#onKey(event));
    this.field.addEventListener("input", () => (this.apply.disabled = this.field.value === this.shown));
    this.why = element("span", "svi-board-faint");
    this.apply = button(text("apply"), () => this.#commit(), { className: "is-main" });
    this.element = element("div", "svi-board-text-view", {}, [this.field, element("div", "svi-board-text-end", {}, [this.why, this.apply])]);
  }

  draw(isShown) {
    this.element.hidden = !isShown;
    const { source, canEdit, number } = this.story;
    if (!isShown || !source) return;
    const textNow = this.story.textNow ?? source.text ?? "";
    const isTyping = this.number === number && this.field.value !== this.shown;
    if (!isTyping && (this.number !== number || this.held !== textNow)) {
      this.number = number;
      this.field.value = this.held = textNow;
      this.shown = this.field.value;
    }
    this.field.readOnly = !canEdit;
    say(this.why, canEdit ? (source.file ? text("liveFile", { file: source.file }) : "") : source.why_not);
    this.apply.hidden = !canEdit;
    this.apply.disabled = this.field.value === this.shown;
  }

  focus() {
    this.field.focus({ preventScroll: true });
  }

  /** Select a place and bring it into sight. */
  select({ start, stop, line, column }) {
    const lines = this.field.value.split("\n");
    const from = this.#inField(start) ?? lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0) + (column ?? 1) - 1;
    const to = this.#inField(stop) ?? from + Math.max(1, (lines[line - 1] ?? "").length - (column ?? 1) + 1);
    this.focus();
    this.field.setSelectionRange(from, to);
    const height = parseFloat(getComputedStyle(this.field).lineHeight) || 18;
    this.field.scrollTop = Math.max(0, (this.field.value.slice(0, from).split("\n").length - 3) * height);
  }

  /** Return where an offset into the story's text lies in the field, which ends each line with one character. */
  #inField(offset) {
    return offset === undefined ? undefined : this.held.slice(0, offset).replace(/\r\n/g, "\n").length;
  }

  async #commit() {
    const written = this.field.value;
    const isDone = await this.story.edits.make([{ do: "replace", new_text: written }], { held: this.held });
    if (isDone) [this.shown, this.held] = [written, this.story.textNow];
    this.apply.disabled = isDone;
  }

  #onKey(event) {
    event.stopPropagation();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.#commit();
    } else if (event.key === "Escape") {
      this.field.value = this.shown;
      this.board.toggleText();
    }
  }
}
