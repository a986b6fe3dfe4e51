/**
 * The story that the page shows: the server's plan of the graph, what is being made, and edits of the schedule's text.
 *
 * The text is the only truth. Nothing is stored here that a reload could lose.
 */

import { duration } from "./dom.js";
import * as frontEnd from "./front_end.js";
import { Making } from "./making.js";
import { Moves } from "./moves.js";
import { StoryServer } from "./server.js";
import { text } from "./texts.js";

const SETTLE_MS = 200; // delay while somebody types or a graph loads
const WATCH_MS = 700; // how often the text is compared with what is shown

/** Emits "change" (draw everything), "progress" (only the clip that is being made moved) and "message" (one sentence for the user). */
export class Story extends EventTarget {
  server = new StoryServer(frontEnd.fetchRoute);
  moves = new Moves();
  cards = [];
  header = null;
  source = null;
  errors = [];
  warnings = [];
  notKnown = [];
  nodes = [];
  node = null; // the planned SVI Generate
  wanted = null; // the one that the user chose
  selected = 0;
  numGraphs = 0; // shown so far: what was typed into the cards of one graph means nothing in the next
  isStale = false; // the cards are those of before a mistake
  isLoaded = false;
  hasFailed = false; // the server gave no plan at all
  #viewers = 0;
  #edits = Promise.resolve();
  #request = 0;

  constructor() {
    super();
    this.making = new Making(this);
    frontEnd.on("graphChanged", () => this.refresh());
    for (const event of ["svi.clip", "execution_success", "execution_error", "execution_interrupted", "reconnected"]) {
      frontEnd.on(event, () => this.refresh());
    }
  }

  /** Whether a view is open. */
  get isWatched() {
    return this.#viewers > 0;
  }

  get canEdit() {
    return Boolean(this.source?.editable);
  }

  /** A view opens, or closes: nothing is asked of the server while nobody looks. */
  addViewer() {
    this.#viewers++;
    this.watch ??= setInterval(() => this.#noticeTyping(), WATCH_MS);
    this.refresh();
    this.making.look();
  }

  removeViewer() {
    if (--this.#viewers) return;
    clearInterval(this.watch);
    this.watch = undefined;
    this.#emit("planned"); // nobody waits for a plan that nobody sees
  }

  /** Another graph is shown. */
  changeGraph() {
    this.numGraphs++;
    this.refresh();
  }

  choose(node) {
    this.wanted = node;
    this.refresh();
  }

  select(index) {
    this.selected = Math.max(0, Math.min(index, this.cards.length - 1));
    this.#emit("change");
  }

  /** Ask for a new plan after a short delay. */
  refresh() {
    const request = ++this.#request;
    clearTimeout(this.timer);
    if (this.#viewers) this.timer = setTimeout(() => this.#load(request), SETTLE_MS);
  }

  async #load(request) {
    let reply, failure;
    const seen = this.moves.now;
    try {
      const graph = await frontEnd.queuedGraph();
      const wanted = this.wanted ?? this.node;
      reply = await this.server.plan(graph, graph[wanted]?.class_type === "SVIGenerate" ? wanted : null);
      if (request === this.#request) this.graph = graph;
    } catch (error) {
      failure = error.message;
    }
    if (request !== this.#request) return; // superseded by a newer request
    this.hasFailed = failure !== undefined;
    if (reply) {
      this.moves.shown = seen;
      this.#take(reply);
    } else this.#keepCards(failure);
    this.#emit("planned");
  }

  /** Without an answer the cards of before stay, dimmed. */
  #keepCards(message) {
    this.isStale = this.cards.length > 0;
    this.errors = [{ message }];
    this.#emit("change");
  }

  #take({ node = null, nodes = [], source = null, header, cards, warnings = [], not_known: notKnown = [], errors = [] }) {
    const isSameStory = node === this.node;
    this.isStale = !header && node !== null && isSameStory && this.cards.length > 0;
    if (!this.isStale) Object.assign(this, { cards, header });
    Object.assign(this, { node, nodes, warnings, notKnown, errors, isLoaded: true, source: source ?? (isSameStory ? this.source : null) });
    this.selected = Math.max(0, Math.min(this.selected, this.cards.length - 1));
    this.shownText = this.#textNow();
    this.#emit("change");
    if (!isSameStory) this.making.look();
  }

  /** Wait for the plan of the graph as it is now. */
  #replanned() {
    const planned = new Promise((resolve) => this.addEventListener("planned", resolve, { once: true }));
    this.refresh();
    return planned;
  }

  /** Return the schedule's text as it stands in the graph, or in the live file. */
  #textNow() {
    const { source } = this;
    return source?.kind === "text" ? frontEnd.read(source.node, source.widget) : source?.text;
  }

  #noticeTyping() {
    if (this.source?.kind === "text" && this.#textNow() !== this.shownText) {
      this.shownText = this.#textNow();
      this.refresh();
    }
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
   * @param {number} given.since which cards the places in `actions` mean, from `moves.shown`; those that are shown now without it
   * @returns {Promise<boolean | undefined>} whether it was done
   */
  edit(actions, given = {}) {
    const since = given.since ?? this.moves.shown;
    const result = this.#edits.then(() => this.#editNow(actions, { ...given, since }));
    this.#edits = result.catch(() => {}); // quick clicks act one after the other, each on the text that the one before left
    return result;
  }

  async #editNow(asked, { run = false, added = 0, also, held, done = "", since }) {
    if (this.canEdit && this.#textNow() === undefined) await this.#replanned(); // its node has another id, or is gone
    if (!this.canEdit) return this.say(this.source?.why_not || text("loading"), { isError: true });
    const actions = this.moves.placed(asked, since);
    if (!actions) return this.say(text("clipGone"), { isError: true });
    const [before, { source }] = [this.#textNow(), this];
    if (before === undefined) return this.say(text("notThere", { node: source.node }), { isError: true });
    if (held !== undefined && held !== before) return this.say(text("changedMeanwhile"), { isError: true });
    try {
      const reply = await this.#edited(before, actions);
      if (source.kind === "text" && this.#textNow() !== before) throw new Error(text("changedMeanwhile")); // typed, or another graph
      this.#write(reply, added, also);
      const isMoved = this.moves.note(actions);
      this.making.failure = null; // of the text before
      if (isMoved && Number.isInteger(reply.clip)) this.selected = reply.clip;
      this.say([done, ...this.#costs(reply), ...(reply.notes ?? [])].filter(Boolean).join(" "), { undo: this.#undoOf(before) });
      this.refresh();
      if (run) await frontEnd.queue();
      return true;
    } catch (error) {
      this.#refused(error, actions, { run, added, also, since: this.moves.now });
      this.refresh();
      return false;
    }
  }

  /** Return the server's reply to the last of several actions, each on the text that the one before made. */
  async #edited(before, actions, apply = true) {
    const { source } = this;
    let reply = { text: before, split: source.split };
    for (const [number, action] of actions.entries()) {
      const isLast = number === actions.length - 1;
      const file = source.kind === "file" ? { file: source.file, held: before, apply: apply && isLast } : {};
      const graph = isLast ? { prompt: this.graph, node: this.node } : {}; // for the exact cost
      reply = await this.server.edit({ ...graph, ...file, text: reply.text, split: reply.split, action });
    }
    return reply;
  }

  /** Return what an action would cost; nothing changes. */
  async costOf(action) {
    const { cost } = await this.#edited(this.#textNow(), [action], false);
    return cost;
  }

  #write(reply, added, also) {
    const { source, node } = this;
    const now = this.#numClips();
    const count = now && added ? Math.max(1, now + added) : null;
    frontEnd.asOneStep(() => {
      also?.();
      if (count) frontEnd.write(node, "num_clips", count);
      if (source.kind !== "text") return void (source.text = reply.text);
      frontEnd.write(source.node, source.widget, reply.text);
      if (reply.split !== source.split) frontEnd.write(source.split_node, source.split_widget, reply.split);
    });
  }

  /** Return num_clips as it stands in the graph now, which may be newer than the plan; null where it follows the text or comes from elsewhere. */
  #numClips() {
    const isWidget = Number.isInteger(this.header?.num_clips);
    return (isWidget && frontEnd.read(this.node, "num_clips")) || null;
  }

  #costs({ cost }) {
    return cost ? [costText(cost)] : [];
  }

  /** Only a live file needs our own undo: edits of the graph are undone with Ctrl+Z as any other. */
  #undoOf(before) {
    return this.source.kind === "file" ? () => this.edit([{ do: "replace", new_text: before }]) : undefined;
  }

  #refused(error, actions, given) {
    const fix = error.fix === "as_paragraphs" ? () => this.edit([{ do: "as_paragraphs" }, ...actions], given) : undefined;
    this.say(error.message, { isError: true, fix, line: error.line, column: error.column });
  }

  /** Change num_clips alone, for clips beyond the end of the text. */
  changeNumClips(added) {
    const now = this.#numClips();
    if (!now || now + added < 1) return;
    frontEnd.asOneStep(() => frontEnd.write(this.node, "num_clips", now + added));
    this.refresh();
  }

  /** Say one sentence to the user; `undo` and `fix` become buttons. */
  say(message, { isError = false, undo, fix, line = null, column = null } = {}) {
    this.dispatchEvent(new CustomEvent("message", { detail: { message, isError, undo, fix, line, column } }));
  }

  /** Draw the card that is being made anew. */
  progressed() {
    this.#emit("progress");
  }

  #emit(name) {
    this.dispatchEvent(new Event(name));
  }
}

/** Return what an edit costs, as a sentence. */
export function costText({ clips, count, seconds }) {
  if (!count) return text("costNothing");
  const numbers = clips.map((index) => index + 1);
  const isRow = numbers.length > 2 && numbers.at(-1) - numbers[0] === numbers.length - 1;
  const which = isRow ? `${numbers[0]} – ${numbers.at(-1)}` : numbers.slice(0, 6).join(", ") + (numbers.length > 6 ? ", ..." : "");
  const time = seconds ? text("costTime", { time: duration(seconds) }) : "";
  return text("cost", { n: count, which }) + time;
}
