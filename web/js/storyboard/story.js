/**
 * The story that the page shows: the server's plan of the graph, what is being made, and edits of the schedule's text.
 *
 * The text is the only truth. Nothing is stored here that a reload could lose.
 */

import { Edits } from "./edits.js";
import * as frontEnd from "./front_end.js";
import { Making } from "./making.js";
import { Moves } from "./moves.js";
import { StoryServer } from "./server.js";
import { text } from "./texts.js";

const SETTLE_MS = 200; // delay while somebody types or a graph loads
const WATCH_MS = 700; // how often the text is compared with what is shown

/** Emits "change" (draw everything), "progress" (only the clip that is being made moved), "edited" (the text) and "message" (one sentence). */
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
  wanted = null; // the one that the user chose, and in which workflow
  selected = 0;
  numChanges = 0; // of the text that no edit here made: typing into the node, undo
  number = 0; // of the story that is shown: what was typed into the cards of one means nothing in the next
  isStale = false; // the cards are those of before a mistake
  isLoaded = false;
  hasFailed = false; // the server gave no plan at all
  #viewers = 0;
  #request = 0;
  #answered = 0; // the newest request whose plan is shown, or could not be had

  constructor() {
    super();
    this.making = new Making(this);
    this.edits = new Edits(this);
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

  /** Why the text cannot be edited, as a sentence. */
  get whyNot() {
    return this.source?.why_not || text("loading");
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
  }

  choose(node) {
    this.wanted = { node, workflow: frontEnd.workflow() };
    this.refresh();
  }

  select(index) {
    this.selected = Math.max(0, Math.min(index, this.cards.length - 1));
    this.#emit("change");
  }

  /** Ask for a new plan after a short delay, while somebody looks. */
  refresh() {
    if (this.#viewers) this.#loadSoon();
  }

  #loadSoon() {
    const request = ++this.#request;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#load(request), SETTLE_MS);
  }

  async #load(request) {
    try {
      await this.#plan(request);
    } catch (error) {
      console.error("SVI storyboard:", error);
      if (request === this.#request) this.#keepCards(error.message);
    } finally {
      if (request === this.#request) {
        this.#answered = request;
        this.#emit("planned"); // whatever happened: edits wait for it
      }
    }
  }

  async #plan(request) {
    let reply, failure;
    await frontEnd.graphAtRest();
    if (request !== this.#request) return;
    const [workflow, seen, read] = [frontEnd.workflow(), this.moves.now, this.textNow];
    try {
      const graph = await frontEnd.queuedGraph();
      const wanted = this.wanted?.workflow === workflow ? this.wanted.node : this.node;
      reply = await this.server.plan(graph, graph[wanted]?.class_type === "SVIGenerate" ? wanted : null);
      if (request === this.#request) this.graph = graph;
    } catch (error) {
      failure = error.message;
    }
    if (request !== this.#request) return; // superseded by a newer request
    if (workflow !== this.workflow) this.#begin(workflow);
    else if (reply) this.moves.shown = seen;
    if (reply) this.#take(reply, read);
    else this.#keepCards(failure);
  }

  /** Without an answer the cards of before stay, dimmed. */
  #keepCards(message) {
    this.hasFailed = true;
    this.isStale = this.cards.length > 0;
    this.errors = [{ message }];
    this.#emit("change");
  }

  /** Another workflow is shown: nothing of the one before means anything here, whatever the ids of its nodes. */
  #begin(workflow) {
    this.#beginStory();
    Object.assign(this, { workflow, cards: [], header: null, source: null, node: null, isLoaded: false });
  }

  /** Another story is shown, of this workflow or another: edits, clips and a run of the one before mean nothing in it. */
  #beginStory() {
    this.number++;
    this.moves = new Moves();
    this.making.forget();
    this.making.failure = null;
  }

  /** Show a plan; `read` is the text that stood in the graph when it was asked for, where its place was known. */
  #take({ node = null, nodes = [], source = null, header, cards, warnings = [], not_known: notKnown = [], errors = [] }, read) {
    const isSameStory = node === this.node;
    const isStale = !header && node !== null && isSameStory && this.cards.length > 0;
    const last = (isStale ? this.cards : cards).length - 1;
    if (!isSameStory && this.node !== null) this.#beginStory();
    this.isStale = isStale;
    if (!this.isStale) Object.assign(this, { cards, header });
    Object.assign(this, { node, nodes, warnings, notKnown, errors, isLoaded: true, hasFailed: false, source: source ?? (isSameStory ? this.source : null) });
    this.selected = Math.max(0, Math.min(this.selected, last));
    if (isSameStory && read !== this.shownText) this.numChanges++;
    this.shownText = isSameStory && read !== undefined ? read : this.textNow;
    if (!isSameStory && source?.kind === "text" && source.text !== this.shownText) this.refresh(); // typed since it was asked for
    this.#emit("change");
    if (!isSameStory) this.making.look();
  }

  /** Wait for the plan of the graph as it is now. */
  #replanned() {
    this.#loadSoon();
    return this.#planned();
  }

  /** Wait until no plan is on its way. */
  async #planned() {
    if (this.#answered !== this.#request) await new Promise((resolve) => this.addEventListener("planned", resolve, { once: true }));
  }

  /** Wait until no edit and no plan is on its way: places in the text that cards name are then those of the text that is shown. */
  async settled() {
    await this.edits.done();
    await this.#planned();
  }

  /** The schedule's text as it stands in the graph, or in the live file. */
  get textNow() {
    const { source } = this;
    return source?.kind === "text" ? frontEnd.read(source.node, source.widget) : source?.text;
  }

  #noticeTyping() {
    if (this.source?.kind !== "text" || this.textNow === this.noticedText) return;
    this.noticedText = this.textNow;
    if (this.noticedText !== this.shownText || this.hasFailed) this.refresh();
  }

  /** Whether the cards are of another text, or of another workflow, than the graph holds now: typed, undone, or still loading. */
  get #isBehind() {
    return !this.isLoaded || frontEnd.workflow() !== this.workflow || (this.source?.kind === "text" && this.textNow !== this.shownText);
  }

  /** Wait until the cards are those of the graph as it is now; return whether they are: not where they could not be planned. */
  async caughtUp() {
    await frontEnd.graphAtRest();
    if (this.#isBehind) await this.#replanned();
    return !this.#isBehind;
  }

  /** Say one sentence to the user; `undo` and `fix` become buttons. */
  say(message, { isError = false, undo, fix, line = null, column = null } = {}) {
    this.dispatchEvent(new CustomEvent("message", { detail: { message, isError, undo, fix, line, column } }));
  }

  /** Draw the text that an edit made: its plan takes a moment. */
  edited() {
    this.#emit("edited");
    this.refresh();
  }

  /** Draw the card that is being made anew. */
  progressed() {
    this.#emit("progress");
  }

  #emit(name) {
    this.dispatchEvent(new Event(name));
  }
}
