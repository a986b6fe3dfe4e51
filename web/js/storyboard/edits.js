/** Edits of the story's text: made by the server's parser, one after the other, each as one undo step of the graph. */

import { duration } from "./dom.js";
import * as frontEnd from "./front_end.js";
import { text } from "./texts.js";

export class Edits {
  #last = Promise.resolve();
  #numPending = 0;

  /** @param {import("./story.js").Story} story */
  constructor(story) {
    this.story = story;
  }

  /**
   * Edit the text: one or several actions as one undo step.
   * @param {object[]} actions of /svi/edit
   * @param {object} given
   * @param {boolean} given.run queue the graph afterwards
   * @param {number} given.added clips that the story gains; num_clips follows
   * @param {() => void} given.also a further change of the graph in the same undo step
   * @param {string} given.held the text that the edit replaces; without it the text as it stands
   * @param {string} given.done what to say in front of the cost
   * @param {object} given.seen which cards the places in `actions` mean, from `seen`; those that are shown now without it
   * @returns {Promise<boolean | undefined>} whether it was done
   */
  make(actions, given = {}) {
    const seen = given.seen ?? this.seen(actions);
    this.#numPending++;
    const result = this.#last.then(() => this.#makeNow(actions, { ...given, seen })).finally(() => this.#numPending--);
    this.#last = result.catch(() => {}); // quick clicks act one after the other, each on the text that the one before left
    return result;
  }

  /** Queue the graph, after the edits that are under way; if the last of them is refused, the user first reads why. */
  async run() {
    if (this.#numPending && !(await this.#last)) return;
    await frontEnd.queue();
  }

  /** Wait until the edits that are under way are made, or refused. */
  done() {
    return this.#last;
  }

  async #makeNow(asked, { run = false, added = 0, also, held, done = "", seen }) {
    const { story } = this;
    const isCaughtUp = await story.caughtUp();
    const refuse = (message) => story.say(message, { isError: true });
    if (!isCaughtUp || seen.number !== story.number) return refuse(text("changedMeanwhile")); // the user saw another text, or another story
    if (!story.canEdit) return refuse(story.whyNot);
    const actions = story.moves.placed(asked, seen.since);
    if (!actions) return refuse(text("clipGone"));
    if (seen.numChanges !== story.numChanges && !this.#areThere(actions, seen.prompts)) return refuse(text("changedMeanwhile"));
    const { textNow: before, source } = story;
    if (before === undefined) return refuse(text("notThere", { node: source.node }));
    if (held !== undefined && held !== before) return refuse(text("changedMeanwhile"));
    try {
      const reply = await this.#edited(before, actions, { count: this.#countWith(added) });
      await frontEnd.graphAtRest(); // what is written while the front end loads a graph is lost
      if (!this.#isShown(seen.number, source)) throw new Error(text(source.file ? "onlyInFile" : "changedMeanwhile", source));
      if (source.kind === "text" && story.textNow !== before) throw new Error(text("changedMeanwhile")); // typed
      this.#write(reply, added, also);
      this.#say(reply, before, done);
      const isMoved = story.moves.note(actions);
      story.making.failure = null; // of the text before
      if (isMoved && Number.isInteger(reply.clip)) story.selected = reply.clip;
      story.edited();
      if (run) await frontEnd.queue();
      return true;
    } catch (error) {
      this.#refused(error, actions, { run, added, also, seen: { ...this.seen(actions), number: seen.number, since: story.moves.now } });
      story.refresh();
      return false;
    }
  }

  /** Return what a user sees who acts on clips now: for `make` after something that takes a while. */
  seen(actions) {
    const { number, numChanges, moves, cards } = this.story;
    return { number, numChanges, since: moves.shown, prompts: actions.map(({ clip }) => cards[clip]?.prompt) };
  }

  /** Whether the clips of actions still have the prompts that the user saw. */
  #areThere(actions, prompts) {
    return actions.every(({ clip }, number) => this.story.cards[clip]?.prompt === prompts[number]);
  }

  /** Whether the page shows the story called `number`, with its text where it was: another may have been chosen meanwhile. */
  #isShown(number, { kind, node, file }) {
    const { source, workflow, number: shown } = this.story;
    return number === shown && frontEnd.workflow() === workflow && source?.kind === kind && source.node === node && source.file === file;
  }

  /** Return the server's reply to several actions, each on the text that the one before made; `count` is num_clips afterwards, if it changes. */
  #edited(before, actions, { count = null, apply = true } = {}) {
    const { source, graph, node } = this.story;
    const file = source.kind === "file" ? { file: source.file, apply } : {};
    return this.story.server.edit({ prompt: graph, node, num_clips: count, ...file, text: before, split: source.split, actions });
  }

  /** Return what an action would cost; nothing changes. */
  async costOf(action) {
    const { cost } = await this.#edited(this.story.textNow, [action], { apply: false });
    return cost;
  }

  #write(reply, added, also) {
    const { source, node } = this.story;
    const count = this.#countWith(added);
    frontEnd.asOneStep(() => {
      also?.();
      if (count) frontEnd.write(node, "num_clips", count);
      if (source.kind !== "text") return void (source.text = reply.text);
      frontEnd.write(source.node, source.widget, reply.text);
      this.story.shownText = this.story.textNow;
      if (reply.split !== source.split) frontEnd.write(source.split_node, source.split_widget, reply.split);
    });
  }

  /** Return num_clips as it stands in the graph now, which may be newer than the plan; null where it follows the text or comes from elsewhere. */
  #numClips() {
    const { header, node } = this.story;
    return (Number.isInteger(header?.num_clips) && frontEnd.read(node, "num_clips")) || null;
  }

  /** Return num_clips of a story that gains clips, null where it stays as it is. */
  #countWith(added) {
    const now = this.#numClips();
    return now && added ? Math.max(1, now + added) : null;
  }

  /** Say what an edit costs. Only a live file needs our own undo: edits of the graph are undone with Ctrl+Z as any other. */
  #say({ cost, notes = [] }, before, done) {
    const back = [{ do: "replace", new_text: before }];
    const seen = this.seen(back); // of this story, whichever is shown when the button is pressed
    const undo = this.story.source.kind === "file" ? () => this.make(back, { seen }) : undefined;
    this.story.say([done, cost ? costText(cost) : "", ...notes].filter(Boolean).join(" "), { undo });
  }

  #refused(error, actions, given) {
    const fix = error.fix === "as_paragraphs" ? () => this.make([{ do: "as_paragraphs" }, ...actions], given) : undefined;
    this.story.say(error.message, { isError: true, fix, line: error.line, column: error.column });
  }

  /** Change num_clips alone, for clips beyond the end of the text. */
  async changeNumClips(added) {
    const { number } = this.story;
    if (!(await this.story.caughtUp()) || number !== this.story.number) return this.story.say(text("changedMeanwhile"), { isError: true });
    const now = this.#numClips();
    if (!now || now + added < 1) return;
    frontEnd.asOneStep(() => frontEnd.write(this.story.node, "num_clips", now + added));
    this.story.refresh();
  }
}

/** Return what an edit costs, as a sentence. */
export function costText({ clips, count, seconds }) {
  if (!count) return text("costNothing");
  const numbers = clips.map((index) => index + 1);
  const isRow = numbers.length > 2 && numbers.at(-1) - numbers[0] === numbers.length - 1;
  const which = isRow ? `${numbers[0]} – ${numbers.at(-1)}` : numbers.slice(0, 6).join(", ") + (numbers.length > 6 ? ", ..." : "");
  const time = seconds ? text("costTime", { time: duration(seconds) }) : "";
  return text("cost", { n: count, which, time });
}
