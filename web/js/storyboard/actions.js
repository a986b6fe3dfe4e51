/** What a user can do with a clip, by mouse, menu and keyboard. Each action is one edit of the text. */

import { fieldOf, optionNames, valueOf } from "./chips.js";
import { openField, openMenu } from "./popup.js";
import { openTakes, watchClips } from "./takes.js";
import { text } from "./texts.js";

export class Actions {
  /**
   * @param {import("./story.js").Story} story
   * @param {import("./board.js").Board} board
   */
  constructor(story, board) {
    Object.assign(this, { story, board });
  }

  focus(index) {
    if (index !== this.story.selected) this.story.select(index);
  }

  setPrompt(index, prompt, given = {}) {
    return this.story.edits.make([{ do: "set_prompt", clip: index, prompt }], given);
  }

  setOption(index, name, value) {
    return this.story.edits.make([{ do: "set_option", clip: index, name, value }]);
  }

  toggleCut(index) {
    if (index) this.setOption(index, "cut", this.story.cards[index].effective.cut ? null : true);
  }

  /** Add a clip before `index` and let the user write its prompt. */
  async insert(index) {
    const isDone = await this.story.edits.make([{ do: "insert", clip: index, prompt: text("newPrompt") }], { added: this.#counted(index - 1, 1) });
    if (isDone) this.board.editWhenThere(index, text("newPrompt"));
  }

  duplicate(index) {
    return this.story.edits.make([{ do: "duplicate", clip: index }], { added: this.#counted(index, 1) });
  }

  remove(index) {
    if (this.story.cards[index].place?.beyond) return this.story.edits.changeNumClips(-1);
    return this.story.edits.make([{ do: "delete", clip: index }], { added: this.#counted(index, -1) });
  }

  /** Split a clip in two, at the cursor if it stands in the prompt. */
  split(index, at) {
    return this.story.edits.make([{ do: "split", clip: index, ...(at === undefined ? {} : { at }) }], { added: this.#counted(index, 1) });
  }

  /** Return `added`, or 0 beside a card that num_clips leaves out: the clips that are made stay the same. */
  #counted(index, added) {
    return this.story.cards[index]?.state === "dropped" ? 0 : added;
  }

  move(index, to) {
    if (to === index || to < 0 || to >= this.story.cards.length) return;
    return this.story.edits.make([{ do: "move", clip: index, to }], { done: text("moved", { from: `${index + 1}`, to: `${to + 1}` }) });
  }

  reroll(index, { run = true } = {}) {
    return this.story.edits.make([{ do: "reroll", clip: index }], { run });
  }

  /** Pin the take that is shown, or let the clip follow the text again. */
  lock(index) {
    const { pin, key } = this.story.cards[index];
    if (pin) return this.story.edits.make([{ do: "unpin", clip: index }]);
    if (!key) return this.story.say(text("nothingToLock"), { isError: true });
    return this.use(index, key);
  }

  use(index, key) {
    return this.story.edits.make([{ do: "pin", clip: index, key }]);
  }

  /** Make this clip again, and with it those that continue it; the clips before stay the takes that are shown. */
  runFrom(index) {
    const { cards } = this.story;
    const kept = cards.slice(0, index).filter((clip) => clip.state === "outdated" && clip.key && !clip.pin);
    const actions = kept.map((clip) => ({ do: "pin", clip: clip.index, key: clip.key }));
    // with the clips before as they are, its stored take would be used again
    if (cards[index].state === "ready" || cards[index].by_before) actions.push({ do: "reroll", clip: index });
    if (!actions.length) return this.run();
    return this.story.edits.make(actions, { run: true, done: kept.length ? text("pinnedBefore") : "" });
  }

  run() {
    return this.story.edits.run();
  }

  stopAfter(index) {
    this.story.making.stopAfterClip(index);
  }

  async protect(index) {
    const { key, kept } = this.story.cards[index];
    try {
      await this.story.server.keep(this.story.header.run, key, !kept);
    } catch (error) {
      this.story.say(error.message, { isError: true });
    }
    this.story.refresh();
  }

  /** Show the clip's paragraph in the text, after the edits that are under way. */
  async showText(index) {
    const { number, since } = this.story.edits.seen([]);
    await this.story.settled();
    if (number !== this.story.number) return; // another story was chosen meanwhile
    const [shown] = this.story.moves.placed([{ clip: index }], since) ?? [];
    const { place } = this.story.cards[shown?.clip] ?? {};
    if (place) this.board.showText(place);
  }

  watch(index) {
    watchClips(this.story, index);
  }

  takes(index, anchor) {
    return openTakes(this.story, index, anchor, (key) => this.use(index, key));
  }

  /** Ask for the value of an option; "" asks for the option first. */
  option(index, name, anchor) {
    const clip = this.story.cards[index];
    if (!name) {
      const names = optionNames(this.story.header ?? {}).filter((other) => !(other in clip.set));
      const items = names.map((other) => ({ text: other, run: () => this.option(index, other, this.board.cardAt(index)?.more ?? anchor) }));
      if (!("cut" in clip.set) && index) items.push({ text: text("seamCut"), run: () => this.toggleCut(index) });
      return openMenu(anchor, text("chooseOption"), [{ text: text("chooseOption") }, ...items]);
    }
    if (name === "cut") return this.toggleCut(index);
    openField(anchor, {
      ...fieldOf(name, this.story.header),
      label: text("optionSet", { name, n: index + 1 }),
      value: valueOf(clip, name),
      done: text("optionDone"),
      clear: name in clip.set ? text("optionClear") : "",
      onDone: (value) => value === valueOf(clip, name) || this.setOption(index, name, value || null),
    });
  }

  menu(index, anchor) {
    const clip = this.story.cards[index];
    const reason = this.story.canEdit ? "" : this.story.whyNot;
    const noKey = clip.key ? "" : text("nothingToLock");
    const edit = (label, key, run, why = "") => ({ text: text(label), key, run, reason: reason || why });
    const card = this.board.cardAt(index);
    const at = card?.cursor();
    openMenu(anchor, text("more", { n: index + 1 }), [
      edit("edit", "Enter", () => card.editPrompt()),
      edit("addOption", "O", () => this.option(index, "", anchor)),
      edit("useImage", "I", () => this.board.images.ask(index, anchor)),
      edit("insertBefore", "", () => this.insert(index)),
      edit("insertAfter", "Ins", () => this.insert(index + 1)),
      edit("duplicate", "Ctrl+D", () => this.duplicate(index)),
      edit(at === undefined ? "split" : "splitHere", "S", () => this.split(index, at)),
      edit("moveLeft", "Alt+←", () => this.move(index, index - 1)),
      edit("moveRight", "Alt+→", () => this.move(index, index + 1)),
      edit("rerollOnly", "Shift+R", () => this.reroll(index, { run: false })),
      edit(clip.pin ? "unlockText" : "lockText", "L", () => this.lock(index), clip.pin ? "" : noKey),
      { text: text("takeHint"), key: "T", run: () => this.takes(index, anchor), reason: clip.take ? "" : text("noTakes") },
      { text: text(clip.kept ? "unprotect" : "protect"), run: () => this.protect(index), reason: noKey },
      { text: text("selectText"), run: () => this.showText(index) },
      { ...edit("remove", "Del", () => this.remove(index)), danger: true },
    ]);
  }

  /** Do what a key asks of the selected card; return whether there was something to do. */
  onKey(event, index) {
    const { key, ctrlKey, metaKey, altKey, shiftKey } = event;
    const [card, command] = [this.board.cardAt(index), ctrlKey || metaKey];
    const [back, forth] = this.board.narrow ? ["ArrowUp", "ArrowDown"] : ["ArrowLeft", "ArrowRight"];
    const last = this.story.cards.length - 1;
    if (command) return !altKey && key.toLowerCase() === "d" ? this.#do(() => this.duplicate(index)) : false;
    if (altKey) {
      if (key === back) return this.#do(() => this.move(index, index - 1));
      return key === forth ? this.#do(() => this.move(index, index + 1)) : false;
    }
    const plain = {
      [back]: () => this.board.goTo(index - 1),
      [forth]: () => this.board.goTo(index + 1),
      Home: () => this.board.goTo(0),
      End: () => this.board.goTo(last),
      PageUp: () => this.board.goTo(index - this.board.numInSight),
      PageDown: () => this.board.goTo(index + this.board.numInSight),
      Enter: () => card.editPrompt(),
      F2: () => card.editPrompt(),
      Delete: () => this.remove(index),
      Backspace: () => this.remove(index),
      Insert: () => this.insert(index + 1),
      " ": () => (this.board.player.isPlaying ? this.board.player.stop() : card.play(0)),
      r: () => this.reroll(index, { run: !shiftKey }),
      l: () => this.lock(index),
      t: () => this.takes(index, card.take.hidden ? card.more : card.take),
      s: () => this.split(index),
      i: () => this.board.images.ask(index, card.more),
      o: () => this.option(index, "", card.more),
      m: () => this.menu(index, card.more),
    }[key.length === 1 ? key.toLowerCase() : key];
    return plain ? this.#do(plain) : false;
  }

  #do(action) {
    action();
    return true;
  }
}
