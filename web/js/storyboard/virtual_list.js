/**
 * A list that has elements for the items in sight only, so that a thousand items cost as much as ten.
 *
 * Items have one size along the list. An item that holds the keyboard focus stays while it is out of sight, so what is being typed is
 * never lost. An item that cannot be drawn shows its failure in its place.
 */

import { element } from "./dom.js";

const BEYOND = 2; // extra items on either side of the visible ones
const UNMEASURED = 1200; // px, before the list has a layout

export class VirtualList {
  /**
   * @param {object} given
   * @param {boolean} given.vertical
   * @param {number} given.step px from item to item
   * @param {(index: number) => HTMLElement} given.create
   * @param {(item: HTMLElement, index: number) => void} given.draw
   * @param {(item: HTMLElement) => void} given.release an item leaves the page
   * @param {(item: HTMLElement, error: Error) => void} given.fail
   */
  constructor({ vertical, step, create, draw, release, fail }) {
    Object.assign(this, { vertical, step, create, draw, release, fail, count: 0 });
    /** @type {Map<number, HTMLElement>} */
    this.items = new Map();
    this.track = element("div", "svi-board-track");
    this.element = element("div", "svi-board-list", {}, [this.track]);
    this.element.addEventListener("scroll", () => this.#later(), { passive: true });
    this.element.addEventListener("wheel", (event) => this.#scrollByWheel(event), { passive: false });
    this.resizing = new ResizeObserver(() => this.#later());
    this.resizing.observe(this.element);
  }

  /** Show `count` items, all drawn anew. */
  show(count) {
    this.count = count;
    this.track.style[this.vertical ? "height" : "width"] = `${count * this.step}px`;
    this.redraw(true);
  }

  /** Draw the items in sight; those that were there already only if `all`. */
  redraw(all = false) {
    const [first, last] = this.#inSight();
    for (const [index, item] of this.items) {
      const focused = item.contains(document.activeElement) && index < this.count;
      if ((index < first || index >= last) && !focused) this.#remove(index, item);
      else if (all) this.#draw(item, index);
    }
    for (let index = first; index < last; index++) if (!this.items.has(index)) this.#add(index);
  }

  /** Draw one item anew if it is in sight. */
  redrawItem(index) {
    const item = this.items.get(index);
    if (item) this.#draw(item, index);
  }

  /** Scroll so that an item is wholly in sight, and return it. */
  reveal(index) {
    const [offset, size] = this.vertical ? ["scrollTop", "clientHeight"] : ["scrollLeft", "clientWidth"];
    const [start, room] = [index * this.step, this.element[size] || UNMEASURED];
    if (start < this.element[offset]) this.element[offset] = start;
    if (start + this.step > this.element[offset] + room) this.element[offset] = start + this.step - room;
    this.redraw();
    return this.items.get(index);
  }

  /** Return the place between items, 0 to count, that is nearest to a point of the window. */
  placeAt(x, y) {
    const box = this.track.getBoundingClientRect();
    const along = this.vertical ? y - box.top : x - box.left;
    return Math.max(0, Math.min(this.count, Math.round(along / this.step)));
  }

  destroy() {
    this.resizing.disconnect();
    cancelAnimationFrame(this.frame);
    for (const [index, item] of this.items) this.#remove(index, item);
  }

  #later() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.redraw());
  }

  #inSight() {
    const { scrollTop, scrollLeft, clientHeight, clientWidth } = this.element;
    const [start, room] = this.vertical ? [scrollTop, clientHeight] : [scrollLeft, clientWidth];
    const last = Math.ceil((start + (room || UNMEASURED)) / this.step) + BEYOND;
    return [Math.max(0, Math.floor(start / this.step) - BEYOND), Math.min(this.count, last)];
  }

  #add(index) {
    const item = this.create(index);
    item.style[this.vertical ? "top" : "left"] = `${index * this.step}px`;
    this.items.set(index, item);
    const after = [...this.items.keys()].filter((other) => other > index).sort((a, b) => a - b)[0];
    this.track.insertBefore(item, this.items.get(after) ?? null); // so that Tab follows the order of the clips
    this.#draw(item, index);
  }

  #draw(item, index) {
    try {
      this.draw(item, index);
    } catch (error) {
      console.error(`SVI storyboard: item ${index + 1}:`, error);
      this.fail(item, error);
    }
  }

  #remove(index, item) {
    this.items.delete(index);
    this.release(item);
    item.remove();
  }

  #scrollByWheel(event) {
    if (this.vertical || event.ctrlKey || event.shiftKey || !event.deltaY || event.target.matches?.("textarea:focus")) return;
    if (this.element.scrollWidth <= this.element.clientWidth) return;
    event.preventDefault();
    this.element.scrollLeft += event.deltaY * (event.deltaMode ? 40 : 1);
  }
}
