/** The head of the storyboard: run, clips, length, what is ready, being made and planned, and how long it will take; and the main actions. */

import { button, duration, element, say, timecode } from "./dom.js";
import { openPopup } from "./popup.js";
import { watchClips } from "./takes.js";
import { text } from "./texts.js";

const COUNTED = ["ready", "outdated", "planned", "failed"];

export class Header {
  /**
   * @param {import("./story.js").Story} story
   * @param {import("./board.js").Board} board
   */
  constructor(story, board) {
    Object.assign(this, { story, board });
    this.run = element("strong", "svi-board-run");
    this.chooser = element("select", "svi-board-chooser", { "aria-label": text("chooseStory") });
    this.chooser.addEventListener("change", () => story.choose(this.chooser.value));
    this.size = element("span", "svi-board-faint");
    this.counts = element("span", "svi-board-counts");
    this.warned = button("", () => this.#showPlan(this.warned), { className: "svi-board-warned" });
    this.textButton = button(text("textView"), () => board.toggleText(), { hint: text("textViewHint") });
    this.add = button(text("addClip"), () => board.actions.insert(story.cards.length), { hint: text("addClipHint") });
    this.plan = button(text("planButton"), () => this.#showPlan(this.plan), { hint: text("planHint") });
    this.play = button(text("playAll"), () => watchClips(story), { hint: text("playAllHint") });
    this.make = button("", () => (story.making.isRunning ? story.making.stop() : story.edits.run()), { className: "is-main" });
    const buttons = element("div", "svi-board-head-buttons", {}, [this.textButton, this.add, this.plan, this.play, this.make]);
    const facts = element("div", "svi-board-facts", {}, [this.run, this.chooser, this.size, this.counts, this.warned]);
    this.element = element("header", "svi-board-head", {}, [facts, buttons]);
  }

  draw() {
    const { story } = this;
    const { header, nodes } = story;
    this.element.hidden = !story.node;
    say(this.run, header ? (header.run ?? text("noRun")) : "");
    this.chooser.hidden = nodes.length < 2;
    if (nodes.length > 1) {
      this.chooser.replaceChildren(...nodes.map(({ id, title }) => new Option(`${title} (${id})`, id, false, id === story.node)));
    }
    say(this.size, header ? sizeText(header) : "");
    const notes = story.warnings.length + story.notKnown.length;
    say(this.warned, notes ? text("notes", { n: notes }) : "");
    this.add.disabled = !story.canEdit;
    this.plan.disabled = !header;
    this.play.disabled = !story.cards.some((clip) => clip.preview);
    say(this.textButton, text(this.board.showsText ? "cardView" : "textView"));
    this.drawProgress();
  }

  /** Draw what moves while a clip is made. */
  drawProgress() {
    const { header, making } = this.story;
    this.counts.replaceChildren(...(header ? countTexts(header, making) : []).map(([kind, shown]) => {
      return element("span", `svi-count is-${kind}`, { textContent: shown });
    }));
    this.#drawMake(header, making.isRunning);
  }

  #drawMake(header, isRunning) {
    const toMake = header?.to_make ?? 0;
    say(this.make, isRunning ? text("stop") : toMake ? text("make", { n: toMake }) : text("allReady"));
    this.make.title = isRunning ? text("stopHint") : text(toMake ? "makeHint" : "allReadyHint");
    this.make.classList.toggle("is-stop", isRunning);
    this.make.disabled = !header;
  }

  #showPlan(anchor) {
    const { header, warnings, notKnown } = this.story;
    const [width, height] = header.size ?? [];
    const time = header.work_seconds === null ? text("noWork") : text("workNote", { time: duration(header.work_seconds), source: header.work_source });
    const facts = [sizeText(header), time];
    if (width) facts.push(text("sizeNote", { width: `${width}`, height: `${height}`, rate: `${header.frame_rate}` }));
    if (header.run) facts.push(text("folderNote", { run: header.run }));
    const lists = [
      ["", facts],
      [text("warnings"), warnings],
      [text("notKnownYet"), notKnown],
    ];
    const content = element("div", "svi-plan");
    for (const [title, lines] of lists) {
      if (!lines.length) continue;
      if (title) content.append(element("h3", "svi-board-popup-title", { textContent: title }));
      content.append(element("ul", "", {}, lines.map((line) => element("li", "", { textContent: line }))));
    }
    content.append(element("p", "svi-board-faint", { textContent: text("keys") }));
    openPopup(anchor, content, { label: text("planHint") }).focus({ preventScroll: true });
  }
}

function sizeText({ clips, seconds, frames, until_stopped: isEndless }) {
  const parts = [text("clips", { n: clips }), timecode(seconds), text("frames", { n: frames })];
  return isEndless ? text("untilStopped") : parts.join(" · ");
}

/** Return [kind, text] of each count: ready, making, what is left, and the time. */
function countTexts(header, making) {
  const counts = Object.fromEntries(COUNTED.map((kind) => [kind, header[kind] ?? 0]));
  const laidOver = new Set([making.index, making.failure?.index ?? -1].filter((index) => making.story.cards[index]));
  for (const index of laidOver) {
    const { state } = making.stateOf(index);
    counts[making.story.cards[index].state] -= 1;
    counts[state] = (counts[state] ?? 0) + 1;
  }
  const parts = COUNTED.filter((kind) => counts[kind] > 0).map((kind) => [kind, text(kind, { n: counts[kind] })]);
  if (counts.making) parts.splice(counts.ready > 0 ? 1 : 0, 0, ["making", makingText(making)]);
  if (header.listed > header.clips) parts.push(["dropped", text("dropped", { n: header.listed - header.clips })]);
  const left = making.isRunning ? making.runSecondsLeft : header.work_seconds;
  if (left && header.to_make) parts.push(["time", text("doneIn", { time: duration(left) })]);
  return parts;
}

function makingText({ step, steps, isDecoding, secondsLeft }) {
  const now = isDecoding ? text("writingFrames") : steps ? text("step", { step: `${step}`, steps: `${steps}` }) : "";
  const parts = [[text("making"), now].filter(Boolean).join(", ")];
  if (secondsLeft !== null) parts.push(text("clipLeft", { time: duration(secondsLeft) }));
  return parts.join(" · ");
}
