/** One card: a clip's picture, prompt, chips and actions, with the seam in front of it. It is drawn anew for each clip that it shows. */

import { chipsOf } from "./chips.js";
import { button, duration, element, say } from "./dom.js";
import { text } from "./texts.js";

const STATES = {
  ready: "stateReady",
  outdated: "stateOutdated",
  planned: "statePlanned",
  making: "stateMaking",
  failed: "stateFailed",
  dropped: "stateDropped",
};

export class Card {
  /**
   * @param {import("./story.js").Story} story
   * @param {import("./actions.js").Actions} actions
   * @param {import("./player.js").Player} player
   * @param {import("./front_end.js")} urls routeUrl and fileUrl
   */
  constructor(story, actions, player, urls) {
    Object.assign(this, { story, actions, player, urls, index: -1 });
    this.#buildSeam();
    this.#buildPicture();
    this.#buildPrompt();
    this.#buildActions();
    this.chips = element("div", "svi-card-chips");
    this.card = element("article", "svi-card", { tabIndex: -1 }, [this.picture, this.prompt, this.chips, this.buttons]);
    this.element = element("div", "svi-board-item", { role: "listitem" }, [this.seam, this.card]);
    this.element.sviCard = this;
    this.card.addEventListener("focusin", () => this.actions.focus(this.index));
    this.card.addEventListener("contextmenu", (event) => this.#contextMenu(event));
  }

  #buildSeam() {
    this.seamKind = button("", () => this.actions.toggleCut(this.index), { className: "svi-seam-kind" });
    this.insert = button("+", () => this.actions.insert(this.index), { className: "svi-seam-insert", label: text("insertHere") });
    this.seam = element("div", "svi-seam", {}, [this.seamKind, this.insert]);
  }

  #buildPicture() {
    this.image = element("img", "", { alt: "", draggable: false, decoding: "async" });
    this.image.addEventListener("error", () => this.card.classList.add("has-no-picture"));
    this.number = element("span", "svi-card-number");
    this.length = element("span", "svi-card-length");
    this.state = element("span", "svi-card-state");
    this.take = button("", () => this.actions.takes(this.index, this.take), { className: "svi-card-take", hint: text("takeHint") });
    this.empty = element("span", "svi-card-empty");
    this.bar = element("span", "svi-card-bar");
    const foot = element("div", "svi-card-foot", {}, [this.state, this.take]);
    this.picture = element("div", "svi-card-picture", {}, [this.empty, this.image, this.number, this.length, foot, this.bar]);
    this.picture.addEventListener("pointerenter", () => this.play());
    this.picture.addEventListener("pointerleave", () => this.player.stop(this.picture));
    this.picture.addEventListener("dblclick", () => this.actions.watch(this.index));
  }

  #buildPrompt() {
    this.prompt = element("textarea", "svi-card-prompt", { spellcheck: false, rows: 2 });
    this.prompt.addEventListener("input", () => (this.wasTyped = true));
    this.prompt.addEventListener("blur", () => {
      this.#commit();
      if (this.wasTyped) queueMicrotask(() => this.#forgetTyping());
    });
    this.prompt.addEventListener("keydown", (event) => this.#onPromptKey(event));
  }

  /** Put a new field in the place of one that was typed in: browsers undo typing in a field that has lost the focus, too. */
  #forgetTyping() {
    if (document.activeElement === this.prompt || !this.prompt.isConnected) return;
    const { prompt } = this;
    this.wasTyped = false;
    this.#buildPrompt();
    this.prompt.value = prompt.value;
    prompt.replaceWith(this.prompt);
    if (this.story.cards[this.index]) this.#drawPrompt(this.story.cards[this.index]);
    this.prompt.tabIndex = prompt.tabIndex;
  }

  #buildActions() {
    this.reroll = button(text("reroll"), () => this.actions.reroll(this.index), { hint: text("rerollHint") });
    this.lock = button("", () => this.actions.lock(this.index), { className: "svi-card-lock" });
    this.fromHere = button(text("fromHere"), () => this.actions.runFrom(this.index), { hint: text("fromHereHint") });
    this.stopAfter = button(text("stopAfter"), () => this.actions.stopAfter(this.index), { hint: text("stopAfterHint") });
    this.more = button("⋯", () => this.actions.menu(this.index, this.more), { className: "svi-card-more" });
    this.buttons = element("div", "svi-card-buttons", {}, [this.reroll, this.lock, this.fromHere, this.stopAfter, this.more]);
  }

  /** Show the clip at `index`. */
  draw(index) {
    if (this.failure) {
      this.failure.remove();
      this.failure = undefined;
    }
    if (index !== this.index) this.player.stop(this.picture);
    this.index = index;
    const clip = this.story.cards[index];
    const now = this.story.making.stateOf(index);
    this.card.dataset.state = now.state;
    this.card.classList.remove("is-broken");
    this.#drawPlace(clip, now);
    this.#drawPicture(clip, now);
    this.#drawPrompt(clip);
    this.#drawSeam(clip);
    this.#drawButtons(clip, now.state === "making");
    this.#drawChips(clip);
  }

  /** Build the chips where they changed: a chip that is being pressed stays. */
  #drawChips(clip) {
    const shown = JSON.stringify([clip.set, clip.effective, clip.badges, this.story.canEdit]);
    if (shown !== this.shownChips) {
      this.shownChips = shown;
      this.chips.replaceChildren(...chipsOf(clip, this.story.canEdit, (name, chip) => this.actions.option(this.index, name, chip)));
    }
    const tabIndex = this.index === this.story.selected ? 0 : -1;
    for (const control of this.element.querySelectorAll("button, textarea")) control.tabIndex = tabIndex;
  }

  /** Show that the card cannot be drawn. */
  fail(error) {
    this.failure?.remove();
    this.failure = element("div", "svi-card-failure", { role: "alert", textContent: text("cardFailed", { reason: error.message }) });
    this.card.classList.add("is-broken");
    this.card.append(this.failure);
  }

  /** Play the clip in its picture. */
  play(wait) {
    const { preview } = this.story.cards[this.index] ?? {};
    if (preview) this.player.play(this.picture, this.urls.fileUrl(preview), wait);
  }

  release() {
    this.player.stop(this.picture);
  }

  /** Return where the cursor stands in the prompt, or undefined where it was not placed inside. */
  cursor() {
    const at = this.prompt.selectionStart;
    return at > 0 && at < this.committed.length ? at : undefined;
  }

  editPrompt() {
    this.prompt.focus({ preventScroll: true });
    this.prompt.setSelectionRange(this.prompt.value.length, this.prompt.value.length);
  }

  #drawPlace(clip, now) {
    const { cards, selected } = this.story;
    const isSelected = this.index === selected;
    const state = text(STATES[now.state]);
    this.card.classList.toggle("is-selected", isSelected);
    this.card.tabIndex = isSelected ? 0 : -1;
    this.element.setAttribute("aria-setsize", String(cards.length));
    this.element.setAttribute("aria-posinset", String(this.index + 1));
    const label = { n: this.index + 1, count: cards.length, state, prompt: clip.prompt };
    this.card.setAttribute("aria-label", text("cardLabel", label));
    say(this.number, String(this.index + 1));
    say(this.length, `${clip.seconds.toFixed(1)} s`);
  }

  #drawPicture(clip, now) {
    const { making } = this.story;
    const isMaking = now.state === "making";
    const source = (isMaking && making.preview) || (clip.picture ? this.urls.routeUrl(clip.picture) : "");
    if (source !== this.source) {
      this.source = source;
      this.card.classList.remove("has-no-picture");
      if (source) this.image.src = source;
      else this.image.removeAttribute("src");
    }
    this.card.classList.toggle("is-empty", !source);
    say(this.empty, source ? text("pictureGone") : this.story.canEdit ? text("dropHere") : "");
    say(this.state, isMaking ? this.#progress() : stateText(clip, now));
    this.state.title = now.state === "dropped" ? text("droppedHint") : now.reason;
    say(this.take, clip.take ? text("take", clip.take) : "");
    this.bar.hidden = !isMaking;
    this.bar.style.setProperty("--part", String(making.part));
  }

  #progress() {
    const { step, steps, isDecoding, secondsLeft, stopAfter } = this.story.making;
    const parts = [isDecoding ? text("writingFrames") : steps ? text("step", { step, steps }) : text("stateMaking")];
    if (secondsLeft !== null) parts.push(text("timeLeft", { time: duration(secondsLeft) }));
    if (stopAfter === this.index) parts.push(text("stopsAfter"));
    return parts.join(" · ");
  }

  #drawPrompt(clip) {
    const isTyping = document.activeElement === this.prompt && this.prompt.value !== this.committed;
    const { number } = this.story;
    if (!isTyping || this.committedIndex !== this.index || this.committedStory !== number) {
      if (this.prompt.value !== clip.prompt) this.prompt.value = clip.prompt;
      [this.committed, this.committedIndex, this.committedStory] = [clip.prompt, this.index, number];
    }
    this.prompt.readOnly = !this.story.canEdit;
    const isBeyond = clip.place?.beyond === true;
    this.prompt.title = this.story.canEdit ? (isBeyond ? text("beyond") : "") : (this.story.source?.why_not ?? "");
    this.prompt.classList.toggle("is-beyond", isBeyond);
    this.prompt.setAttribute("aria-label", text("promptLabel", { n: this.index + 1 }));
  }

  #drawSeam(clip) {
    const isCut = clip.effective.cut;
    this.seam.classList.toggle("is-cut", isCut && this.index > 0);
    say(this.seamKind, this.index ? (isCut ? text("seamCut") : "⌇") : "");
    this.seamKind.title = text(isCut ? "seamIsCut" : "seamNormal") + ("seam" in clip.set ? ` ${text("seam", { kind: clip.set.seam })}` : "");
    this.seamKind.setAttribute("aria-label", this.seamKind.title);
    this.seamKind.disabled = this.insert.disabled = !this.story.canEdit;
  }

  #drawButtons(clip, isMaking) {
    const { canEdit, making } = this.story;
    const isLocked = Boolean(clip.pin);
    this.card.classList.toggle("is-locked", isLocked);
    this.lock.setAttribute("aria-pressed", String(isLocked));
    this.lock.setAttribute("aria-label", text(isLocked ? "unlockText" : "lockText"));
    this.lock.title = clip.key || isLocked ? text(isLocked ? "unlock" : "lock") : text("nothingToLock");
    this.lock.disabled = !canEdit || (!clip.key && !isLocked);
    this.reroll.disabled = !canEdit;
    for (const control of [this.reroll, this.lock, this.fromHere]) control.hidden = isMaking;
    this.stopAfter.hidden = !isMaking;
    this.stopAfter.setAttribute("aria-pressed", String(making.stopAfter === this.index));
    this.more.setAttribute("aria-label", text("more", { n: this.index + 1 }));
    this.more.title = text("more", { n: this.index + 1 });
  }

  #commit(given) {
    const [prompt, index, before] = [this.prompt.value.trim(), this.committedIndex, this.committed];
    if (prompt === before || this.prompt.readOnly) return given?.run ? this.actions.run() : undefined;
    const edit = this.actions.setPrompt(index, prompt, given);
    this.#note(index, prompt); // until the plan says the same
    return edit.then((isDone) => {
      if (isDone || this.index !== index || this.committedStory !== this.story.number) return;
      this.prompt.focus({ preventScroll: true }); // the user goes on with a prompt that was refused
      this.prompt.value = prompt;
      this.#note(index, before);
    });
  }

  #note(index, prompt) {
    this.committed = prompt;
    if (this.story.cards[index]) this.story.cards[index].prompt = prompt;
  }

  #onPromptKey(event) {
    event.stopPropagation(); // letters are no shortcuts here
    if (event.key === "Escape") {
      this.prompt.value = this.committed;
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      this.#commit({ run: true });
    } else if (event.key !== "Enter" || event.shiftKey || event.isComposing) {
      return;
    }
    event.preventDefault();
    this.card.focus({ preventScroll: true }); // leaves the field, which commits
  }

  #contextMenu(event) {
    if (event.target === this.prompt) return; // the browser's own: spelling, paste
    event.preventDefault();
    this.actions.menu(this.index, this.more);
  }
}

function stateText(clip, { state, reason }) {
  const name = text(STATES[state]);
  if (state === "ready") return clip.made_seconds ? `${name} · ${duration(clip.made_seconds)}` : name;
  return reason ? `${name}: ${reason}` : name;
}
