/** One view of the story: wide in the bottom panel, narrow in the sidebar. */

import { Actions } from "./actions.js";
import { Card } from "./card.js";
import { button, element, say } from "./dom.js";
import { Dragging } from "./dragging.js";
import * as frontEnd from "./front_end.js";
import { Header } from "./header.js";
import { Images } from "./images.js";
import { Looks } from "./looks.js";
import { Player } from "./player.js";
import { closePopup } from "./popup.js";
import { TextView } from "./text_view.js";
import { text } from "./texts.js";
import { VirtualList } from "./virtual_list.js";

const WIDE_STEP = 248; // px from card to card; see .svi-board-item
const NARROW_STEP = 318;
const MESSAGE_MS = 9000;
const TYPING_MS = 4000; // how long a new card is waited for

export class Board {
  player = new Player();
  showsText = false;

  /** @param {import("./story.js").Story} story */
  constructor(story, narrow) {
    Object.assign(this, { story, narrow });
    this.actions = new Actions(story, this);
    this.images = new Images(story);
    this.header = new Header(story, this);
    this.textView = new TextView(story, this);
    this.looks = new Looks(story, (index) => this.list.redrawItem(index));
    this.list = new VirtualList({
      vertical: narrow,
      step: narrow ? NARROW_STEP : WIDE_STEP,
      create: () => new Card(story, this.actions, this.player, frontEnd).element,
      draw: (item, index) => this.#drawCard(item, index),
      release: (item) => item.sviCard.release(),
      fail: (item, error) => item.sviCard.fail(error),
    });
    this.list.element.setAttribute("role", "list");
    this.list.element.setAttribute("aria-label", text("title"));
    this.list.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.#buildMessages();
    this.element = element("section", `svi-board ${narrow ? "is-narrow" : "is-wide"}`, { "aria-label": text("title") }, [
      this.header.element,
      this.notice,
      this.message,
      this.empty,
      this.list.element,
      this.textView.element,
    ]);
    this.dragging = new Dragging(story, this);
    this.listeners = {
      change: () => this.#guarded(() => this.draw()),
      progress: () => this.#drawProgress(),
      edited: () => this.#drawText(),
      message: ({ detail }) => this.#say(detail),
    };
    for (const [name, listener] of Object.entries(this.listeners)) story.addEventListener(name, listener);
    story.addViewer();
    this.draw();
  }

  destroy() {
    for (const [name, listener] of Object.entries(this.listeners)) this.story.removeEventListener(name, listener);
    clearTimeout(this.messageTimer);
    closePopup();
    this.list.destroy();
    this.player.stop();
    this.story.removeViewer();
    this.element.remove();
  }

  #buildMessages() {
    this.notice = element("div", "svi-board-notice", { role: "alert", hidden: true });
    this.emptyTitle = element("strong");
    this.emptyHint = element("span");
    this.empty = element("div", "svi-board-empty", {}, [this.emptyTitle, this.emptyHint]);
    this.message = element("div", "svi-board-message", { role: "status", hidden: true });
  }

  /** How many cards are wholly in sight. */
  get numInSight() {
    const { clientWidth, clientHeight } = this.list.element;
    return Math.max(1, Math.floor((this.narrow ? clientHeight : clientWidth) / this.list.step));
  }

  cardAt(index) {
    return this.list.items.get(index)?.sviCard;
  }

  /** Choose a card and give it the keyboard. */
  goTo(index) {
    this.story.select(index);
    this.list.reveal(this.story.selected)?.sviCard.card.focus({ preventScroll: true });
  }

  /** Once the card of a new clip is there, let the user write its prompt over `placeholder`. */
  editWhenThere(index, placeholder) {
    const until = performance.now() + TYPING_MS;
    const attempt = () => {
      const card = this.story.cards[index]?.prompt === placeholder ? this.list.reveal(index)?.sviCard : null;
      if (card) {
        card.prompt.focus({ preventScroll: true });
        card.prompt.select();
      } else if (performance.now() < until) {
        setTimeout(attempt, 50);
      }
    };
    attempt();
  }

  /** Switch between cards and text. */
  toggleText() {
    this.showsText = !this.showsText;
    this.draw();
    if (this.showsText) this.textView.focus();
  }

  /** Show a place in the text: {start, stop}, or {line, column}. */
  showText(where) {
    this.showsText = true;
    this.draw();
    this.textView.select(where);
  }

  draw() {
    const { story } = this;
    this.header.draw();
    this.#drawErrors();
    this.#drawEmpty();
    this.list.element.hidden = this.showsText || !story.cards.length;
    this.element.classList.toggle("is-stale", story.isStale);
    this.#drawText();
    this.list.show(story.cards.length);
    const isTyping = this.list.element.contains(document.activeElement);
    if (this.shownSelection !== story.selected && story.cards.length) {
      this.shownSelection = story.selected;
      const item = this.list.reveal(story.selected);
      if (isTyping && !item?.contains(document.activeElement)) item?.sviCard.card.focus({ preventScroll: true });
    }
  }

  #drawProgress() {
    this.#guarded(() => {
      this.header.drawProgress();
      const { index } = this.story.making;
      for (const each of new Set([index, this.madeIndex ?? -1])) this.list.redrawItem(each);
      this.madeIndex = index;
    });
  }

  #drawErrors() {
    const { errors, node, hasFailed } = this.story;
    this.notice.hidden = !errors.length || !(node || hasFailed);
    if (this.notice.hidden) return;
    this.notice.replaceChildren(...errors.map((error) => this.#errorLine(error)));
  }

  #drawText() {
    this.textView.draw(this.showsText && Boolean(this.story.node));
  }

  #errorLine({ message, line, column, node }) {
    const children = [element("span", "", { textContent: message })];
    if (line) children.push(button(text("goThere"), () => this.showText({ line, column })));
    else if (node) children.push(button(text("showNode"), () => frontEnd.showNode(node)));
    return element("div", "", {}, children);
  }

  #drawEmpty() {
    const { isLoaded, node, cards, errors } = this.story;
    this.empty.hidden = this.showsText || (Boolean(node) && (cards.length > 0 || errors.length > 0));
    if (this.empty.hidden) return;
    say(this.emptyTitle, text(isLoaded ? "noGraph" : "loading"));
    say(this.emptyHint, isLoaded ? text("noGraphHint") : "");
  }

  #drawCard(item, index) {
    item.sviCard.draw(index);
    this.looks.ask(index);
  }

  #onKey(event) {
    const card = event.target.closest?.(".svi-card");
    if (event.defaultPrevented || !card || event.target.matches("textarea, input, select")) return;
    if (event.target !== card && ["Enter", " "].includes(event.key)) return; // a button's own keys
    if (!this.actions.onKey(event, card.closest(".svi-board-item").sviCard.index)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  #say({ message, isError, undo, fix, line, column }) {
    clearTimeout(this.messageTimer);
    const act = (label, action) => button(text(label), () => {
      this.message.hidden = true;
      action();
    });
    const children = [element("span", "", { textContent: message })];
    if (undo) children.push(act("undo", undo));
    if (fix) children.push(act("asParagraphs", fix));
    if (line) children.push(act("goThere", () => this.showText({ line, column })));
    this.message.replaceChildren(...children);
    this.message.classList.toggle("is-error", Boolean(isError));
    this.message.hidden = !message;
    this.messageTimer = setTimeout(() => (this.message.hidden = true), MESSAGE_MS);
  }

  /** Show a failure of the board itself in its place. */
  #guarded(draw) {
    try {
      draw();
    } catch (error) {
      console.error("SVI storyboard:", error);
      this.notice.hidden = false;
      this.notice.textContent = text("boardFailed", { reason: error.message });
    }
  }
}
