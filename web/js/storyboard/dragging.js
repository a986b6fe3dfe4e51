/** Drag a card to another place, with the cost of it beside the pointer; and drop an image onto a card. */

import { element, say } from "./dom.js";
import { USES } from "./images.js";
import { costText } from "./edits.js";
import { text } from "./texts.js";

const BEGIN = 6; // px that the pointer moves before a press becomes a drag
const EDGE = 48; // px at the ends of the list that scroll it
const SCROLL = 14; // px for each frame
const ASK_MS = 200; // how long the pointer rests before the server is asked for the cost

export class Dragging {
  /**
   * @param {import("./story.js").Story} story
   * @param {import("./board.js").Board} board
   */
  constructor(story, board) {
    Object.assign(this, { story, board });
    this.list = board.list;
    this.marker = element("div", "svi-board-marker", { hidden: true });
    this.hint = element("div", "svi-board-drag-hint", { hidden: true });
    this.zones = element("div", "svi-zones", {}, USES.map(({ label }) => element("div", "svi-zone", { textContent: text(label) })));
    this.list.track.append(this.marker);
    board.element.append(this.hint);
    this.list.element.addEventListener("pointerdown", (event) => this.#press(event));
    board.element.addEventListener("dragover", (event) => this.#overImage(event));
    board.element.addEventListener("dragleave", (event) => board.element.contains(event.relatedTarget) || this.zones.remove());
    board.element.addEventListener("drop", (event) => this.#dropImage(event));
    board.element.addEventListener("paste", (event) => this.#pasteImage(event));
  }

  #press(event) {
    const picture = event.target.closest(".svi-card-picture");
    if (event.button || !picture || event.target.closest("button") || !this.story.canEdit) return;
    event.preventDefault(); // no selection of text
    const item = picture.closest(".svi-board-item");
    item.sviCard.card.focus({ preventScroll: true });
    const drag = { item, index: item.sviCard.index, x: event.clientX, y: event.clientY, place: null };
    const end = new AbortController();
    const listen = (name, handler) => addEventListener(name, handler, { signal: end.signal, capture: true });
    listen("pointermove", (moved) => this.#move(drag, moved));
    listen("pointerup", () => this.#finish(drag, end));
    listen("pointercancel", () => this.#cancel(drag, end));
    listen("keydown", (pressed) => {
      if (pressed.key !== "Escape") return;
      pressed.stopPropagation();
      this.#cancel(drag, end);
    });
  }

  #move(drag, { clientX, clientY }) {
    const [dx, dy] = [clientX - drag.x, clientY - drag.y];
    if (!drag.isMoving && Math.hypot(dx, dy) < BEGIN) return;
    if (!drag.isMoving) {
      drag.isMoving = true;
      drag.item.classList.add("is-dragged");
      this.board.player.stop();
      drag.frame = requestAnimationFrame(() => this.#scroll(drag));
    }
    Object.assign(drag, { clientX, clientY });
    this.#point(drag);
  }

  /** Show where the card would go, and ask what that costs. */
  #point(drag) {
    const { clientX, clientY } = drag;
    const along = this.board.narrow ? `0, ${clientY - drag.y}px` : `${clientX - drag.x}px, 0`;
    drag.item.style.transform = `translate(${along})`;
    const box = this.board.element.getBoundingClientRect();
    Object.assign(this.hint.style, { left: `${Math.min(clientX - box.left + 14, box.width - 280)}px`, top: `${clientY - box.top + 14}px` });
    const place = this.list.placeAt(clientX, clientY);
    if (place === drag.place) return;
    drag.place = place;
    drag.to = place > drag.index ? place - 1 : place;
    this.marker.style[this.board.narrow ? "top" : "left"] = `${place * this.list.step}px`;
    this.marker.hidden = drag.to === drag.index;
    say(this.hint, this.marker.hidden ? "" : text("moves", { from: `${drag.index + 1}`, to: `${drag.to + 1}` }));
    clearTimeout(drag.timer);
    if (!this.marker.hidden) drag.timer = setTimeout(() => this.#askCost(drag), ASK_MS);
  }

  async #askCost(drag) {
    const { place } = drag;
    try {
      const cost = await this.story.edits.costOf({ do: "move", clip: drag.index, to: drag.to });
      if (drag.place === place && drag.isMoving) say(this.hint, `${text("moves", { from: `${drag.index + 1}`, to: `${drag.to + 1}` })} ${costText(cost)}`);
    } catch (error) {
      if (drag.place === place && drag.isMoving) say(this.hint, error.message);
    }
  }

  #scroll(drag) {
    if (!drag.isMoving) return;
    const box = this.list.element.getBoundingClientRect();
    const [at, start, end] = this.board.narrow ? [drag.clientY, box.top, box.bottom] : [drag.clientX, box.left, box.right];
    const by = at < start + EDGE ? -SCROLL : at > end - EDGE ? SCROLL : 0;
    if (by) {
      const offset = this.board.narrow ? "scrollTop" : "scrollLeft";
      const before = this.list.element[offset];
      this.list.element[offset] += by;
      drag[this.board.narrow ? "y" : "x"] -= this.list.element[offset] - before; // the card stays under the pointer
      this.#point(drag);
    }
    drag.frame = requestAnimationFrame(() => this.#scroll(drag));
  }

  #finish(drag, end) {
    const { isMoving, index, to, place } = drag;
    this.#cancel(drag, end);
    if (isMoving && place !== null) this.board.actions.move(index, to);
  }

  #cancel(drag, end) {
    end.abort();
    drag.isMoving = false;
    cancelAnimationFrame(drag.frame);
    clearTimeout(drag.timer);
    drag.item.classList.remove("is-dragged");
    drag.item.style.transform = "";
    this.marker.hidden = this.hint.hidden = true;
  }

  #overImage(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation(); // ComfyUI would load it as a workflow
    const card = event.target.closest?.(".svi-card");
    event.dataTransfer.dropEffect = card && this.story.canEdit ? "copy" : "none";
    if (!card || !this.story.canEdit) return this.zones.remove();
    if (this.zones.parentElement !== card) card.append(this.zones);
    const here = this.#zoneAt(event);
    [...this.zones.children].forEach((zone, number) => zone.classList.toggle("is-over", number === here));
  }

  #zoneAt({ clientY }) {
    const box = this.zones.getBoundingClientRect();
    return Math.max(0, Math.min(USES.length - 1, Math.floor(((clientY - box.top) / box.height) * USES.length)));
  }

  #dropImage(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    const use = this.zones.isConnected ? USES[this.#zoneAt(event)] : null;
    const index = this.zones.closest(".svi-board-item")?.sviCard.index;
    this.zones.remove();
    if (!this.story.canEdit && event.target.closest?.(".svi-card")) return this.story.say(this.story.whyNot, { isError: true });
    if (use && event.dataTransfer.files.length) this.board.images.place(index, use, event.dataTransfer.files[0]);
  }

  #pasteImage(event) {
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
    const card = event.target.closest?.(".svi-board-item")?.sviCard;
    if (!file || !card || !this.story.canEdit) return;
    event.preventDefault();
    event.stopPropagation();
    this.board.images.ask(card.index, card.more, file);
  }
}
